//! `postrider admin domain`.

use anyhow::Context;
use mail::domain_name::DomainName;
use serde_json::json;
use store::SenderDomain;

use super::Desk;
use super::args::DomainCommand;
use super::show::Shown;

const COLUMNS: &[&str] = &["id", "name", "status"];

impl Desk<'_> {
    pub(super) async fn domain(&self, command: DomainCommand) -> anyhow::Result<Shown> {
        match command {
            DomainCommand::Create { domain, account } => {
                self.create_domain(&domain, &account).await
            }
            DomainCommand::List { account } => self.list_domains(&account).await,
        }
    }

    async fn create_domain(&self, domain: &str, account: &str) -> anyhow::Result<Shown> {
        let name = DomainName::parse(domain).context("that is not a domain name")?;
        let account = self.find_account(account).await?;
        let made = self.provisioner.domain(account.no, &name).await?;
        let return_path = self.return_path.as_ref();
        let records = self.provisioner.records(&made, return_path).await?;
        Ok(Shown::One {
            told: format!("{} may send from {name}; publish the records", account.name),
            thing: json!({
                "id": made.id,
                "name": name.as_str(),
                "account": account.name,
                "dns_records": records,
            }),
        })
    }

    async fn list_domains(&self, account: &str) -> anyhow::Result<Shown> {
        let account = self.find_account(account).await?;
        let domains = self.store.sender_domains(account.no).await?.into_iter();
        let thing = |domain: SenderDomain| {
            let status = if domain.verified {
                "verified"
            } else {
                "pending"
            };
            json!({"id": domain.id, "name": domain.name.as_str(), "status": status})
        };
        Ok(Shown::Many {
            columns: COLUMNS,
            things: domains.map(thing).collect(),
        })
    }
}
