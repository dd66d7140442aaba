//! What the words of a refusal mean, whatever server says them. Data: the first pattern that is
//! found counts, so the sharper reason stands above the vaguer one.
//!
//! `*` in a pattern stands for any words between its parts. Patterns are lower case.

use crate::bounce_class::BounceClass::{self, *};

/// To which replies a row applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Any,
    /// 4xx.
    Transient,
    /// 5xx.
    Permanent,
}
use When::{Any, Permanent, Transient};

#[rustfmt::skip] // one pattern a line would hide the order, which is what matters
const RULES: &[(BounceClass, When, &[&str])] = &[
    // Reports that wrap another failure.
    (NetworkError, Any, &[
        "dns query failed", "winsock error",
    ]),
    (RecipientRefused, Any, &[
        "authrequired", "rejected by recipient", "recipient preferences",
        "only accepting mail from", "not accepting mail from this sender",
        "not in the recipient's allowed", "rejected by this user",
    ]),
    // About our set-up: these often also say "blocked", "rate limited" or "rejected".
    (SenderDns, Any, &[
        "ptr record", "reverse dns", "reverse hostname", "rdns", "fcrdns",
        "sender address rejected: domain not found", "domain of sender*not",
        "sender domain*not resolve", "sender domain*not exist", "unresolvable*from domain",
        "helo command rejected", "sender address rejected*nullmx",
        "sender address*does not exist", "mail from domain*does not exist", "invalid domain name",
    ]),
    (AuthFailure, Any, &[
        "dmarc", "spf check", "spf record", "spf authentication", "spf fail", "spf:",
        "spf validation", "dkim authentication", "dkim fail", "dkim check", "dkim verification",
        "is unauthenticated", "unauthenticated email", "unauthenticated mail", "isn't aligned",
        "not aligned", "not authorized by*spf",
    ]),
    (TlsFailure, Any, &[
        "tls required", "requires tls", "require tls", "using a tls", "over a tls",
        "starttls first", "starttls command first", "not support tls", "tls not available",
        "encryption required", "session encryption is required",
    ]),
    (SystemError, Any, &[
        "temporary system problem", "temporary lookup failure",
    ]),
    (SenderRejected, Any, &[
        "sender rejected", "sender refused by", "sender address rejected",
        "sender address*not a valid", "unroutable sender", "sender verify failed",
        "purported responsible", "mail sending denied", "sending email account", "invalid sender",
        "sender not allowed", "sender denied",
    ]),
    (SecurityError, Any, &[
        "authentication required", "invalid credentials", "username and password",
        "log in through", "too many unauthenticated", "authentication not allowed",
        "login attempts", "delivery not authorized", "unauthenticated senders not", "xoauth",
    ]),
    (RelayDenied, Any, &[
        "relay access denied", "relaying denied", "relay not permitted", "unable to relay",
        "not relay", "allowed rcpthosts", "relaying not allowed", "relaying is not",
        "relay denied", "relay prohibited",
    ]),
    // About us: speed.
    (ReputationBlock, Permanent, &[
        "unusual rate of unsolicited", "too many invalid recipients", "content judged to be spam",
    ]),
    (Greylisted, Transient, &[
        "greylist", "graylist", "grey-list", "gray-list", "postscreen", "come back in",
        "temporarily rejected. try again",
    ]),
    (RateLimited, Any, &[
        "rate limit", "unusual rate", "at a rate", "too many connections", "too many sessions",
        "too many concurrent", "too many messages", "too much mail", "too many recipients",
        "mail too quickly", "excessive volume", "unexpected volume", "sending limit",
        "relay limit", "slow down", "throttl", "connection frequency", "connection limit",
        "size per transaction exceeded", "trop de connexions", "some messages on this connection",
        "denial of service", "try again later, closing connection", "reduce the rate",
    ]),
    // About us: standing.
    (SpamContent, Any, &[
        "spam-like characteristics",
    ]),
    (ReputationBlock, Any, &[
        "spamhaus", "spamcop", "sorbs", "barracuda", "dnsbl", "an rbl",
        "the rbl", "dns_rbl", "rbl.", "rbl+", "drbl", "surbl", "uribl",
        "hostkarma", "proofpoint.com", "cloudmark", "blacklist", "black list", "black listed",
        "blocklist", "block list", "denylist", "blocked using", "blocked by", "blocked - see",
        "ip blocked", "has been blocked for", "temporarily blocked for",
        "_is_blocked", ":blocked", "bloquee", "poor reputation", "bad reputation",
        "low reputation", "no reputation", "reputation of", "ip reputation", "domain reputation",
        "banned", "open relay", "open proxy", "insecure mail relay", "dynamic ip",
        "namespace mining", "compromised", "listed at", "is listed", "permanently deferred",
        "not in whitelist", "not authorized to send email directly",
        "not authorized to send mail directly", "service refuse", "currently sending spam",
        "too many unwanted messages",
        "connections will not be accepted", "contact*to clarify", "client host rejected: blocked",
        "refused. your ip",
    ]),
    // About this message.
    (ContentRejected, Any, &[
        "virus or attachment", "illegal attachment",
    ]),
    (Virus, Any, &[
        "contains a virus", "virus found", "virus detected", "virus infected message",
        "infected with", "malware", "contains virus",
    ]),
    (SpamContent, Any, &[
        "spam content", "spam message", "as spam", "spam detected", "spam or virus", "is spam",
        "- spam", "suspicion of spam", "spam scale", "spam score", "spam probability",
        "looks like spam", "likely spam", "junk mail", "mcspamsignature", "unsolicited",
    ]),
    (NotRfcCompliant, Any, &[
        "rfc 5322", "rfc 2822", "rfc5322", "rfc2822", "bare lf", "bare <lf>", "bare linefeed",
        "malformed", "duplicate header", "8-bit data in message header", "encoded-word",
        "message-id: header", "from: header", "disallowed header", "blank from", "missing header",
        "multiple from",
    ]),
    (MessageTooBig, Any, &[
        "message too large", "message too big", "message size", "size limit", "too large",
        "maximum message", "message length exceeds", "line limit", "header size",
        "size of the*header", "size of one of the header", "size of your message",
        "line too long",
    ]),
    // About the recipient.
    (MailboxFull, Any, &[
        "mailbox full", "mailbox is full", "over quota", "overquota", "quota exceeded",
        "exceeded*quota", "out of storage", "storage limit", "quotaexceeded", "inbox is full",
        "destinataire pleine", "not enough space", "boite*pleine", "boîte*pleine",
    ]),
    (RecipientMoved, Any, &[
        "no longer on server", "has moved", "address has changed", "user has left",
    ]),
    (InactiveMailbox, Permanent, &[
        "mailbox disabled", "mailbox is disabled", "account disabled", "account is disabled",
        "account that you tried to reach is disabled", "is inactive", "account inactive",
        "inactive mailbox", "disabled recipient", "recipient account is blocked",
        "account isblocked", "is no longer valid", "deactivated", "account*suspended",
        "account*closed", "mailbox*suspended", "disabled user", "no longer in use",
    ]),
    (DomainRefusesMail, Any, &[
        "null mx", "nullmx", "not accepting network messages", "does not accept mail",
        "accepts no mail",
    ]),
    (InvalidDomain, Any, &[
        "host unknown", "domain not found", "recipient domain", "dns domain*does not exist",
        "unrouteable mail domain", "unroutable mail domain", "no such domain", "unknown domain",
        "domain does not exist",
    ]),
    (InvalidRecipient, Any, &[
        "user unknown", "unknown user", "no such user", "user*does not exist",
        "mailbox*does not exist", "account*does not exist",
        "recipient*does not exist", "address*does not exist", "user*doesn't exist",
        "mailbox*doesn't exist", "account*doesn't exist", "address*doesn't exist",
        "no mailbox here", "unknown or illegal", "user not found", "recipient not found",
        "recipientnotfound", "unknown recipient", "recipient unknown", "invalid recipient",
        "no such mailbox", "no such recipient", "no such address", "mailbox not found",
        "unrouteable address", "unroutable address", "undeliverable address",
        "destinataire invalide", "not a valid rfc", "user address required",
        "bad destination mailbox", "mailbox unknown", "unknown mailbox", "address unknown",
        "unknown address", "not a known user", "not our customer", "no account by",
        "recipient does not", "invalid mailbox", "not a valid mailbox", "nosuchuser",
        "inactive email address", "invalid address", "unknown local part",
    ]),
    (InvalidRecipient, Permanent, &[
        "mailbox unavailable",
    ]),
    // The dialogue and the network.
    (ProtocolError, Any, &[
        "syntax error", "sequence of commands", "out of sequence", "unrecognized command",
        "command unrecognized", "unrecognised command", "protocol violation", "nested mail",
        "helo/ehlo argument", "multiple destination domains", "parameter not implemented",
        "command not implemented", "unrecognized commands",
    ]),
    (Expired, Any, &[
        "message expired", "queue too long",
    ]),
    (NetworkError, Any, &[
        "timed out", "timeout", "connection lost", "lost connection", "connection refused",
        "connection expired", "lost while", "too many hops", "hop count", "mail loop",
        "routing loop", "exceeded*hops", "no a or aaaa",
    ]),
    // Reasons that give no reason.
    (PolicyRejected, Any, &[
        "policy", "policies", "administratively prohibited",
    ]),
    (ContentRejected, Any, &[
        "content reject", "message content", "content restriction", "attachment",
        "security issue", "executable", "prohibited content",
    ]),
    (SystemError, Any, &[
        "internal system error", "mailer error", "server configuration", "insufficient system",
        "resources temporarily", "resource temporarily", "currently unavailable",
        "not accepting connections", "insufficient permission", "operating system error",
        "internal error", "local error", "out of memory", "disk full", "service not available",
        "temporarily unavailable", "could not load",
    ]),
    (ReputationBlock, Permanent, &[
        "access denied...",
    ]),
    (PolicyRejected, Permanent, &[
        "client host rejected", "not allowed", "message refused", "mail refused",
        "failed to delivery", "message not accepted",
    ]),
    (SpamContent, Permanent, &[
        "spam",
    ]),
];

/// The class that the words of a reply give it, if any; `text` must be normalised.
pub(super) fn class_by_text(permanent: bool, text: &str) -> Option<BounceClass> {
    let applies = |when: When| match when {
        Any => true,
        Transient => !permanent,
        Permanent => permanent,
    };
    RULES
        .iter()
        .filter(|(_, when, _)| applies(*when))
        .find(|(_, _, patterns)| patterns.iter().any(|pattern| contains(text, pattern)))
        .map(|(class, _, _)| *class)
}

/// True when all parts of the pattern are in the text, one behind the other.
fn contains(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Lower case, single spaces, and `<address>` for every address: `spamtrap@` or `unknown@` are
/// names, not reasons.
pub(super) fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        if word.contains('@') {
            out.push_str("<address>");
        } else {
            out.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_can_be_reached() {
        let mut hidden = Vec::new();
        for (class, when, patterns) in RULES {
            for pattern in *patterns {
                assert_eq!(normalise(pattern), *pattern, "patterns are normalised");
                let text = pattern.replace('*', " ");
                if class_by_text(*when != Transient, &text) != Some(*class) {
                    hidden.push(*pattern);
                }
            }
        }
        assert!(hidden.is_empty(), "hidden by earlier rows: {hidden:?}");
    }

    #[test]
    fn parts_of_a_pattern_stand_in_order() {
        assert!(contains("the account is now closed", "account*closed"));
        assert!(!contains("closed account", "account*closed"));
        assert!(!contains("account", "account*account"));
    }
}
