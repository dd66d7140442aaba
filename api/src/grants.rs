//! What keys may do, and that no key gives another more than it has itself.
//! Looks at values only: who asks and what is stored is not known here.

use std::net::IpAddr;

use service::config::Network;
use store::ApiKey;

use crate::problem::{Code, FieldProblem, Problem};

/// Every scope that a key can be given.
pub(crate) const SCOPES: [&str; 12] = [
    "emails:send",
    "emails:read",
    "emails:*",
    "domains:*",
    "suppressions:*",
    "templates:*",
    "webhooks:*",
    "stats:read",
    "stats:*",
    "pools:*",
    "keys:*",
    "admin:*",
];

/// Whether a scope that a key holds includes the wanted one: it is the same, or it is `area:*`
/// of the same area.
pub(crate) fn covers(held: &str, wanted: &str) -> bool {
    held == wanted
        || held
            .strip_suffix('*')
            .is_some_and(|area| area.ends_with(':') && wanted.starts_with(area))
}

/// Where `child` may do more than `parent`, with pointers to the fields.
pub(crate) fn beyond(parent: &ApiKey, child: &ApiKey) -> Vec<FieldProblem> {
    let mut errors = Vec::new();
    let mut add = |pointer: String, detail: &str| {
        errors.push(FieldProblem::new(pointer, "key_escalation", detail));
    };
    if parent.test && !child.test {
        add(
            "/test".into(),
            "a test key makes and changes test keys only",
        );
    }
    for (index, scope) in child.scopes.iter().enumerate() {
        if !parent.scopes.iter().any(|held| covers(held, scope)) {
            add(format!("/scopes/{index}"), "the key used lacks this scope");
        }
    }
    let restricted = "the key used is restricted: name some of what it is restricted to";
    match (&parent.domains, &child.domains) {
        (Some(_), None) => add("/domains".into(), restricted),
        (Some(held), Some(wanted)) => {
            for (index, name) in wanted.iter().enumerate() {
                if !held.contains(name) {
                    add(format!("/domains/{index}"), restricted);
                }
            }
        }
        (None, _) => {}
    }
    match (&parent.networks, &child.networks) {
        (Some(_), None) => add("/networks".into(), restricted),
        (Some(held), Some(wanted)) => {
            let held: Vec<Network> = held.iter().filter_map(|text| text.parse().ok()).collect();
            for (index, text) in wanted.iter().enumerate() {
                let inside = text
                    .parse()
                    .is_ok_and(|wanted| held.iter().any(|held| held.includes(&wanted)));
                if !inside {
                    add(format!("/networks/{index}"), restricted);
                }
            }
        }
        (None, _) => {}
    }
    if let Some(end) = parent.expires_at
        && child.expires_at.is_none_or(|wanted| wanted > end)
    {
        add("/expires_at".into(), "the key used expires earlier");
    }
    errors
}

/// Refuses what [`beyond`] finds.
///
/// # Errors
/// `child` may do more than `parent`.
pub(crate) fn within(parent: &ApiKey, child: &ApiKey) -> Result<(), Problem> {
    let errors = beyond(parent, child);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::fields(errors).with_code(Code::KeyEscalation))
}

/// Whether the key may be used from there. An address that is not known is nowhere, and a network
/// that cannot be read holds nobody.
pub(crate) fn may_come_from(key: &ApiKey, address: Option<IpAddr>) -> bool {
    let Some(networks) = &key.networks else {
        return true;
    };
    address.is_some_and(|address| {
        networks
            .iter()
            .filter_map(|text| text.parse::<Network>().ok())
            .any(|network| network.contains(address))
    })
}

#[cfg(test)]
mod tests {
    use mail::domain_name::DomainName;
    use mail::ids::ApiKeyId;
    use store::AccountNo;
    use time::macros::datetime;

    use super::*;

    fn key(scopes: &[&str]) -> ApiKey {
        ApiKey {
            id: ApiKeyId::from_uuid(uuid::Uuid::nil()),
            account: AccountNo(1),
            test: false,
            scopes: scopes.iter().map(ToString::to_string).collect(),
            domains: None,
            networks: None,
            expires_at: None,
        }
    }

    fn pointers(parent: &ApiKey, child: &ApiKey) -> Vec<String> {
        let errors = serde_json::to_value(beyond(parent, child)).unwrap();
        let each = errors.as_array().unwrap().iter();
        each.map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_scope_covers_itself_and_an_area_covers_its_scopes() {
        let check = |held: &str, wanted: &str, expected: bool| {
            assert_eq!(covers(held, wanted), expected, "{held} for {wanted}");
        };
        check("emails:send", "emails:send", true);
        check("emails:*", "emails:send", true);
        check("webhooks:*", "webhooks:*", true);
        check("emails:read", "emails:send", false);
        check("emails:send", "emails:*", false);
        check("webhooks:read", "webhooks:*", false);
        check("email*", "emails:send", false);
        check("*", "emails:send", false);
        check("admin:*", "emails:send", false);
        check("", "emails:send", false);
    }

    #[test]
    fn a_key_gives_what_it_has_and_nothing_more() {
        let names =
            |list: &[&str]| Some(list.iter().map(|n| DomainName::parse(n).unwrap()).collect());
        let texts = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect());
        let mut parent = key(&["emails:*", "keys:*"]);
        assert_eq!(pointers(&parent, &key(&["emails:send", "keys:*"])), [""; 0]);
        assert_eq!(pointers(&parent, &parent.clone()), [""; 0]);
        let wide = key(&["emails:send", "admin:*", "stats:read"]);
        assert_eq!(pointers(&parent, &wide), ["/scopes/1", "/scopes/2"]);

        parent.test = true;
        parent.domains = names(&["a.test", "b.test"]);
        parent.networks = texts(&["10.0.0.0/8"]);
        parent.expires_at = Some(datetime!(2026-11-22 09:00 UTC));
        let all = ["/test", "/domains", "/networks", "/expires_at"];
        assert_eq!(pointers(&parent, &key(&[])), all);
        let mut child = parent.clone();
        child.domains = names(&["b.test", "sub.a.test"]);
        child.networks = texts(&["10.1.0.0/16", "0.0.0.0/0", "::ffff:10.0.0.0/20"]);
        child.expires_at = Some(datetime!(2026-11-22 09:00:01 UTC));
        let some = ["/domains/1", "/networks/1", "/networks/2", "/expires_at"];
        assert_eq!(pointers(&parent, &child), some);
    }

    #[test]
    fn an_unknown_address_is_in_no_network() {
        let mut restricted = key(&[]);
        assert!(may_come_from(&restricted, None));
        restricted.networks = Some(vec!["what?".to_owned(), "192.0.2.0/24".to_owned()]);
        assert!(may_come_from(
            &restricted,
            Some("192.0.2.9".parse().unwrap())
        ));
        assert!(!may_come_from(
            &restricted,
            Some("192.0.3.9".parse().unwrap())
        ));
        assert!(!may_come_from(&restricted, None));
    }
}
