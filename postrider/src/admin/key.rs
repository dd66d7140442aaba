//! `postrider admin key`.

use anyhow::{Context, bail};
use api::keys::{self, KeyMode, NewKey};
use mail::ids::ApiKeyId;
use serde_json::json;
use store::KeyRecord;
use time::Duration;

use super::Desk;
use super::args::KeyCommand;
use super::show::{Shown, time};
use crate::provision::SCOPES;
use crate::wiring::new_uuid;

const COLUMNS: &[&str] = &[
    "id",
    "account",
    "hint",
    "mode",
    "scopes",
    "created_at",
    "expires_at",
    "revoked_at",
];

impl Desk<'_> {
    pub(super) async fn key(&self, command: KeyCommand) -> anyhow::Result<Shown> {
        match command {
            KeyCommand::Create {
                account,
                test,
                scopes,
                expires_in_days,
            } => {
                let mode = if test { KeyMode::Test } else { KeyMode::Live };
                self.create_key(&account, mode, &scopes, expires_in_days)
                    .await
            }
            KeyCommand::List { account } => self.list_keys(account.as_deref()).await,
            KeyCommand::Revoke { key } => self.revoke_key(&key).await,
        }
    }

    async fn create_key(
        &self,
        account: &str,
        mode: KeyMode,
        scopes: &[String],
        expires_in_days: Option<u16>,
    ) -> anyhow::Result<Shown> {
        let scopes = checked_scopes(scopes)?;
        let account = self.find_account(account).await?;
        let now = self.provisioner.clock.now();
        let expires_at = expires_in_days.map(|days| now + Duration::days(days.into()));
        let id = ApiKeyId::from_uuid(new_uuid(self.provisioner.clock));
        let NewKey { secret, hash, hint } = keys::generate(mode, rand::random());
        let test = mode == KeyMode::Test;
        self.store
            .create_key(id, account.no, hash, &hint, test, &scopes, now, expires_at)
            .await?;
        Ok(Shown::One {
            told: "made an API key; keep it now, it is not shown again".to_owned(),
            thing: json!({
                "id": id,
                "key": secret,
                "account": account.name,
                "mode": mode_word(test),
                "scopes": scopes,
                "expires_at": time(expires_at),
            }),
        })
    }

    async fn list_keys(&self, account: Option<&str>) -> anyhow::Result<Shown> {
        let account = match account {
            Some(named) => Some(self.find_account(named).await?.no),
            None => None,
        };
        let records = self.store.key_records(account).await?.into_iter();
        let thing = |record: KeyRecord| {
            json!({
                "id": record.id,
                "account": record.account,
                "hint": record.hint,
                "mode": mode_word(record.test),
                "scopes": record.scopes,
                "created_at": time(Some(record.created_at)),
                "expires_at": time(record.expires_at),
                "revoked_at": time(record.revoked_at),
            })
        };
        Ok(Shown::Many {
            columns: COLUMNS,
            things: records.map(thing).collect(),
        })
    }

    async fn revoke_key(&self, key: &str) -> anyhow::Result<Shown> {
        // A key itself must not end up in a message.
        let id: ApiKeyId = key.parse().context(
            "that is not the id of a key: `postrider admin key list` shows them, as key_...",
        )?;
        let now = self.provisioner.clock.now();
        if !self.store.end_key(id, now).await? {
            bail!("there is no key {id}, or it was revoked before");
        }
        Ok(Shown::One {
            told: "revoked the key".to_owned(),
            thing: json!({"id": id, "revoked_at": time(Some(now))}),
        })
    }
}

fn mode_word(test: bool) -> &'static str {
    if test { "test" } else { "live" }
}

fn checked_scopes(named: &[String]) -> anyhow::Result<Vec<String>> {
    if named.is_empty() {
        return Ok(SCOPES.map(str::to_owned).to_vec());
    }
    if let Some(unknown) = named.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        bail!(
            "{unknown:?} is not a scope; there are {}",
            SCOPES.join(", ")
        );
    }
    let mut scopes = named.to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_known_and_named_once() {
        assert_eq!(checked_scopes(&[]).unwrap().len(), SCOPES.len());
        let twice = ["emails:send".to_owned(), "emails:send".to_owned()];
        assert_eq!(checked_scopes(&twice).unwrap(), ["emails:send"]);
        assert!(checked_scopes(&["everything".to_owned()]).is_err());
    }
}
