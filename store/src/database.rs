//! The connections: a few small pools, so that no kind of work can take another's connections.
//! What is done with them stands in the files of the nouns.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::cache::Caches;
use crate::connections::{Connections, within};
use crate::error::{During, StoreError};

/// poll, park, and two each of fetch, intent and settle.
const QUEUE_CONNECTIONS: u32 = 8;
const LEASE_CONNECTIONS: u32 = 2;
/// Searches wait for each other rather than keep anything else waiting.
const SEARCH_CONNECTIONS: u32 = 4;
/// What clients want of queued mail: however many they are, they take nothing from sending.
const COMMAND_CONNECTIONS: u32 = 4;
/// Content on its way to clients: answers of many megabytes, which keep only each other waiting.
const CONTENT_CONNECTIONS: u32 = 2;
const BATCH_CONNECTIONS: u32 = 2;
/// Connections that a store may open beside those of [`StoreOptions::max_connections`].
pub const FIXED_CONNECTIONS: u32 = QUEUE_CONNECTIONS
    + LEASE_CONNECTIONS
    + SEARCH_CONNECTIONS
    + COMMAND_CONNECTIONS
    + CONTENT_CONNECTIONS
    + BATCH_CONNECTIONS;

/// Where the database is and how many connections it may cost.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://user@host:port/database`.
    pub url: String,
    /// Connections for everything but accepting and the queue.
    pub max_connections: u32,
    /// Connections that commit batches of accepted mail: two overlap commit and preparation.
    pub batch_connections: u32,
    /// What the server shows in `pg_stat_activity`.
    pub application_name: String,
}

impl StoreOptions {
    /// The usual numbers for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 8,
            batch_connections: BATCH_CONNECTIONS,
            application_name: "postrider".to_owned(),
        }
    }
}

/// The database and what we remember of it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) general: Connections,
    pub(crate) accept: Connections,
    pub(crate) queue: Connections,
    /// Renewals wait for nobody.
    pub(crate) lease: Connections,
    /// People who look for mail, and the reader of the log that makes it possible.
    pub(crate) search: Connections,
    /// Clients who command queued mail; its owner does so through `queue`.
    pub(crate) command: Connections,
    /// Clients who want content; senders of it read it through `queue`.
    pub(crate) content: Connections,
    pub(crate) cache: Arc<Caches>,
}

impl Store {
    /// Opens the pools. Connections of all but the first are made when they are needed.
    ///
    /// # Errors
    /// The URL is not one, or nobody answers there.
    pub async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let session = session(&options)?;
        // The plan of a hot statement must not change with what the planner believes about sizes.
        let hot = session.clone().options([("enable_seqscan", "off")]);
        // A search ends as soon as it has found enough, which only an index in the right order allows.
        let ordered = hot
            .clone()
            .options([("enable_bitmapscan", "off"), ("enable_sort", "off")]);
        let store = Self {
            general: Connections::new(session, options.max_connections),
            accept: Connections::new(hot.clone(), options.batch_connections),
            queue: Connections::new(hot.clone(), QUEUE_CONNECTIONS),
            lease: Connections::new(hot.clone(), LEASE_CONNECTIONS),
            command: Connections::new(hot.clone(), COMMAND_CONNECTIONS),
            content: Connections::new(hot, CONTENT_CONNECTIONS),
            search: Connections::new(ordered, SEARCH_CONNECTIONS),
            cache: Arc::new(Caches::new()),
        };
        store.ping().await?;
        Ok(store)
    }

    /// Brings the schema at `url` up to date, forward only; several processes may call it at once.
    /// Returns what was applied.
    ///
    /// # Errors
    /// Unreachable, or a migration failed or was changed after it had been applied.
    pub async fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
        let operation = "migrate the database";
        let mut connection = PgConnection::connect(url).await.during(operation)?;
        let before = applied(&mut connection).await.during(operation)?;
        migrator()
            .run(&mut connection)
            .await
            .map_err(sqlx::Error::from)
            .during(operation)?;
        let after = applied(&mut connection).await.during(operation)?;
        connection.close().await.during(operation)?;
        Ok(after.into_iter().skip(before.len()).collect())
    }

    /// The migrations of this version that the database does not have.
    ///
    /// # Errors
    /// Of the database.
    pub async fn missing_migrations(&self) -> Result<Vec<String>, StoreError> {
        let operation = "read the version of the schema";
        let mut checkout = self.general.checkout().await.during(operation)?;
        let applied = within(applied(checkout.raw())).await;
        checkout.give_back(&applied);
        let applied = applied.during(operation)?;
        let all = migrator();
        let names = all
            .iter()
            .map(|one| format!("{:04} {}", one.version, one.description));
        Ok(names.filter(|name| !applied.contains(name)).collect())
    }

    /// One round trip.
    ///
    /// # Errors
    /// Unreachable.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1")
            .execute(&self.general)
            .await
            .during("reach the database")?;
        Ok(())
    }

    /// Ends all connections once their statements are done.
    pub async fn close(&self) {
        self.accept.close().await;
        self.queue.close().await;
        self.lease.close().await;
        self.search.close().await;
        self.command.close().await;
        self.content.close().await;
        self.general.close().await;
    }
}

fn session(options: &StoreOptions) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(&options.url)
        .during("read the database URL")?
        .application_name(&options.application_name)
        .options([
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
            ("synchronous_commit", "on"),
            ("statement_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "5s"),
        ]))
}

fn migrator() -> Migrator {
    sqlx::migrate!("../migrations")
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(
        "SELECT lpad(version::text, 4, '0') || ' ' || description
         FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await
}
