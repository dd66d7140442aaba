//! Pools of egress sources, as far as the database knows them.

use mail::handling::PoolRef;
use mail::ids::PoolId;
use mail::text::DbText;
use uuid::Uuid;

use crate::cache::cached;
use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::PoolNo;

/// Where the mail of a pool goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// To the recipients' own hosts.
    Direct,
    /// To the sandbox MX, whoever the recipient is.
    Sandbox,
}

impl PoolKind {
    fn code(self) -> i16 {
        match self {
            Self::Direct => 0,
            Self::Sandbox => 1,
        }
    }

    pub(crate) fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Direct),
            1 => Ok(Self::Sandbox),
            other => Err(StoreError::corrupt("pool kind", other)),
        }
    }
}

/// A set of egress sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Inside.
    pub no: PoolNo,
    /// Outside.
    pub id: PoolId,
    /// Unique.
    pub name: String,
    /// Where its mail goes.
    pub kind: PoolKind,
}

type Columns = (i32, Uuid, String, i16);

impl Pool {
    fn from_columns((no, id, name, kind): Columns) -> Result<Self, StoreError> {
        Ok(Self {
            no: PoolNo(no),
            id: PoolId::from_uuid(id),
            name,
            kind: PoolKind::from_code(kind)?,
        })
    }
}

impl Store {
    /// Makes a pool of the default queue group.
    ///
    /// # Errors
    /// `Conflict` when the name is taken; of the database.
    pub async fn create_pool(
        &self,
        id: PoolId,
        name: &str,
        kind: PoolKind,
    ) -> Result<Pool, StoreError> {
        let no: i32 = sqlx::query_scalar(
            "INSERT INTO pool (public_id, name, kind) VALUES ($1, $2, $3) RETURNING id",
        )
        .bind(id.uuid())
        .bind(name)
        .bind(kind.code())
        .fetch_one(&self.general)
        .await
        .unless_taken("create a pool", "pool name")?;
        self.cache.sandbox_pool.invalidate(&()).await;
        self.cache.pools.invalidate(&PoolNo(no)).await;
        self.cache.pools_by_ref.invalidate(&PoolRef::Id(id)).await;
        if let Ok(name) = DbText::parse(name, name.len()) {
            let by_name = PoolRef::Name(name);
            self.cache.pools_by_ref.invalidate(&by_name).await;
        }
        Ok(Pool {
            no: PoolNo(no),
            id,
            name: name.to_owned(),
            kind,
        })
    }

    /// The pool of that number, at most 10 s old.
    ///
    /// # Errors
    /// Of the database.
    pub async fn pool_by_no(&self, no: PoolNo) -> Result<Option<Pool>, StoreError> {
        let load = async {
            let row: Option<Columns> =
                sqlx::query_as("SELECT id, public_id, name, kind FROM pool WHERE id = $1")
                    .bind(no.0)
                    .fetch_optional(&self.general)
                    .await
                    .during("find a pool by number")?;
            row.map(Pool::from_columns).transpose()
        };
        cached(&self.cache.pools, no, load).await
    }

    /// The pool of that id or name, at most 10 s old.
    ///
    /// # Errors
    /// Of the database.
    pub async fn pool_by_ref(&self, wanted: &PoolRef) -> Result<Option<Pool>, StoreError> {
        let (id, name) = match wanted {
            PoolRef::Id(id) => (Some(id.uuid()), None),
            PoolRef::Name(name) => (None, Some(name.as_str())),
        };
        let load = async {
            let row: Option<Columns> = sqlx::query_as(
                "SELECT id, public_id, name, kind FROM pool WHERE public_id = $1 OR name = $2",
            )
            .bind(id)
            .bind(name)
            .fetch_optional(&self.general)
            .await
            .during("find a pool by id or name")?;
            row.map(Pool::from_columns).transpose()
        };
        cached(&self.cache.pools_by_ref, wanted.clone(), load).await
    }

    /// The pool whose mail goes to the sandbox: the oldest, if there are several.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sandbox_pool(&self) -> Result<Option<Pool>, StoreError> {
        let load = async {
            let row: Option<Columns> = sqlx::query_as(
                "SELECT id, public_id, name, kind FROM pool WHERE kind = $1 ORDER BY id LIMIT 1",
            )
            .bind(PoolKind::Sandbox.code())
            .fetch_optional(&self.general)
            .await
            .during("find the sandbox pool")?;
            row.map(Pool::from_columns).transpose()
        };
        cached(&self.cache.sandbox_pool, (), load).await
    }
}
