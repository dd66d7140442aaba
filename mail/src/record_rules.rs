//! How published records are read: tag lists, names, and which texts are policies at all.
//! Tolerant of what DNS panels do to a value (spaces, order, capitals of names), of nothing else.

use crate::domain_name::DomainName;

/// Characters of a found value that are shown; more than any record of ours has.
const SHOWN_MAX: usize = 600;
/// RFC 9989 section 4.10: a tree walk asks at most this many names.
const TREE_WALK_MAX: usize = 8;

/// The text as it may be stored and shown: bounded, no control characters.
pub(crate) fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(SHOWN_MAX).map(printable).collect()
}

/// A name of the DNS in the form we compare: lower case, no trailing dot.
pub(crate) fn normal_name(name: &str) -> String {
    let name = name.trim();
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The tags of a `tag=value; tag=value` list (RFC 6376 section 3.2), all white space removed from
/// the values. None if it is no such list, or names a tag twice.
fn tags(text: &str) -> Option<Vec<(&str, String)>> {
    let mut tags: Vec<(&str, String)> = Vec::new();
    let text = text.trim();
    for part in text.strip_suffix(';').unwrap_or(text).split(';') {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        if name.is_empty() || tags.iter().any(|(known, _)| *known == name) {
            return None;
        }
        tags.push((name, value.split_whitespace().collect()));
    }
    Some(tags)
}

fn tag<'a>(tags: &'a [(&str, String)], name: &str) -> Option<&'a str> {
    let mut all = tags.iter();
    all.find(|(known, _)| *known == name)
        .map(|(_, value)| value.as_str())
}

/// Whether a verifier would use `found` as the key that `expected` is (RFC 6376 section 3.6.1).
pub(crate) fn same_dkim_key(expected: &str, found: &str) -> Result<(), &'static str> {
    let expected = tags(expected).ok_or("the key of this platform cannot be read")?;
    let found = tags(found).ok_or("this is no DKIM record: copy the value without quotes")?;
    let first_is_version = found.first().is_some_and(|(name, _)| *name == "v");
    let lists = |name, any: &[&str]| {
        tag(&found, name).is_none_or(|list| list.split(':').any(|one| any.contains(&one)))
    };
    match tag(&found, "v") {
        Some("DKIM1") if first_is_version => {}
        None => {}
        Some(_) => return Err("it does not begin with v=DKIM1"),
    }
    let algorithm = |tags| tag(tags, "k").unwrap_or("rsa").to_ascii_lowercase();
    if algorithm(&found) != algorithm(&expected) {
        return Err("it is a key of another algorithm (k=)");
    }
    if !lists("h", &["sha256"]) {
        return Err("it does not allow SHA-256 (h=)");
    }
    if !lists("s", &["*", "email"]) {
        return Err("it is not for email (s=)");
    }
    match tag(&found, "p") {
        Some(key) if Some(key) == tag(&expected, "p") => Ok(()),
        Some("") => Err("the key is revoked (p= is empty)"),
        Some(_) => Err("it holds another key (p=), or not all of this one"),
        None => Err("it holds no key (p=)"),
    }
}

/// RFC 7208 section 4.5: the version, then a space or nothing.
pub(crate) fn is_spf(text: &str) -> bool {
    let text = text.trim();
    let version = text.get(..6).unwrap_or_default();
    version.eq_ignore_ascii_case("v=spf1") && matches!(text.as_bytes().get(6), None | Some(b' '))
}

/// RFC 9989 section 4.7: the version is the first tag, in capitals.
pub(crate) fn is_dmarc(text: &str) -> bool {
    let first = text.split(';').next().unwrap_or_default();
    first
        .split_once('=')
        .is_some_and(|(name, value)| name.trim() == "v" && value.trim() == "DMARC1")
}

/// Where the policy of a domain may stand, the closest first: its own name, then those above it, of
/// very long names only the last seven labels. Top-level domains are left out: their policies are
/// about names that do not exist.
pub(crate) fn dmarc_names(domain: &DomainName) -> impl Iterator<Item = String> {
    let labels: Vec<&str> = domain.as_str().split('.').collect();
    let above = labels.len().saturating_sub(1).min(TREE_WALK_MAX - 1);
    let lengths = std::iter::once(labels.len()).chain((2..=above).rev());
    lengths
        .map(|length| format!("_dmarc.{}", labels[labels.len() - length..].join(".")))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_the_same_however_it_is_written() {
        let check = |found: &str, expected: &str| {
            let verdict = same_dkim_key("v=DKIM1; k=rsa; p=MIIBAQAB", found);
            assert_eq!(verdict.err().unwrap_or("same"), expected, "{found}");
        };
        check("v=DKIM1; k=rsa; p=MIIBAQAB", "same");
        check(" v=DKIM1;p=MIIB AQ\tAB;k=rsa; ", "same");
        check("p=MIIBAQAB", "same");
        check(
            "v=DKIM1; k=RSA; t=y:s; s=email; h=sha256; n=note; p=MIIBAQAB",
            "same",
        );
        check(
            "v=DKIM1; k=rsa; p=MIIBAQAC",
            "it holds another key (p=), or not all of this one",
        );
        check(
            "v=DKIM1; k=rsa; p=miibaqab",
            "it holds another key (p=), or not all of this one",
        );
        check("v=DKIM1; k=rsa; p=", "the key is revoked (p= is empty)");
        check("v=DKIM1; k=rsa", "it holds no key (p=)");
        check(
            "v=DKIM1; k=ed25519; p=MIIBAQAB",
            "it is a key of another algorithm (k=)",
        );
        check(
            "v=DKIM1; h=sha1; p=MIIBAQAB",
            "it does not allow SHA-256 (h=)",
        );
        check("v=DKIM1; s=other; p=MIIBAQAB", "it is not for email (s=)");
        check("v=dkim1; p=MIIBAQAB", "it does not begin with v=DKIM1");
        check("p=MIIBAQAB; v=DKIM1", "it does not begin with v=DKIM1");
        let no_list = "this is no DKIM record: copy the value without quotes";
        check("v=DKIM1; p=MIIBAQAB; p=MIIBAQAB", no_list);
        check("hello", no_list);
        check("", no_list);
    }

    #[test]
    fn policies_are_told_from_other_texts() {
        assert!(is_spf("v=spf1 -all") && is_spf("V=SPF1"));
        assert!(!is_spf("v=spf10 -all") && !is_spf("spf1") && !is_spf("v=spfé"));
        assert!(is_dmarc("v=DMARC1; p=none") && is_dmarc("v = DMARC1 ;p=none"));
        assert!(!is_dmarc("v=dmarc1; p=none") && !is_dmarc("p=none; v=DMARC1"));
    }

    #[test]
    fn the_tree_walk_goes_up_and_stays_short() {
        let walk = |name: &str| {
            let name = DomainName::parse(name).unwrap();
            dmarc_names(&name).collect::<Vec<_>>()
        };
        assert_eq!(walk("acme.test"), ["_dmarc.acme.test"]);
        assert_eq!(walk("a.b.test"), ["_dmarc.a.b.test", "_dmarc.b.test"]);
        let long = walk("a.b.c.d.e.f.g.h.i.test");
        assert_eq!(long.first().unwrap(), "_dmarc.a.b.c.d.e.f.g.h.i.test");
        assert_eq!(long[1], "_dmarc.d.e.f.g.h.i.test");
        assert_eq!(long.last().unwrap(), "_dmarc.i.test");
        assert_eq!(long.len(), 7);
    }

    proptest! {
        #[test]
        fn no_published_text_breaks_anything(text in "\\PC{0,80}|(v=DKIM1;)?([a-z]{0,2}= ?[a-z:]{0,3};){0,5}") {
            let _ = same_dkim_key("v=DKIM1; k=rsa; p=x", &text);
            let _ = (is_spf(&text), is_dmarc(&text));
            prop_assert!(shown(&text).chars().count() <= SHOWN_MAX);
        }
    }
}
