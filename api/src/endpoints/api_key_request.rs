//! What is asked of API keys, as it is written and as it is meant: every field looked at once, all
//! mistakes told together. Decides nothing about who may ask.

use std::time::Duration;

use mail::domain_name::DomainName;
use mail::ids::DomainId;
use mail::message_fields::{bounded, parse_duration};
use serde::{Deserialize, Deserializer};
use service::config::Network;
use store::SenderDomain;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::grants::SCOPES;
use crate::problem::{FieldProblem, Problem};

const NAME_CHARACTERS_MAX: usize = 100;
/// Members of each list.
const LIST_MAX: usize = 50;
/// Further away is no plan.
const LIFE_MAX: Duration = Duration::from_secs(3_650 * 86_400);
const OVERLAP_DEFAULT: Duration = Duration::from_secs(86_400);
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// An API key to be made. It can do no more than the key that makes it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "Shop, production",
    "scopes": ["emails:send", "emails:read"],
    "domains": ["acme.test"],
    "networks": ["192.0.2.0/24"],
    "expires_in": "365d"
}))]
pub(crate) struct ApiKeyRequest {
    /// What people call it: one line of 1 to 100 characters.
    #[schema(required = true, nullable = false)]
    name: Option<String>,
    /// What it may do, such as `emails:send`.
    #[serde(default, deserialize_with = "read_list")]
    #[schema(required = true, nullable = false)]
    scopes: Option<Vec<String>>,
    /// A test key reaches the sandbox only. Test keys make test keys only.
    #[schema(default = false)]
    test: Option<bool>,
    /// The only domains of the account that it has to do with, by name or id: it sends from these, and
    /// other domains, their mail and what concerns all domains are closed to it.
    #[serde(default, deserialize_with = "read_list")]
    #[schema(nullable = false)]
    domains: Option<Vec<String>>,
    /// The only networks it may be used from: CIDR ranges or addresses.
    #[serde(default, deserialize_with = "read_list")]
    #[schema(nullable = false)]
    networks: Option<Vec<String>>,
    /// When it ends, RFC 3339.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// How long it lives, in place of `expires_at`: a whole number and one of s, m, h, d.
    #[schema(example = "365d", pattern = "^[0-9]+[smhd]$")]
    expires_in: Option<String>,
}

fn read_list<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Vec<String>>, D::Error> {
    bounded::list::<_, 100>(given).map(Some)
}

/// An API key to get a new secret.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotationRequest {
    /// How long the secret before is still good: a whole number and one of s, m, h, d; at most 30d.
    #[schema(example = "24h", default = "24h", pattern = "^[0-9]+[smhd]$")]
    overlap: Option<String>,
}

/// What a key shall be.
pub(crate) struct WantedKey {
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    /// None: as the key that asks.
    pub(crate) test: Option<bool>,
    pub(crate) domains: Option<Vec<DomainName>>,
    pub(crate) networks: Option<Vec<String>>,
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl ApiKeyRequest {
    /// Whether the account's domains are needed to understand it.
    pub(crate) fn names_domains(&self) -> bool {
        self.domains.is_some()
    }

    /// The request, looked at; `domains` are the account's.
    ///
    /// # Errors
    /// All fields that are not right.
    pub(crate) fn parse(
        self,
        domains: &[SenderDomain],
        now: OffsetDateTime,
    ) -> Result<WantedKey, Problem> {
        let mut errors = Vec::new();
        let name = parse_name(self.name, &mut errors);
        let scopes = parse_scopes(self.scopes, &mut errors);
        let known = |text: &str| find_domain(text, domains);
        let domains = parse_restriction("/domains", self.domains, known, &mut errors);
        let networks = parse_restriction("/networks", self.networks, read_network, &mut errors);
        let expires_at = parse_end(self.expires_at, self.expires_in, now, &mut errors);
        if !errors.is_empty() {
            return Err(Problem::fields(errors));
        }
        Ok(WantedKey {
            name,
            scopes,
            test: self.test,
            domains,
            networks,
            expires_at,
        })
    }
}

impl RotationRequest {
    /// How long the secret before is still good.
    ///
    /// # Errors
    /// No duration, or too long a one.
    pub(crate) fn overlap(&self) -> Result<Duration, Problem> {
        let Some(text) = &self.overlap else {
            return Ok(OVERLAP_DEFAULT);
        };
        parse_duration(text)
            .filter(|overlap| *overlap <= OVERLAP_MAX)
            .ok_or_else(|| {
                let detail = "must be a whole number and one of s, m, h, d, at most 30d";
                Problem::fields([FieldProblem::new("/overlap", "invalid_duration", detail)])
            })
    }
}

fn parse_name(name: Option<String>, errors: &mut Vec<FieldProblem>) -> String {
    let Some(name) = name.map(|name| name.trim().to_owned()) else {
        errors.push(FieldProblem::new("/name", "required", "is required"));
        return String::new();
    };
    let wrong = if name.is_empty() {
        Some(("required", "must not be empty"))
    } else if name.chars().count() > NAME_CHARACTERS_MAX {
        Some(("too_long", "may have 100 characters"))
    } else if name.chars().any(char::is_control) {
        Some(("control_character", "must be one line of text"))
    } else {
        None
    };
    errors.extend(wrong.map(|(code, detail)| FieldProblem::new("/name", code, detail)));
    name
}

/// The scopes named, each once, in the order they were named.
fn parse_scopes(words: Option<Vec<String>>, errors: &mut Vec<FieldProblem>) -> Vec<String> {
    let offered = || SCOPES.join(", ");
    let words = words.unwrap_or_default();
    if words.is_empty() {
        let detail = format!("name at least one of {}", offered());
        errors.push(FieldProblem::new("/scopes", "required", detail));
    }
    if words.len() > LIST_MAX {
        errors.push(too_many("/scopes"));
        return Vec::new();
    }
    let mut scopes = Vec::with_capacity(words.len());
    for (index, word) in words.into_iter().enumerate() {
        if !SCOPES.contains(&word.as_str()) {
            let detail = format!("is no scope; those are {}", offered());
            let pointer = format!("/scopes/{index}");
            errors.push(FieldProblem::new(pointer, "unknown_scope", detail));
        } else if !scopes.contains(&word) {
            scopes.push(word);
        }
    }
    scopes
}

fn too_many(pointer: &str) -> FieldProblem {
    FieldProblem::new(
        pointer,
        "too_many",
        format!("at most {LIST_MAX} are allowed"),
    )
}

type Wrong = (&'static str, &'static str);

/// A list that restricts. An empty one would allow nothing and is most likely meant as none.
fn parse_restriction<T>(
    pointer: &str,
    texts: Option<Vec<String>>,
    read: impl Fn(&str) -> Result<T, Wrong>,
    errors: &mut Vec<FieldProblem>,
) -> Option<Vec<T>> {
    let texts = texts?;
    if texts.is_empty() {
        let detail = "name at least one, or leave it out for no restriction";
        errors.push(FieldProblem::new(pointer, "required", detail));
    }
    if texts.len() > LIST_MAX {
        errors.push(too_many(pointer));
        return None;
    }
    let mut list = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match read(text) {
            Ok(member) => list.push(member),
            Err((code, detail)) => {
                errors.push(FieldProblem::new(
                    format!("{pointer}/{index}"),
                    code,
                    detail,
                ));
            }
        }
    }
    Some(list)
}

fn find_domain(text: &str, domains: &[SenderDomain]) -> Result<DomainName, Wrong> {
    let found = match text.parse::<DomainId>() {
        Ok(id) => domains.iter().find(|domain| domain.id == id),
        Err(_) => DomainName::parse(text)
            .ok()
            .and_then(|name| domains.iter().find(|domain| domain.name == name)),
    };
    found
        .map(|domain| domain.name.clone())
        .ok_or(("unknown_domain", "is no domain of this account"))
}

/// A range, written as it is stored. A single address is the range of itself.
fn read_network(text: &str) -> Result<String, Wrong> {
    let wrong = (
        "invalid_network",
        "must be a network such as 192.0.2.0/24 or 2001:db8::/32, or an address",
    );
    let with_length = match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_ipv4() => format!("{address}/32"),
        Ok(address) => format!("{address}/128"),
        Err(_) => text.to_owned(),
    };
    match with_length.parse::<Network>() {
        Ok(network) if network.is_mapped_ipv4() => {
            Err(("invalid_network", "must be written as an IPv4 network"))
        }
        Ok(network) => Ok(network.to_string()),
        Err(_) => Err(wrong),
    }
}

fn parse_end(
    at: Option<String>,
    after: Option<String>,
    now: OffsetDateTime,
    errors: &mut Vec<FieldProblem>,
) -> Option<OffsetDateTime> {
    let (pointer, end, form) = match (at, after) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let detail = "give either expires_at or expires_in";
            errors.push(FieldProblem::new("/expires_in", "conflicting", detail));
            return None;
        }
        (Some(text), None) => (
            "/expires_at",
            OffsetDateTime::parse(&text, &Rfc3339).ok(),
            (
                "invalid_time",
                "must be a time such as 2030-01-31T09:00:00Z",
            ),
        ),
        (None, Some(text)) => (
            "/expires_in",
            parse_duration(&text).and_then(|life| now.checked_add(life.try_into().ok()?)),
            (
                "invalid_duration",
                "must be a whole number and one of s, m, h, d",
            ),
        ),
    };
    let Some(end) = end else {
        errors.push(FieldProblem::new(pointer, form.0, form.1));
        return None;
    };
    if end <= now || end - now > LIFE_MAX {
        let detail = "must end in the future, and within 3650 days";
        errors.push(FieldProblem::new(pointer, "out_of_range", detail));
    }
    Some(end)
}
