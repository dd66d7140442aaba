//! Accounts: the tenants everything else belongs to.

use mail::ids::AccountId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::AccountNo;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Inside.
    pub no: AccountNo,
    /// Outside.
    pub id: AccountId,
    /// Shown to its people.
    pub name: String,
}

impl Account {
    fn from_columns((no, id, name): (i32, Uuid, String)) -> Self {
        Self {
            no: AccountNo(no),
            id: AccountId::from_uuid(id),
            name,
        }
    }
}

impl Store {
    /// Makes an account.
    ///
    /// # Errors
    /// `Conflict` when the id is taken; of the database.
    pub async fn create_account(
        &self,
        id: AccountId,
        name: &str,
        at: OffsetDateTime,
    ) -> Result<Account, StoreError> {
        let no: i32 = sqlx::query_scalar(
            "INSERT INTO account (public_id, name, created_at) VALUES ($1, $2, $3) RETURNING id",
        )
        .bind(id.uuid())
        .bind(name)
        .bind(at)
        .fetch_one(&self.general)
        .await
        .unless_taken("create an account", "account")?;
        Ok(Account {
            no: AccountNo(no),
            id,
            name: name.to_owned(),
        })
    }

    /// The oldest account of that name.
    ///
    /// # Errors
    /// Of the database.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query_as(
            "SELECT id, public_id, name FROM account WHERE name = $1 ORDER BY id LIMIT 1",
        )
        .bind(name)
        .fetch_optional(&self.general)
        .await
        .during("find an account by name")?;
        Ok(row.map(Account::from_columns))
    }

    /// All accounts, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let rows = sqlx::query_as("SELECT id, public_id, name FROM account ORDER BY id")
            .fetch_all(&self.general)
            .await
            .during("list accounts")?;
        Ok(rows.into_iter().map(Account::from_columns).collect())
    }
}
