//! Names under which strangers register theirs: nobody sends as `com` or `co.uk`.
//! Syntax and a list only: who owns a name is the DNS's to prove.

use crate::domain_name::DomainName;

/// True for a suffix that registries hand names out under (the ICANN part of the Public Suffix
/// List). Those that a company runs for its customers, as `github.io`, have an owner who can prove
/// himself, and are none.
pub fn is_public_suffix(name: &DomainName) -> bool {
    psl::suffix(name.as_str().as_bytes()).is_some_and(|suffix| {
        suffix.as_bytes() == name.as_str().as_bytes() && suffix.typ() != Some(psl::Type::Private)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_from_what_is_registered() {
        let check = |name: &str, expected: bool| {
            let parsed = DomainName::parse_host(name).unwrap();
            assert_eq!(is_public_suffix(&parsed), expected, "{name}");
        };
        check("com", true);
        check("co.uk", true);
        check("xn--55qx5d.cn", true);
        check("unknown-top-level", true);
        check("example.com", false);
        check("example.co.uk", false);
        check("mail.example.co.uk", false);
        check("acme.test", false);
        check("github.io", false);
    }
}
