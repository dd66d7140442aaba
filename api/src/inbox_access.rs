//! Who may look into the inbox: whoever brings its token, in the address or, from there on, in a
//! cookie that scripts and other sites never get. Decides nothing about what is shown.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use mail::ids::encode_base32;

use crate::config::ApiConfig;
use crate::problem::Problem;
use crate::state::AppState;

/// How long a browser keeps the cookie, in seconds: a day.
const COOKIE_MAX_AGE_SECS: u32 = 86_400;

/// The inbox is open to this request.
pub(crate) struct InboxAccess {
    /// The token stood in the address, where histories and screens show it.
    pub(crate) in_address: bool,
}

impl FromRequestParts<AppState> for InboxAccess {
    type Rejection = Problem;

    /// What is wrong is answered as if the inbox were not there.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let wanted = state.config.inbox_token.as_deref().unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        let given = url::form_urlencoded::parse(query.as_bytes())
            .find_map(|(name, value)| (name == "token").then_some(value));
        let in_address = given.is_some();
        // A wrong token is not made good by a cookie.
        let given = match &given {
            Some(token) => token.as_bytes(),
            None => in_cookie(&parts.headers, &cookie_name(wanted)).unwrap_or_default(),
        };
        let opens = !wanted.is_empty() && verify_slices_are_equal(given, wanted.as_bytes()).is_ok();
        match opens {
            true => Ok(Self { in_address }),
            false => Err(Problem::not_found()),
        }
    }
}

/// The cookie that opens the inbox; none where its token cannot stand in one.
pub(crate) fn cookie(config: &ApiConfig) -> Option<HeaderValue> {
    let token = config.inbox_token.as_deref()?;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~".contains(&octet);
    if !token.bytes().all(plain) {
        return None;
    }
    let secure = match config.public_url.starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    let name = cookie_name(token);
    HeaderValue::from_str(&format!(
        "{name}={token}; Path=/inbox; Max-Age={COOKIE_MAX_AGE_SECS}; HttpOnly; SameSite=Strict{secure}"
    ))
    .ok()
}

/// Browsers share cookies between the ports of a host: platforms side by side need names of
/// their own.
fn cookie_name(token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    let start = hash.as_ref().iter().take(16);
    let number = start.fold(0u128, |number, octet| number << 8 | u128::from(*octet));
    format!("postrider_inbox_{}", &encode_base32(number)[18..])
}

fn in_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|octet| *octet == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; xb=2;b=3"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=4=5"));
        assert_eq!(in_cookie(&headers, "b"), Some(&b"3"[..]));
        assert_eq!(in_cookie(&headers, "c"), Some(&b"4=5"[..]));
        assert_eq!(in_cookie(&headers, "x"), None);
    }

    #[test]
    fn the_cookie_goes_to_nobody_else() {
        let with = |token: &str, url: &str| ApiConfig {
            inbox_token: Some(token.to_owned()),
            public_url: url.to_owned(),
            ..ApiConfig::default()
        };
        let plain = cookie(&with("t0ken", "http://h")).unwrap();
        let plain = plain.to_str().unwrap();
        assert!(plain.contains("=t0ken; Path=/inbox; "), "{plain}");
        assert!(plain.ends_with("; HttpOnly; SameSite=Strict"), "{plain}");
        let secure = cookie(&with("t0ken", "https://h")).unwrap();
        assert!(secure.to_str().unwrap().ends_with("; Secure"));
        assert!(cookie(&with("a;b", "http://h")).is_none());
        assert_ne!(cookie_name("a"), cookie_name("b"));
    }
}
