//! A few connections to PostgreSQL, each statement with a time limit of our own.
//!
//! sqlx's pool asks the server once before and once after every statement whether the connection
//! works: two round trips for each of our batches. And it waits for an answer without end, so that a
//! network that swallows packets would stop every loop of a node. Here a connection that fails or
//! does not answer in time is closed and its neighbours with it; callers try again, as they must
//! anyway. docs/decisions/0003-connections.md has the measurement.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::error::DatabaseError;
use sqlx::postgres::{
    PgConnectOptions, PgDatabaseError, PgQueryResult, PgRow, PgSeverity, PgStatement, PgTypeInfo,
    Postgres,
};
use sqlx::{
    ConnectOptions, Connection, Describe, Either, Error, Execute, Executor, PgConnection, SqlStr,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a caller waits for a connection.
const CHECKOUT_PATIENCE: Duration = Duration::from_secs(3);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Above the server's `statement_timeout`: whoever is slower than that is not there.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(8);

/// At most so many connections, made when needed. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    options: Arc<PgConnectOptions>,
    permits: Arc<Semaphore>,
    size: u32,
    idle: Arc<Mutex<Vec<PgConnection>>>,
}

/// A connection taken out. Closed when dropped, unless it is given back.
#[derive(Debug)]
pub(crate) struct Checkout {
    connection: PgConnection,
    home: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(options: PgConnectOptions, size: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(size).unwrap_or(1));
        Self {
            options: Arc::new(options),
            permits: Arc::new(permits),
            size,
            idle: Arc::default(),
        }
    }

    pub(crate) async fn checkout(&self) -> Result<Checkout, Error> {
        let permit = timeout(CHECKOUT_PATIENCE, self.permits.clone().acquire_owned())
            .await
            .map_err(|_| Error::PoolTimedOut)?
            .map_err(|_| Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => timeout(CONNECT_PATIENCE, self.options.connect())
                .await
                .map_err(|_| timed_out("connecting"))??,
        };
        Ok(Checkout {
            connection,
            home: self.clone(),
            _permit: permit,
        })
    }

    /// Closes the connections once their statements are done, and lets nobody in any more.
    pub(crate) async fn close(&self) {
        let all = timeout(STATEMENT_PATIENCE, self.permits.acquire_many(self.size));
        // Those that do not end in time are cut off with the process.
        drop(all.await);
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            drop(timeout(CONNECT_PATIENCE, connection.close()).await);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkout {
    /// The connection itself. What is run on it has to be limited with [`within`].
    pub(crate) fn raw(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives the connection back, if what it said last leaves it usable.
    pub(crate) fn give_back<T>(self, result: &Result<T, Error>) {
        match result {
            Ok(_) => self.home.idle().push(self.connection),
            Err(Error::Database(error)) if !ends_session(error.as_ref()) => {
                self.home.idle().push(self.connection);
            }
            // When the server has gone the others are dead as well: better to find out now than
            // one failed statement at a time.
            Err(Error::Database(_) | Error::Io(_) | Error::Protocol(_)) => {
                self.home.idle().clear();
            }
            Err(_) => {}
        }
    }
}

/// After an error of this severity the server closes the connection.
fn ends_session(error: &dyn DatabaseError) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Limits a statement in time.
pub(crate) async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within_limit(STATEMENT_PATIENCE, work).await
}

/// Limits work that is known to take longer.
pub(crate) async fn within_limit<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(timed_out("waiting for an answer")))
}

fn timed_out(doing: &str) -> Error {
    Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("PostgreSQL did not answer in time while {doing}"),
    ))
}

impl<'c> Executor<'c> for &Connections {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let home = self.clone();
        let answer = async move {
            let mut checkout = home.checkout().await?;
            // All of it at once: a reader that stops half-way would leave an answer in the pipe.
            let steps = checkout.raw().fetch_many(query).try_collect::<Vec<_>>();
            let answer = within(steps).await;
            checkout.give_back(&answer);
            answer
        };
        stream::once(answer)
            .map_ok(|steps| stream::iter(steps.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let steps = self.fetch_many(query);
        Box::pin(async move {
            let mut rows = steps
                .try_filter_map(|step| async { Ok(step.right()) })
                .boxed();
            rows.try_next().await
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let home = self.clone();
        Box::pin(async move {
            let mut checkout = home.checkout().await?;
            let statement = within(checkout.raw().prepare_with(sql, parameters)).await;
            checkout.give_back(&statement);
            statement
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let home = self.clone();
        Box::pin(async move {
            let mut checkout = home.checkout().await?;
            let description = within(checkout.raw().describe(sql)).await;
            checkout.give_back(&description);
            description
        })
    }
}
