//! Who asks, and whether they may: the API key becomes a principal before a handler runs.
//! The only way to an account number is a checked scope, so no handler can forget the check.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use mail::domain_name::DomainName;
use store::{AccountNo, ApiKey, PresentedKey};

use crate::client_address;
use crate::grants;
use crate::keys;
use crate::limits::{Counted, StandingCell, too_many};
use crate::problem::{Code, Problem};
use crate::state::AppState;

const HOW: &str = "send the header `Authorization: Bearer pr_live_…` with an API key";

/// What a request wants to do, as a type.
pub(crate) trait Permission: Send {
    /// The scope a key must hold.
    const SCOPE: &'static str;
    /// Whether test keys may do it too: what it reaches is theirs alone or told apart by mode.
    const TEST_KEYS: bool;
    /// Whether keys that are restricted to domains may do it too: what it reaches can be told apart
    /// by sending domain, and is.
    const DOMAIN_KEYS: bool;
}

macro_rules! permissions {
    ($($name:ident => $scope:literal, test keys: $test_keys:literal
       $(, keys of some domains: $domain_keys:literal)?;)+) => {$(
        #[doc = concat!("Needs the scope `", $scope, "`.")]
        pub(crate) struct $name;

        impl Permission for $name {
            const SCOPE: &'static str = $scope;
            const TEST_KEYS: bool = $test_keys;
            // What says nothing of it refuses them.
            const DOMAIN_KEYS: bool = [$($domain_keys,)? false][0];
        }
    )+};
}

permissions! {
    SendEmails => "emails:send", test keys: true, keys of some domains: true;
    ReadEmails => "emails:read", test keys: true, keys of some domains: true;
    ManageWebhooks => "webhooks:*", test keys: false;
    ManageSuppressions => "suppressions:*", test keys: false;
    ManageDomains => "domains:*", test keys: false, keys of some domains: true;
    ManageKeys => "keys:*", test keys: true, keys of some domains: true;
}

/// The account that a key speaks for.
#[derive(Debug)]
pub(crate) struct Principal {
    pub(crate) account: AccountNo,
    /// A test key: reaches the sandbox only, and sees nothing of the live mail.
    pub(crate) test: bool,
    /// The key itself.
    pub(crate) key: Arc<ApiKey>,
}

impl Principal {
    /// Whether mail of the account, sent in test mode or not and from this domain of it, exists for
    /// this key: live keys see both modes, keys that are restricted to domains see theirs.
    pub(crate) fn may_see(&self, is_test_mail: bool, sender: Option<&DomainName>) -> bool {
        let is_theirs = || match self.domains() {
            None => true,
            Some(_) => sender.is_some_and(|name| self.has_domain(name)),
        };
        (is_test_mail || !self.test) && is_theirs()
    }

    /// The only domains of its account that it has to do with; none: all.
    pub(crate) fn domains(&self) -> Option<&[DomainName]> {
        self.key.domains.as_deref()
    }

    /// Whether it has to do with this domain.
    pub(crate) fn has_domain(&self, name: &DomainName) -> bool {
        self.domains().is_none_or(|domains| domains.contains(name))
    }

    /// A key may be restricted to some of its account's domains.
    ///
    /// # Errors
    /// It is, and not to this one.
    pub(crate) fn may_use_domain(&self, domain: &DomainName) -> Result<(), Problem> {
        if self.has_domain(domain) {
            return Ok(());
        }
        let detail = format!("the API key is restricted to other domains than {domain}");
        Err(Problem::new(Code::DomainNotAllowed, detail))
    }
}

/// A principal that holds the permission `P`. There is no other way to get one.
pub(crate) struct Allowed<P> {
    pub(crate) principal: Principal,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<AppState> for Allowed<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let address = client_address::of(parts, &state.config.trusted_proxies);
        let presented = identify(&parts.headers, address, state).await?;
        let key = presented.key;
        check_network(&key, address)?;
        count(&key, parts, state).await?;
        if presented.account_disabled {
            let detail = "the operator of this platform has disabled the account; ask there. Mail that \
                          was accepted before is still delivered";
            return Err(Problem::new(Code::AccountDisabled, detail));
        }
        require(&key, P::SCOPE)?;
        if key.test && !P::TEST_KEYS {
            let detail = "this is about live mail too, so a test key can neither see nor change it; \
                          use a live key";
            return Err(Problem::new(Code::TestKeyNotAllowed, detail));
        }
        if key.domains.is_some() && !P::DOMAIN_KEYS {
            let detail = "this is about all domains of the account, and the API key is restricted to \
                          some; use a key that is not";
            return Err(Problem::new(Code::DomainNotAllowed, detail));
        }
        let principal = Principal {
            account: key.account,
            test: key.test,
            key,
        };
        Ok(Self {
            principal,
            permission: PhantomData,
        })
    }
}

/// The key that the request carries, still good.
async fn identify(
    headers: &HeaderMap,
    address: Option<IpAddr>,
    state: &AppState,
) -> Result<PresentedKey, Problem> {
    let hash = presented_key(headers)?;
    let wrong_keys = &state.callers.wrong_keys;
    if let Some(wait) = wrong_keys.wait(address, &hash) {
        let limited = &state.metrics.rate_limited;
        limited.with_label_values(&["wrong_keys"]).inc();
        return Err(too_many(wait, "too many wrong keys came from this address"));
    }
    let now = state.clock.now();
    let presented = state.store.key_by_hash(&hash).await?;
    let is_over = |key: &ApiKey| key.expires_at.is_some_and(|end| end <= now);
    match presented {
        Some(presented) if !is_over(&presented.key) => {
            wrong_keys.worked(&hash);
            state.callers.uses.note(presented.key.id, now);
            Ok(presented)
        }
        ended => {
            wrong_keys.failed(address, &hash);
            // Unknown and revoked keys are one case: neither says whether the key ever existed.
            Err(invalid_key(match ended {
                Some(_) => "the API key has expired; use a newer one",
                None => "the API key is unknown or was revoked; use a key of this platform",
            }))
        }
    }
}

fn check_network(key: &ApiKey, address: Option<IpAddr>) -> Result<(), Problem> {
    if grants::may_come_from(key, address) {
        return Ok(());
    }
    let from = address.map_or_else(|| "an unknown address".to_owned(), |a| a.to_string());
    let detail =
        format!("the API key is restricted to other networks; this request is from {from}");
    Err(Problem::new(Code::NetworkNotAllowed, detail))
}

/// Counts the request against the limits of its account and key.
async fn count(key: &ApiKey, parts: &Parts, state: &AppState) -> Result<(), Problem> {
    let cell = parts.extensions.get::<StandingCell>();
    let limiter = &state.callers.limiter;
    match limiter.admit(key, cell).await {
        Ok(counted) => {
            if counted == Counted::Alone {
                state.metrics.rate_limits_alone.inc();
            }
            Ok(())
        }
        Err(refused) => {
            let limited = &state.metrics.rate_limited;
            limited.with_label_values(&[refused.of.word()]).inc();
            Err(refused.problem())
        }
    }
}

/// The hash of the key that the request carries.
fn presented_key(headers: &HeaderMap) -> Result<[u8; 32], Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Err(Problem::new(Code::MissingApiKey, HOW).with_header(
            header::WWW_AUTHENTICATE,
            challenge("Bearer realm=\"postrider\""),
        ));
    };
    if given.next().is_some() {
        return Err(invalid_key(format!(
            "there are several Authorization headers; {HOW}"
        )));
    }
    // The scheme is compared without regard to case (RFC 9110 section 11.1).
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim_matches(' '))
    });
    let token = token.ok_or_else(|| invalid_key(format!("the scheme must be Bearer; {HOW}")))?;
    keys::hash(token).ok_or_else(|| {
        invalid_key("this is not an API key: one begins with pr_live_ or pr_test_ and is long")
    })
}

fn require(key: &ApiKey, scope: &'static str) -> Result<(), Problem> {
    if key.scopes.iter().any(|held| grants::covers(held, scope)) {
        return Ok(());
    }
    let value = challenge(&format!(
        "Bearer realm=\"postrider\", error=\"insufficient_scope\", scope=\"{scope}\""
    ));
    let detail = format!("the API key lacks the scope {scope}; use a key that holds it");
    Err(Problem::new(Code::MissingScope, detail).with_header(header::WWW_AUTHENTICATE, value))
}

fn invalid_key(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidApiKey, detail).with_header(
        header::WWW_AUTHENTICATE,
        challenge("Bearer realm=\"postrider\", error=\"invalid_token\""),
    )
}

fn challenge(text: &str) -> HeaderValue {
    // RFC 6750 section 3. The text is ours and plain ASCII; if it were not, the bare scheme serves.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
impl Principal {
    /// One with a key that may do nothing, for tests of those who look at account and mode only.
    pub(crate) fn of(account: AccountNo, test: bool) -> Self {
        let key = ApiKey {
            id: mail::ids::ApiKeyId::from_uuid(uuid::Uuid::nil()),
            account,
            test,
            scopes: Vec::new(),
            domains: None,
            networks: None,
            expires_at: None,
        };
        Self {
            account,
            test,
            key: Arc::new(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_must_be_one_bearer_token() {
        let check = |values: &[&str], expected: Option<Code>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            let found = presented_key(&headers).err().map(|problem| problem.code());
            assert_eq!(found, expected, "{values:?}");
        };
        let key = keys::generate(keys::KeyMode::Live, [1; 32]).secret;
        check(&[&format!("Bearer {key}")], None);
        check(&[&format!("bearer  {key}")], None);
        check(&[], Some(Code::MissingApiKey));
        check(&[&key], Some(Code::InvalidApiKey));
        check(&[&format!("Basic {key}")], Some(Code::InvalidApiKey));
        check(&["Bearer"], Some(Code::InvalidApiKey));
        check(&["Bearer pr_live_x"], Some(Code::InvalidApiKey));
        check(
            &[&format!("Bearer {key}"), "Basic x"],
            Some(Code::InvalidApiKey),
        );
    }
}
