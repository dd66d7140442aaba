//! `postrider admin account`.

use anyhow::bail;
use serde_json::json;

use super::args::AccountCommand;
use super::show::{Shown, time};
use super::{Desk, check_name};

const COLUMNS: &[&str] = &[
    "id",
    "name",
    "keys",
    "verified_domains",
    "created_at",
    "disabled_at",
];

impl Desk<'_> {
    pub(super) async fn account(&self, command: AccountCommand) -> anyhow::Result<Shown> {
        match command {
            AccountCommand::Create { name } => self.create_account(&name).await,
            AccountCommand::List => self.list_accounts().await,
            AccountCommand::Disable { account } => self.disable_account(&account, true).await,
            AccountCommand::Enable { account } => self.disable_account(&account, false).await,
        }
    }

    async fn create_account(&self, name: &str) -> anyhow::Result<Shown> {
        check_name(name)?;
        if let Some(there) = self.store.account_by_name(name).await? {
            bail!("there is an account {name:?} already: {}", there.id);
        }
        let made = self.provisioner.account(name).await?;
        Ok(Shown::One {
            told: format!("made the account {name}"),
            thing: json!({"id": made.id, "name": made.name}),
        })
    }

    async fn list_accounts(&self) -> anyhow::Result<Shown> {
        let now = self.provisioner.clock.now();
        let records = self.store.account_records(now).await?.into_iter();
        let thing = |record: store::AccountRecord| {
            json!({
                "id": record.account.id,
                "name": record.account.name,
                "keys": record.keys,
                "verified_domains": record.verified_domains,
                "created_at": time(Some(record.created_at)),
                "disabled_at": time(record.disabled_at),
            })
        };
        Ok(Shown::Many {
            columns: COLUMNS,
            things: records.map(thing).collect(),
        })
    }

    async fn disable_account(&self, named: &str, disabled: bool) -> anyhow::Result<Shown> {
        let account = self.find_account(named).await?;
        let now = self.provisioner.clock.now();
        let disabled_at = self
            .store
            .set_account_disabled(account.no, disabled, now)
            .await?;
        let name = &account.name;
        Ok(Shown::One {
            told: match disabled {
                true => format!("{name} is shut out; mail accepted before is still sent"),
                false => format!("{name} is let in, with the keys it has"),
            },
            thing: json!({"id": account.id, "name": name, "disabled_at": time(disabled_at)}),
        })
    }
}
