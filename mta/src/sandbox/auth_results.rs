//! Writes what was found about a message as the value of an Authentication-Results field
//! (RFC 8601 section 2.2), on one line. Pure.
//!
//! The sandbox asks no DNS. So SPF is `none`, and DMARC is what it would be under a policy that
//! rests on DKIM alone.

use std::fmt::Write;

use mail::address::EmailAddress;
use mail::domain_name::DomainName;

use super::verify::{Findings, SignatureFinding, Verdict};

/// What the client said before the content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialogue<'a> {
    pub(super) helo: &'a str,
    /// Without brackets; empty for the null reverse-path.
    pub(super) mail_from: &'a str,
}

/// The value, without the field's name.
pub(super) fn authentication_results(
    host_name: &str,
    dialogue: Dialogue<'_>,
    findings: &Findings,
) -> String {
    let mut value = host_name.to_owned();
    if findings.signatures.is_empty() {
        value.push_str("; dkim=none");
    }
    for signature in &findings.signatures {
        push_dkim(&mut value, signature);
    }
    push_spf(&mut value, dialogue);
    push_dmarc(&mut value, findings);
    value
}

fn push_dkim(value: &mut String, finding: &SignatureFinding) {
    value.push_str("; dkim=");
    value.push_str(match finding.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Neutral => "neutral",
        Verdict::PermError => "permerror",
        Verdict::TempError => "temperror",
    });
    if let Some(reason) = &finding.reason {
        push_comment(value, reason);
    }
    if let Some((domain, selector)) = &finding.signer {
        push_property(value, "header.d", domain);
        push_property(value, "header.s", selector);
    }
}

fn push_spf(value: &mut String, dialogue: Dialogue<'_>) {
    value.push_str("; spf=none");
    push_comment(value, "the sandbox asks no DNS");
    if dialogue.mail_from.is_empty() {
        // The null reverse-path is checked by the HELO name (RFC 7208 section 2.4).
        if let Ok(name) = DomainName::parse_host(dialogue.helo) {
            push_property(value, "smtp.helo", name.as_str());
        }
    } else if let Ok(address) = EmailAddress::parse(dialogue.mail_from) {
        // Written in the form that needs the least quoting.
        let _infallible = write!(value, " smtp.mailfrom={address}");
    }
}

fn push_dmarc(value: &mut String, findings: &Findings) {
    let [from] = findings.from.as_slice() else {
        value.push_str("; dmarc=permerror");
        push_comment(value, "not exactly one address in From");
        return;
    };
    let domain = from
        .rsplit_once('@')
        .and_then(|(_, name)| DomainName::parse_host(name).ok());
    let Some(domain) = domain else {
        value.push_str("; dmarc=permerror");
        push_comment(value, "no domain in From");
        return;
    };
    if findings
        .signatures
        .iter()
        .any(|finding| is_aligned(finding, &domain))
    {
        value.push_str("; dmarc=pass");
        push_comment(value, "by DKIM; no policy looked up");
    } else {
        value.push_str("; dmarc=fail");
        push_comment(value, "no DKIM signature of the domain in From passed");
    }
    push_property(value, "header.from", domain.as_str());
}

/// Relaxed alignment (RFC 7489 section 3.1.1), taking one name inside the other for the same
/// organization: keys exist only for domains that somebody registered here, so never for a public
/// suffix.
fn is_aligned(finding: &SignatureFinding, from: &DomainName) -> bool {
    let passed = finding.verdict == Verdict::Pass;
    let signer = finding
        .signer
        .as_ref()
        .and_then(|(name, _)| DomainName::parse_host(name).ok());
    passed && signer.is_some_and(|name| from.is_within(&name) || name.is_within(from))
}

fn push_comment(value: &mut String, text: &str) {
    value.push_str(" (");
    value.extend(text.chars().map(|c| match c {
        '(' | ')' | '\\' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }));
    value.push(')');
}

/// The text comes from the message: only what a name is made of may pass into the value.
fn push_property(value: &mut String, name: &str, text: &str) {
    let _infallible = write!(value, " {name}=");
    value.extend(text.chars().map(|c| match c {
        '.' | '-' | '_' => c,
        c if c.is_alphanumeric() => c,
        _ => '?',
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(verdict: Verdict, reason: Option<&str>, domain: &str) -> SignatureFinding {
        SignatureFinding {
            verdict,
            reason: reason.map(str::to_owned),
            signer: Some((domain.to_owned(), "k1".to_owned())),
        }
    }

    fn check(mail_from: &str, signatures: &[SignatureFinding], from: &[&str], expected: &str) {
        let findings = Findings {
            signatures: signatures.to_vec(),
            from: from.iter().map(|&address| address.to_owned()).collect(),
        };
        let dialogue = Dialogue {
            helo: "out.acme.test",
            mail_from,
        };
        assert_eq!(
            authentication_results("mx.test", dialogue, &findings),
            expected
        );
    }

    #[test]
    fn a_good_signature_of_the_sender_passes_dmarc() {
        check(
            "b+1@bounce.test",
            &[signature(Verdict::Pass, None, "acme.test")],
            &["hello@mail.acme.test"],
            "mx.test; dkim=pass header.d=acme.test header.s=k1; \
             spf=none (the sandbox asks no DNS) smtp.mailfrom=b+1@bounce.test; \
             dmarc=pass (by DKIM; no policy looked up) header.from=mail.acme.test",
        );
    }

    #[test]
    fn a_foreign_or_broken_signature_does_not() {
        check(
            "",
            &[
                signature(Verdict::Pass, None, "esp.test"),
                signature(Verdict::Fail, Some("the (body)\r\nchanged"), "acme.test"),
            ],
            &["hello@acme.test"],
            "mx.test; dkim=pass header.d=esp.test header.s=k1; \
             dkim=fail (the  body   changed) header.d=acme.test header.s=k1; \
             spf=none (the sandbox asks no DNS) smtp.helo=out.acme.test; \
             dmarc=fail (no DKIM signature of the domain in From passed) header.from=acme.test",
        );
    }

    #[test]
    fn what_a_message_says_cannot_add_a_result() {
        check(
            "x;dkim=pass@b.test; dkim=pass",
            &[signature(Verdict::PermError, None, "a.test; dkim=pass\r\n")],
            &["a@a.test", "b@b.test"],
            "mx.test; dkim=permerror header.d=a.test??dkim?pass?? header.s=k1; \
             spf=none (the sandbox asks no DNS); \
             dmarc=permerror (not exactly one address in From)",
        );
        check(
            "",
            &[],
            &["hello"],
            "mx.test; dkim=none; spf=none (the sandbox asks no DNS) smtp.helo=out.acme.test; \
             dmarc=permerror (no domain in From)",
        );
    }
}
