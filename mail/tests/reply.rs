//! Replies are read from any bytes in any pieces, within limits, without a panic.

#![allow(clippy::unwrap_used)]

use mail::reply::{Reply, ReplyError, ReplyParser};
use proptest::prelude::*;

fn read(octets: &[u8]) -> Result<Option<Reply>, ReplyError> {
    ReplyParser::new().feed(octets)
}

fn read_one(octets: &[u8]) -> Reply {
    read(octets).unwrap().unwrap()
}

#[test]
fn a_reply_over_several_lines_is_one_reply() {
    let reply = read_one(
        b"550-5.1.1 The account you tried to reach\r\n550-5.1.1 does not exist.\r\n550 5.1.1 bye\r\n",
    );
    assert_eq!(reply.code().get(), 550);
    assert_eq!(reply.enhanced().unwrap().to_string(), "5.1.1");
    assert_eq!(reply.lines().len(), 3);
    let expected = "550 5.1.1 The account you tried to reach does not exist. bye";
    assert_eq!(reply.stored_text().as_str(), expected);
    assert!(reply.is_permanent() && !reply.is_transient() && !reply.is_positive());
}

#[test]
fn octets_may_come_one_by_one() {
    let mut parser = ReplyParser::new();
    for octet in b"250-mx.test\r\n250 SIZE 100\r" {
        assert_eq!(parser.feed(&[*octet]), Ok(None));
    }
    let reply = parser.feed(b"\n").unwrap().unwrap();
    assert_eq!(reply.lines(), ["mx.test", "SIZE 100"]);
    assert!(!parser.has_unread());
}

#[test]
fn pipelined_replies_come_out_one_by_one() {
    let mut parser = ReplyParser::new();
    let mail = parser
        .feed(b"250 2.1.0 ok\r\n550 5.1.1 no\r\n354 go\r\n25")
        .unwrap();
    assert_eq!(mail.unwrap().code().get(), 250);
    assert_eq!(parser.next_reply().unwrap().unwrap().code().get(), 550);
    assert_eq!(parser.next_reply().unwrap().unwrap().code().get(), 354);
    assert_eq!(parser.next_reply(), Ok(None));
    assert!(parser.has_unread());
    assert_eq!(parser.discard_unread(), 2);
    assert!(!parser.has_unread());
}

#[test]
fn odd_but_clear_replies_are_read() {
    assert_eq!(read_one(b"250\r\n").to_string(), "250");
    assert_eq!(read_one(b"250 \r\n").text(), "");
    assert_eq!(read_one(b"250-\r\n250\r\n").lines(), ["", ""]);
    assert_eq!(read_one(b"250 bare line feed\n").text(), "bare line feed");
    assert_eq!(read_one(b"591 listed\r\n").code().get(), 591);
    assert_eq!(
        read_one(b"250 5.1.1.1 is no enhanced code\r\n").enhanced(),
        None
    );
    let long = [b"250 ".as_slice(), &[b'x'; 3000], b"\r\n"].concat();
    assert_eq!(read_one(&long).text().len(), 3000);
    assert_eq!(read_one(&long).stored_text().as_str().len(), 1024);
}

#[test]
fn what_is_no_reply_is_an_error() {
    for octets in [
        b"\r\n".as_slice(),
        b"hello\r\n",
        b"25\r\n",
        b"199 x\r\n",
        b"600 x\r\n",
        b"\xff\xfe\r\n",
    ] {
        assert!(
            matches!(read(octets), Err(ReplyError::NoCode(_))),
            "{octets:?}"
        );
    }
    assert!(matches!(
        read(b"250x\r\n"),
        Err(ReplyError::BadSeparator(_))
    ));
    assert!(matches!(
        read(b"2500 x\r\n"),
        Err(ReplyError::BadSeparator(_))
    ));
    let changed = read(b"250-a\r\n550 b\r\n");
    assert!(matches!(changed, Err(ReplyError::CodeChanged { .. })));
}

#[test]
fn every_length_has_a_limit() {
    assert_eq!(read(&[b'2'; 5000]), Err(ReplyError::LineTooLong));
    assert_eq!(read(&[b'2'; 300_000]), Err(ReplyError::TooMuchUnread));
    let endless = b"250-x\r\n".repeat(101);
    assert_eq!(read(&endless), Err(ReplyError::ReplyTooLong));
    let fat = [b"250-".as_slice(), &[b'x'; 4000], b"\r\n"]
        .concat()
        .repeat(20);
    assert_eq!(read(&fat), Err(ReplyError::ReplyTooLong));
}

#[test]
fn a_reply_is_safe_to_store_and_show() {
    let reply = read_one(b"550 5.1.1 Bo\xeete \x00 \x1b[31m a\rb\r\n");
    let stored = reply.stored_text();
    assert!(!stored.as_str().chars().any(char::is_control), "{stored:?}");
    assert!(stored.as_str().starts_with("550 5.1.1 Bo"));
}

#[test]
fn the_hostile_corpus_is_read_as_it_asks() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/corpora/hostile/smtp/"
    );
    let Ok(code_change) = std::fs::read(format!("{folder}reply-code-change.bin")) else {
        eprintln!("SKIPPED: {folder} is absent");
        return;
    };
    assert!(matches!(
        read(&code_change),
        Err(ReplyError::CodeChanged { .. })
    ));
    let file = |name: &str| std::fs::read(format!("{folder}{name}")).unwrap();
    assert_eq!(read_one(&file("reply-code-only.bin")).code().get(), 250);
    assert_eq!(read(&file("crlf-split.bin")), Ok(None));
    assert_eq!(read(&file("reply-early-close.bin")), Ok(None));
    assert!(read_one(&file("reply-enh-mismatch.bin")).is_permanent());
    assert!(
        read_one(&file("reply-latin1.bin"))
            .text()
            .contains('\u{fffd}')
    );
    assert!(
        read_one(&file("reply-html.bin"))
            .text()
            .contains("<script>")
    );
}

#[test]
fn quoted_replies_are_read_leniently() {
    let reply = Reply::from_diagnostic("550-5.1.1 no\n550 5.1.1 such user").unwrap();
    assert_eq!(reply.text(), "no such user");
    assert_eq!(Reply::from_diagnostic("no code"), None);
    assert_eq!(Reply::from_diagnostic(""), None);
    assert!(Reply::from_diagnostic("550é").is_some());
}

proptest! {
    #[test]
    fn any_octets_in_any_pieces_give_the_same_replies(
        octets in "([2-5][0-9]{2}[- ]?[a-z. 0-9]{0,12}\r?\n|\\PC{0,6}){0,8}",
        cut in 0_usize..80,
    ) {
        let octets = octets.as_bytes();
        let all = |pieces: &[&[u8]]| {
            let mut parser = ReplyParser::new();
            let mut seen = Vec::new();
            for piece in pieces {
                let mut next = parser.feed(piece);
                loop {
                    match next {
                        Ok(Some(reply)) => seen.push(reply),
                        Ok(None) => break,
                        Err(_) => return seen,
                    }
                    next = parser.next_reply();
                }
            }
            seen
        };
        let (left, right) = octets.split_at(cut.min(octets.len()));
        prop_assert_eq!(all(&[octets]), all(&[left, right]));
    }

    #[test]
    fn raw_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&octets);
        let _ = Reply::from_diagnostic(&String::from_utf8_lossy(&octets));
    }
}
