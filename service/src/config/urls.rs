//! URLs of the configuration: the public one, and those of PostgreSQL and Redis, whose passwords
//! are never shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use super::values::string_value;

/// The base URL under which people reach the API; no path, query or credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// The URL; its path is `/`.
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a base URL: write https://mail.example.com, with no path");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if matches!(url.scheme(), "http" | "https") && url.has_host() && bare && anonymous {
            return Ok(Self(url));
        }
        Err(wrong())
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

string_value!(PublicUrl);

/// A connection URL that may hold a password: shown without it, handed out whole only by name.
macro_rules! connection_url {
    ($(#[$doc:meta])* $type:ident, $schemes:pat, $advice:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Url);

        impl $type {
            /// The URL with its password, for the driver. Not to be logged.
            pub fn with_password(&self) -> &str {
                self.0.as_str()
            }

            /// Whether a password is in it, as such or as a parameter.
            pub fn has_password(&self) -> bool {
                self.0.password().is_some() || self.0.query_pairs().any(|(name, _)| name == "password")
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                // The text itself stays out of the message: it may hold a password.
                let url = Url::parse(text).map_err(|wrong| format!("{wrong}: {}", $advice))?;
                match url.scheme() {
                    $schemes => Ok(Self(url)),
                    other => Err(format!("the scheme {other:?} is not known: {}", $advice)),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = self.0.clone();
                if shown.password().is_some() {
                    // Fails only for URLs that cannot have a password.
                    let _has_host = shown.set_password(Some("***"));
                }
                // Drivers also take the password as a parameter.
                if shown.query_pairs().any(|(name, _)| name == "password") {
                    shown.set_query(Some("***"));
                }
                f.write_str(shown.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        string_value!($type);
    };
}

connection_url!(
    /// How to reach PostgreSQL.
    DatabaseUrl,
    "postgres" | "postgresql",
    "write postgres://user:password@host:5432/database, in the password %25 %40 %2F %23 for % @ / #, \
     or keep it in the file of [database] password_file"
);

connection_url!(
    /// How to reach Redis.
    RedisUrl,
    "redis" | "rediss" | "unix" | "redis+unix",
    "write redis://host:6379, rediss://host:6379 or redis+unix:///path/to/socket"
);

impl DatabaseUrl {
    /// The URL with this password, whatever password it had; none if it has no place for one.
    pub(super) fn replace_password(&self, password: &str) -> Option<Self> {
        let mut url = self.0.clone();
        url.set_password(Some(password)).ok()?;
        let others: Vec<_> = (url.query_pairs().into_owned())
            .filter(|(name, _)| name != "password")
            .collect();
        if others.is_empty() {
            url.set_query(None);
        } else {
            url.query_pairs_mut().clear().extend_pairs(others);
        }
        Some(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hide_their_passwords() {
        let url: DatabaseUrl = "postgres://u:hunter2@db/x".parse().unwrap();
        assert_eq!(
            format!("{url:?} {url}"),
            "postgres://u:***@db/x postgres://u:***@db/x"
        );
        assert_eq!(url.with_password(), "postgres://u:hunter2@db/x");
        let url: DatabaseUrl = "postgres://db/x?password=hunter2".parse().unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
        let wrong = "mysql://u:hunter2@db/x".parse::<DatabaseUrl>().unwrap_err();
        assert!(
            wrong.contains("mysql") && !wrong.contains("hunter2"),
            "{wrong}"
        );
        assert!("redis+unix:///run/r.sock".parse::<RedisUrl>().is_ok());
        let socket = "postgres://postgres@%2Frun%2Fpr-1:5432/x";
        assert_eq!(
            socket.parse::<DatabaseUrl>().unwrap().with_password(),
            socket
        );
    }

    #[test]
    fn a_password_takes_the_place_of_any_other_and_keeps_the_rest() {
        for (given, expected) in [
            ("postgres://u@db/x", "postgres://u:p%2F%20@db/x"),
            ("postgres://u:old@db:5/x", "postgres://u:p%2F%20@db:5/x"),
            (
                "postgres://u@db/x?password=old&sslmode=require",
                "postgres://u:p%2F%20@db/x?sslmode=require",
            ),
        ] {
            let url: DatabaseUrl = given.parse().unwrap();
            let url = url.replace_password("p/ ").unwrap();
            assert_eq!(url.with_password(), expected);
        }
        let nowhere: DatabaseUrl = "postgres:///x".parse().unwrap();
        assert!(nowhere.replace_password("p").is_none());
    }

    #[test]
    fn public_urls_are_bare() {
        let url: PublicUrl = "https://mail.example.com".parse().unwrap();
        assert_eq!(url.to_string(), "https://mail.example.com/");
        for bad in [
            "mail.example.com",
            "ftp://x",
            "https://x/api",
            "https://x?a",
            "https://u@x",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
    }
}
