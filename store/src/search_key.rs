//! What mail is searched by, as numbers: 64 bits of a hash that the account is part of, so that an
//! index needs one column for both and knows no address. Addresses match without regard to case: a
//! person who searches seldom knows how it was typed. Not secret, as the addresses stand beside it.

use aws_lc_rs::digest::{Context, SHA256};
use mail::mailbox::Mailbox;

use crate::numbers::{AccountNo, StreamNo};

/// What is searched for; the same text as another kind has another key.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Recipient = 1,
    RecipientDomain = 2,
    Sender = 3,
    SenderDomain = 4,
    Tag = 5,
    Stream = 6,
}

/// The keys of an address and of its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressKeys {
    pub(crate) address: i64,
    pub(crate) domain: i64,
}

pub(crate) fn recipient(account: AccountNo, address: &str) -> i64 {
    key(account, Kind::Recipient, &address.to_lowercase())
}

pub(crate) fn recipient_domain(account: AccountNo, domain: &str) -> i64 {
    key(account, Kind::RecipientDomain, domain)
}

pub(crate) fn sender(account: AccountNo, address: &str) -> i64 {
    key(account, Kind::Sender, &address.to_lowercase())
}

pub(crate) fn sender_domain(account: AccountNo, domain: &str) -> i64 {
    key(account, Kind::SenderDomain, domain)
}

pub(crate) fn tag(account: AccountNo, tag: &str) -> i64 {
    key(account, Kind::Tag, tag)
}

pub(crate) fn stream(account: AccountNo, stream: StreamNo) -> i64 {
    key(account, Kind::Stream, &stream.0.to_string())
}

/// Of a recipient as it is stored: the wire form of an address.
pub(crate) fn of_recipient(account: AccountNo, stored: &str) -> AddressKeys {
    AddressKeys {
        address: recipient(account, stored),
        domain: recipient_domain(account, domain_of(stored)),
    }
}

/// Of a From field as it is stored: a mailbox in the form people write.
pub(crate) fn of_sender(account: AccountNo, stored: &str) -> AddressKeys {
    let address = match Mailbox::parse(stored) {
        Ok(mailbox) => mailbox.address().to_string(),
        Err(_) => stored.to_owned(),
    };
    AddressKeys {
        address: sender(account, &address),
        domain: sender_domain(account, domain_of(&address)),
    }
}

/// No domain holds an @, whatever a quoted local part does.
fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn key(account: AccountNo, kind: Kind, text: &str) -> i64 {
    let mut context = Context::new(&SHA256);
    context.update(&account.0.to_be_bytes());
    context.update(&[kind as u8]);
    context.update(text.as_bytes());
    let digest = context.finish();
    let first = digest
        .as_ref()
        .first_chunk::<8>()
        .expect("SHA-256 gives 32 octets");
    i64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: AccountNo = AccountNo(1);

    #[test]
    fn what_is_searched_for_meets_what_was_stored() {
        let stored = of_recipient(ACME, "\"a@b\"@Example.com");
        assert_eq!(stored.address, recipient(ACME, "\"A@B\"@example.com"));
        let stored = of_recipient(ACME, "\"a@b\"@example.com");
        assert_eq!(stored.domain, recipient_domain(ACME, "example.com"));
        for text in [
            "Acme <hello@acme.test>",
            "hello@acme.test",
            "\"Doe, J. <x@y.z>\" <Hello@acme.test>",
        ] {
            let keys = of_sender(ACME, text);
            assert_eq!(keys.address, sender(ACME, "hello@acme.test"), "{text}");
            assert_eq!(keys.domain, sender_domain(ACME, "acme.test"), "{text}");
        }
    }

    #[test]
    fn account_and_kind_are_part_of_the_key() {
        let keys = [
            recipient(ACME, "a@b.test"),
            sender(ACME, "a@b.test"),
            tag(ACME, "a@b.test"),
            recipient(AccountNo(2), "a@b.test"),
        ];
        let different: std::collections::HashSet<i64> = keys.into_iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
