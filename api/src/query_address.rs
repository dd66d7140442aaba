//! Addresses in the query of a URL, where `+` is read as a space: what was written is found again.
//! Judges no address.

use std::borrow::Cow;

/// The address that was meant. Without quotes a local part holds no space (RFC 5321 section 4.1.2),
/// so each was a `+`.
pub(crate) fn with_plus(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((local_part, domain)) if !text.starts_with('"') && local_part.contains(' ') => {
            format!("{}@{domain}", local_part.replace(' ', "+")).into()
        }
        _ => text.into(),
    }
}

/// The same in a list of mailboxes. Here spaces stand around addresses too; what has quotes,
/// comments or groups in it is left as it is.
pub(crate) fn list_with_plus(text: &str) -> String {
    if text.contains(['"', '(', ')', ':', ';']) {
        return text.to_owned();
    }
    let mailbox = |mailbox: &str| match mailbox.split_once('<') {
        Some((name, address)) => format!("{name}<{}", with_plus(address)),
        None => with_plus(mailbox.trim()).into_owned(),
    };
    text.split(',').map(mailbox).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_in_a_local_part_was_a_plus() {
        let check = |text: &str, meant: &str| assert_eq!(with_plus(text), meant, "{text}");
        check("a b@c.test", "a+b@c.test");
        check(" 49 1@c.test", "+49+1@c.test");
        check("a+b@c.test", "a+b@c.test");
        check("\"a b\"@c.test", "\"a b\"@c.test");
        // Nothing else is mended.
        check("a@c test", "a@c test");
        check("a b", "a b");
        check("", "");
    }

    #[test]
    fn in_a_list_the_spaces_around_addresses_stay_spaces() {
        let check = |text: &str, meant: &str| assert_eq!(list_with_plus(text), meant, "{text}");
        check("a b@c.test", "a+b@c.test");
        check(" a@c.test, a b@c.test ", "a@c.test,a+b@c.test");
        check("Ana B <a b@c.test>,d@c.test", "Ana B <a+b@c.test>,d@c.test");
        check("\"B, Ana\" <a@c.test>", "\"B, Ana\" <a@c.test>");
        check("\"a b\"@c.test", "\"a b\"@c.test");
        check("Ana B", "Ana B");
        check("", "");
    }
}
