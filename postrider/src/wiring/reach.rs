//! Why PostgreSQL was not reached, in words that say what to do. Tries nothing.

use service::config::DatabaseConfig;
use store::{LoginFault, StoreError};

/// Signs of a password that mean something else in a URL.
const IN_URL: &str = "where signs such as % @ / # are written %25 %40 %2F %23";

/// What happened and what to do about it. The password is in no text.
pub(crate) fn explain(error: &StoreError, database: &DatabaseConfig) -> String {
    let url = &database.url;
    match error.login_fault() {
        Some(LoginFault::Url) => {
            format!("[database] url {url} cannot be used: correct what is named below")
        }
        Some(LoginFault::Password) => {
            let place = match (&database.password_file, url.has_password()) {
                (Some(file), _) => format!(
                    "write the right one into {} ([database] password_file)",
                    file.display()
                ),
                (None, true) => format!("write the right one into [database] url, {IN_URL}"),
                (None, false) => format!(
                    "none is configured: write it into a file that [database] password_file names, \
                     or into [database] url, {IN_URL}"
                ),
            };
            format!(
                "PostgreSQL at {url} does not take the password, or does not know the user: {place}"
            )
        }
        Some(LoginFault::NotAllowed) => format!(
            "PostgreSQL at {url} does not let this user in from here: make it (CREATE ROLE … LOGIN), \
             allow it in pg_hba.conf, or correct [database] url"
        ),
        Some(LoginFault::NotOwner) => format!(
            "the user of {url} may not do that: it must own the database \
             (ALTER DATABASE … OWNER TO …)"
        ),
        Some(LoginFault::NoDatabase) => format!(
            "PostgreSQL at {url} has no database of that name: make it (CREATE DATABASE … OWNER …), \
             or correct [database] url"
        ),
        Some(LoginFault::NoRoom) => format!(
            "all connections of PostgreSQL at {url} are taken: raise its max_connections, or lower \
             [database] max_connections of the processes that share it"
        ),
        Some(LoginFault::NotNow) => {
            format!("PostgreSQL at {url} is starting or stopping: try again in a moment")
        }
        None => {
            format!(
                "could not reach PostgreSQL at {url}: is it running, and is [database] url right?"
            )
        }
    }
}
