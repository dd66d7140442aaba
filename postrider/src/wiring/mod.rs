//! Puts the parts of a process together from its configuration: what the roles share first, then
//! the roles, then the addresses that operators ask. Holds no rule of any role.

mod hints;
mod listeners;
mod platform;
mod reach;
pub(crate) mod secrets;
mod settings;

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use mail::ids::{PoolId, uuid_v7};
use service::clock::Clock;
use service::config::{Config, ConfigError, Problem};
use service::metrics::Metrics;
use service::shutdown::Shutdown;
use store::{FIXED_CONNECTIONS, PoolKind, Sealer, Store, StoreError, StoreOptions};
use time::Duration;

pub(crate) use listeners::{BusyPort, Listeners};
pub(crate) use platform::{Platform, Roles};
pub(crate) use settings::{Surroundings, return_path_domain};

/// The general pool never has fewer.
const GENERAL_CONNECTIONS_MIN: u32 = 4;
/// A process that serves has a use for so many; `deploy/config/default.toml` says so too.
const CONNECTIONS_MIN: u32 = FIXED_CONNECTIONS + GENERAL_CONNECTIONS_MIN;
/// Partitions are there from yesterday, for what is written after midnight, to a week ahead.
const PARTITION_DAYS: std::ops::RangeInclusive<i64> = -1..=7;
/// Content is filed under the day it is due, at most 30 days ahead.
const CONTENT_DAYS: std::ops::RangeInclusive<i64> = 8..=31;
/// The pool of test keys.
const SANDBOX_POOL: &str = "sandbox";

/// Whether the roles can be set up with this configuration; connects to nothing.
///
/// # Errors
/// Every key that is missing or cannot be used, and what to write.
pub(crate) fn check(
    config: &Config,
    roles: Roles,
    around: &Surroundings,
) -> Result<(), ConfigError> {
    match problems(config, roles, around) {
        problems if problems.is_empty() => Ok(()),
        problems => Err(ConfigError::Problems(problems)),
    }
}

/// What [`check`] finds, as a list.
pub(crate) fn problems(config: &Config, roles: Roles, around: &Surroundings) -> Vec<Problem> {
    let sealer = secrets::sealer(&config.secrets).err();
    let mut found: Vec<_> = sealer
        .map(|error| ("secrets.master_key_file", error))
        .into_iter()
        .collect();
    found.extend(connections_problem(config).map(|error| ("database.max_connections", error)));
    if roles.mta {
        found.extend(settings::mta_problems(config, around));
    }
    found
        .into_iter()
        .map(|(key, error)| {
            let told = format!("{error:#}");
            // The errors name the key as it stands in the file, which the list does already.
            let in_file = key.replacen('.', "] ", 1);
            let wrong = told.strip_prefix(&format!("[{in_file} ")).unwrap_or(&told);
            Problem::new(key, wrong)
        })
        .collect()
}

/// Fewer connections than a process works with are refused, not raised: whoever counts what their
/// PostgreSQL has to give must be able to believe the number.
fn connections_problem(config: &Config) -> Option<anyhow::Error> {
    let given = config.database.max_connections.get();
    (given < CONNECTIONS_MIN).then(|| {
        anyhow!(
            "is {given}: write {CONNECTIONS_MIN} or more. A process keeps {FIXED_CONNECTIONS} apart \
             for the queue, leases, accepting, searches, commands and content, so that none waits for \
             another, and needs {GENERAL_CONNECTIONS_MIN} for the rest. Where PostgreSQL has no room \
             for that, raise its max_connections or run fewer processes"
        )
    })
}

/// What all roles of a process share.
pub(crate) struct Foundation {
    pub(crate) store: Store,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

impl Foundation {
    /// Connects to the database and reads the master key.
    ///
    /// # Errors
    /// There is no master key, the database is not reachable, or it has not the schema of this
    /// version.
    pub(crate) async fn lay(
        config: &Config,
        clock: Clock,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let sealer = Arc::new(secrets::sealer(&config.secrets)?);
        let name = settings::node_name(config);
        let store = Self::connect_store(config, &name).await?;
        prepare_database(&store, &clock).await?;
        check_master_key(&store, &sealer).await?;
        let metrics = Metrics::new();
        metrics.follow_process()?;
        Ok(Self {
            store,
            sealer,
            clock,
            metrics: Arc::new(metrics),
            shutdown,
        })
    }

    /// Opens the connections of a process, which the server shows as `postrider NAME`.
    ///
    /// # Errors
    /// Nobody answers at the URL, or nobody is let in; the error says what to do.
    pub(crate) async fn connect_store(config: &Config, name: &str) -> anyhow::Result<Store> {
        let mut options = StoreOptions::new(config.database.url.with_password());
        let connections = config.database.max_connections.get();
        // Commands that run once use one or two, whatever is written.
        options.max_connections = connections
            .saturating_sub(FIXED_CONNECTIONS)
            .max(GENERAL_CONNECTIONS_MIN);
        options.application_name = format!("postrider {name}");
        Store::connect(options).await.map_err(|error| {
            let told = reach::explain(&error, &config.database);
            anyhow::Error::new(error).context(told)
        })
    }
}

/// Brings the database to the schema of this version; names what was applied.
///
/// # Errors
/// Nobody answers or is let in, which the error explains; a migration failed.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<Vec<String>> {
    let database = &config.database;
    let migrated = Store::migrate(database.url.with_password()).await;
    migrated.map_err(|error| {
        let told = match error.login_fault() {
            Some(_) => reach::explain(&error, database),
            None => format!("could not migrate {}", database.url),
        };
        anyhow::Error::new(error).context(told)
    })
}

/// What has to be in the database before mail is accepted: partitions of these days (a day that
/// begins without them fills the DEFAULT partition) and the pool of test keys.
///
/// # Errors
/// The schema is not there or older than this version, or the database fails.
pub(crate) async fn prepare_database(store: &Store, clock: &Clock) -> anyhow::Result<()> {
    let missing = store.missing_migrations().await?;
    if !missing.is_empty() {
        bail!(
            "the database lacks what this version needs ({}): run `postrider migrate` with the same \
             configuration",
            missing.join(", ")
        );
    }
    let today = clock.now().date();
    let days = PARTITION_DAYS.filter_map(|days| today.checked_add(Duration::days(days)));
    let content_days = CONTENT_DAYS.filter_map(|days| today.checked_add(Duration::days(days)));
    let pool = async {
        tolerate(store.make_partitions(days).await)?;
        tolerate(store.make_content_partitions(content_days).await)?;
        if store.sandbox_pool().await?.is_some() {
            return Ok(());
        }
        let id = PoolId::from_uuid(new_uuid(clock));
        match store.create_pool(id, SANDBOX_POOL, PoolKind::Sandbox).await {
            // Another process was quicker.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    };
    pool.await.context("could not prepare the database")
}

/// A day that is in a DEFAULT partition stays there and works: no reason to accept no mail.
fn tolerate(made: Result<(), StoreError>) -> Result<(), StoreError> {
    match made {
        Err(error @ StoreError::DayInDefault { .. }) => {
            tracing::error!(%error, "partitions were made too late");
            Ok(())
        }
        made => made,
    }
}

/// With a wrong master key mail would be accepted and never signed, and new secrets would be sealed
/// under a key that nobody keeps.
async fn check_master_key(store: &Store, sealer: &Sealer) -> anyhow::Result<()> {
    let in_use = store
        .seal_keys_in_use()
        .await
        .context("could not check the master key")?;
    let missing = in_use
        .into_iter()
        .filter(|number| !sealer.knows(*number))
        .count();
    if missing > 0 {
        anyhow::bail!(
            "the master key ([secrets] master_key_file) is not the one that sealed the secrets in \
             this database: put that key back. To replace it, keep it as a line below the new one"
        );
    }
    Ok(())
}

/// A new version 7 UUID of this moment.
pub(crate) fn new_uuid(clock: &Clock) -> uuid::Uuid {
    uuid_v7(
        u64::try_from(clock.unix_ms()).unwrap_or_default(),
        rand::random(),
    )
}
