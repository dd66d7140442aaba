//! Makes what an account needs before it can send: the account, its streams, API keys, a verified
//! domain with a DKIM key. Everything may be there already; nothing is made twice.

use anyhow::Context;
use api::keys::{self, KeyMode, NewKey};
use mail::dkim_key::SigningKey;
use mail::domain_name::DomainName;
use mail::domain_records::ExpectedRecord;
use mail::ids::{AccountId, ApiKeyId, DomainId, StreamId};
use mail::retry::StreamClass;
use serde_json::{Value, json};
use service::clock::Clock;
use store::{Account, AccountNo, Sealer, SenderDomain, Store, StoreError};

use crate::wiring::new_uuid;

/// What an owner's key may do: everything in its account.
pub(crate) const SCOPES: [&str; 10] = [
    "emails:send",
    "emails:read",
    "domains:*",
    "suppressions:*",
    "templates:*",
    "webhooks:*",
    "stats:read",
    "pools:*",
    "keys:*",
    "admin:*",
];
/// Selector of the first DKIM key of a domain.
const SELECTOR: &str = "pr1";

/// Provisions one platform.
pub(crate) struct Provisioner<'a> {
    pub(crate) store: &'a Store,
    pub(crate) sealer: &'a Sealer,
    pub(crate) clock: &'a Clock,
}

impl Provisioner<'_> {
    /// The account of that name, with its two streams.
    ///
    /// # Errors
    /// Of the database.
    pub(crate) async fn account(&self, name: &str) -> anyhow::Result<Account> {
        let account = match self.store.account_by_name(name).await? {
            Some(account) => account,
            None => {
                let id = AccountId::from_uuid(new_uuid(self.clock));
                self.store
                    .create_account(id, name, self.clock.now())
                    .await?
            }
        };
        for (stream, class) in [
            ("transactional", StreamClass::Transactional),
            ("broadcast", StreamClass::Broadcast),
        ] {
            let id = StreamId::from_uuid(new_uuid(self.clock));
            match self
                .store
                .create_stream(id, account.no, stream, class)
                .await
            {
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(account)
    }

    /// A new key with all scopes; its text is nowhere else.
    ///
    /// # Errors
    /// Of the database.
    pub(crate) async fn new_key(
        &self,
        account: AccountNo,
        mode: KeyMode,
    ) -> anyhow::Result<String> {
        let NewKey { secret, hash, hint } = keys::generate(mode, rand::random());
        self.store_key(account, mode, hash, &hint).await?;
        Ok(secret)
    }

    /// Makes `secret` a key of the account, unless it is one.
    ///
    /// # Errors
    /// The text cannot be a key; of the database.
    pub(crate) async fn known_key(
        &self,
        account: AccountNo,
        mode: KeyMode,
        secret: &str,
    ) -> anyhow::Result<()> {
        let hash = keys::hash(secret).context("not an API key")?;
        if self.store.key_by_hash(&hash).await?.is_some() {
            return Ok(());
        }
        let hint = format!("…{}", &secret[secret.len().saturating_sub(4)..]);
        self.store_key(account, mode, hash, &hint).await
    }

    async fn store_key(
        &self,
        account: AccountNo,
        mode: KeyMode,
        hash: [u8; 32],
        hint: &str,
    ) -> anyhow::Result<()> {
        let id = ApiKeyId::from_uuid(new_uuid(self.clock));
        let scopes = SCOPES.map(str::to_owned);
        let (test, now) = (mode == KeyMode::Test, self.clock.now());
        self.store
            .create_key(id, account, hash, hint, test, &scopes, now, None)
            .await?;
        Ok(())
    }

    /// The account's domain of that name, verified, with a DKIM key.
    ///
    /// # Errors
    /// No key can be made or sealed; of the database.
    pub(crate) async fn domain(
        &self,
        account: AccountNo,
        name: &DomainName,
    ) -> anyhow::Result<SenderDomain> {
        if self.store.is_proved_by_another(account, name).await? {
            anyhow::bail!(
                "{name} belongs to another account: two would need different DKIM records at the \
                 same name. Send for it from that account, or take a subdomain"
            );
        }
        let now = self.clock.now();
        let domain = match self.store.sender_domain(account, name).await? {
            Some(domain) => domain,
            None => {
                let id = DomainId::from_uuid(new_uuid(self.clock));
                self.store.create_domain(id, account, name, now).await?
            }
        };
        if self.store.dkim_records(domain.no).await?.is_empty() {
            let key = tokio::task::spawn_blocking(SigningKey::generate_rsa_2048).await??;
            self.store
                .add_dkim_key(domain.no, SELECTOR, &key, self.sealer, now)
                .await?;
        }
        if !domain.verified {
            self.store.verify_domain(domain.no, now).await?;
        }
        Ok(domain)
    }
    /// The records that the domain should publish, as `POST /v1/domains` tells them; `return_path` is
    /// the platform's domain for bounces.
    ///
    /// # Errors
    /// Of the database.
    pub(crate) async fn records(
        &self,
        domain: &SenderDomain,
        return_path: Option<&DomainName>,
    ) -> anyhow::Result<Vec<Value>> {
        let registered = self
            .store
            .registered_domain(domain.account, domain.id)
            .await?;
        let registered =
            registered.with_context(|| format!("{} is not there any more", domain.name))?;
        let records = registered
            .expected_records(return_path)
            .records()
            .into_iter();
        let shown = |record: ExpectedRecord| {
            json!({
                "purpose": record.purpose,
                "type": record.kind,
                "name": record.name,
                "value": record.value,
                "required": record.required,
                "note": record.note,
            })
        };
        Ok(records.map(shown).collect())
    }
}
