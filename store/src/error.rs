//! What can go wrong with the store, sorted by what the caller does about it.
//! Says nothing to clients: roles translate.

use std::sync::Arc;

use thiserror::Error;

use crate::driver_error::{DriverError, LoginFault};

/// Why an operation of the store failed. Cheap to clone: one failure may have many waiters.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// No connection, the server is going down, read-only or out of something, the statement took
    /// too long, or too much is waiting already. Nothing was done; trying again later may help.
    #[error("the database is not available: could not {operation}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// What the driver said; none when we refused ourselves.
        #[source]
        source: Option<Arc<DriverError>>,
    },
    /// The connection was lost during a commit, twice. The same ids may be sent again.
    #[error("the connection was lost, nobody knows whether this was done: {operation}")]
    CommitUnknown {
        /// What was tried.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Arc<DriverError>,
    },
    /// Something of that name exists.
    #[error("{what} is already taken")]
    Conflict {
        /// Which name.
        what: &'static str,
    },
    /// What was to be stored cannot be stored in this form.
    #[error("cannot store this {what}: {detail}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// A stored value is not one of ours.
    #[error("stored {what} cannot be understood: {detail}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Rows of that day are in the DEFAULT partition, so it can have none of its own any more. They
    /// are complete and found there; only slower to find and to age out.
    #[error("{table} has no partition of {day}: rows of that day are in {table}_default already")]
    DayInDefault {
        /// Which table.
        table: &'static str,
        /// The UTC day.
        day: time::Date,
    },
    /// PostgreSQL refused the statement: a bug, or a value it does not take.
    #[error("could not {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Arc<DriverError>,
    },
}

impl StoreError {
    /// True when the same call may succeed later: the API answers 503, loops try again.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::CommitUnknown { .. })
    }

    /// What whoever runs the platform has to mend, if that is known.
    pub fn login_fault(&self) -> Option<LoginFault> {
        match self {
            Self::Unavailable { source, .. } => source.as_ref()?.login_fault(),
            Self::Database { source, .. } => source.login_fault(),
            _ => None,
        }
    }

    pub(crate) fn from_sqlx(operation: &'static str, source: sqlx::Error) -> Self {
        let unavailable = is_unavailable(&source);
        let source = Arc::new(DriverError::new(source));
        if unavailable {
            Self::Unavailable {
                operation,
                source: Some(source),
            }
        } else {
            Self::Database { operation, source }
        }
    }

    pub(crate) fn corrupt(what: &'static str, detail: impl ToString) -> Self {
        Self::Corrupt {
            what,
            detail: detail.to_string(),
        }
    }
}

/// Names the operation a driver error belongs to.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, StoreError>;

    /// Like `during`, but a duplicate key is a conflict about `what`.
    fn unless_taken(self, operation: &'static str, what: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::from_sqlx(operation, error))
    }

    fn unless_taken(self, operation: &'static str, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                StoreError::Conflict { what }
            }
            _ => StoreError::from_sqlx(operation, error),
        })
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|database| database.code())
        .map(String::from)
}

/// The connection broke while a statement ran, so its commit may or may not have happened.
pub(crate) fn lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // Class 08 connection exceptions; 57P01..57P03 the server is going down.
        _ => sqlstate(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P")),
    }
}

/// The server undid the statement because of others that ran beside it: class 40, or the row was on
/// its way into a DEFAULT partition while the partition of its day was made.
pub(crate) fn lost_race(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code.starts_with("40")) || partition_appeared(error)
}

/// Told from a CHECK of ours, which has a name.
fn partition_appeared(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| {
        database.code().as_deref() == Some("23514")
            && database.constraint().is_none()
            && database
                .table()
                .is_some_and(|table| table.ends_with("_default"))
    })
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => {
            lost_connection(error)
                || lost_race(error)
                || sqlstate(error).is_some_and(|code| is_passing(&code))
        }
    }
}

/// SQLSTATEs that pass by themselves: serialisation and deadlock (40), lack of resources (53), lock
/// not available (55P03), statement cancelled (57014), system error (58), read-only (25006).
fn is_passing(code: &str) -> bool {
    ["40", "53", "58"]
        .iter()
        .any(|class| code.starts_with(class))
        || ["25006", "55P03", "57014"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_may_be_tried_again_a_wrong_row_may_not() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(StoreError::from_sqlx("test", broken).is_unavailable());
        assert!(StoreError::from_sqlx("test", sqlx::Error::PoolTimedOut).is_unavailable());
        assert!(!StoreError::from_sqlx("test", sqlx::Error::RowNotFound).is_unavailable());
    }

    #[test]
    fn states_that_pass_are_told_from_faults() {
        for code in ["40P01", "53300", "25006", "57014", "58030"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["22021", "23505", "42601"] {
            assert!(!is_passing(code), "{code}");
        }
    }
}
