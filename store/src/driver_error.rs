//! What the driver said, for those who run the platform: without the line of PostgreSQL's source
//! that it adds, which reads like one of theirs, and with the SQLSTATE, which can be looked up.

use std::fmt;

use sqlx::migrate::MigrateError;

/// An error of the driver.
pub struct DriverError(sqlx::Error);

/// Why nobody was let in or may do the work, as far as whoever runs the platform can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFault {
    /// The URL names no server or option that there is.
    Url,
    /// The password is wrong, or there is none where one is asked for.
    Password,
    /// The user is not known, or may not come from here.
    NotAllowed,
    /// The user is in, and may not do what it must.
    NotOwner,
    /// There is no database of that name.
    NoDatabase,
    /// All connections are taken.
    NoRoom,
    /// The server is starting or stopping.
    NotNow,
}

impl DriverError {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        Self(error)
    }

    pub(crate) fn login_fault(&self) -> Option<LoginFault> {
        let error = innermost(&self.0);
        if matches!(error, sqlx::Error::Configuration(_)) {
            return Some(LoginFault::Url);
        }
        fault(&error.as_database_error()?.code()?)
    }
}

/// PostgreSQL's appendix A.
fn fault(sqlstate: &str) -> Option<LoginFault> {
    Some(match sqlstate {
        "28P01" => LoginFault::Password,
        "28000" => LoginFault::NotAllowed,
        "42501" => LoginFault::NotOwner,
        "3D000" => LoginFault::NoDatabase,
        "53300" => LoginFault::NoRoom,
        "57P01" | "57P02" | "57P03" => LoginFault::NotNow,
        _ => return None,
    })
}

/// The error of a statement, also where it was part of a migration.
fn innermost(error: &sqlx::Error) -> &sqlx::Error {
    match error {
        sqlx::Error::Migrate(of_migration) => match &**of_migration {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
            _ => error,
        },
        error => error,
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let sqlx::Error::Migrate(of_migration) = &self.0
            && let MigrateError::ExecuteMigration(_, version) = &**of_migration
        {
            write!(f, "migration {version:04}: ")?;
        }
        match innermost(&self.0) {
            sqlx::Error::Database(said) => {
                write!(f, "PostgreSQL says: {}", said.message())?;
                match said.code() {
                    Some(code) => write!(f, " (SQLSTATE {code})"),
                    None => Ok(()),
                }
            }
            sqlx::Error::Configuration(wrong) => wrong.fmt(f),
            error => error.fmt(f),
        }
    }
}

impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// Its causes are in its own text already.
impl std::error::Error for DriverError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_cause() {
        let broken = || sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        let told = DriverError::new(broken()).to_string();
        assert!(told.contains("connection refused"), "{told}");
        let of_migration = MigrateError::ExecuteMigration(broken(), 12);
        let told = DriverError::new(of_migration.into()).to_string();
        assert!(told.starts_with("migration 0012: "), "{told}");
        assert!(told.contains("connection refused"), "{told}");
        let wrong = sqlx::Error::Configuration("no such option".into());
        let wrong = DriverError::new(wrong);
        assert_eq!(wrong.to_string(), "no such option");
        assert_eq!(wrong.login_fault(), Some(LoginFault::Url));
        assert_eq!(DriverError::new(broken()).login_fault(), None);
    }
}
