//! Writes what receivers send back about mail that they took: a delivery status notification
//! (RFC 3464) or a feedback report (RFC 5965). Pure, and ASCII whatever the mail holds.

use std::fmt::Write;
use std::net::IpAddr;

use mail::address::EmailAddress;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Octets of the header block that are returned.
const RETURNED_MAX: usize = 64 * 1024;
/// Longest line without its end (RFC 5322 section 2.1.1).
const LINE_MAX: usize = 998;
/// Longest Message-ID that is referred to.
const REFERENCE_MAX: usize = 250;
/// What a mailbox that is gone is called, in reply, status and text alike.
const GONE: &str = "550 5.1.1 User unknown";

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// It could not be delivered after all.
    Bounce,
    /// The recipient says that it is spam.
    Complaint,
}

/// The mail that is reported about, to one of its recipients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported<'a> {
    /// The receiver's own name.
    pub(super) host_name: &'a str,
    /// Where the report goes: the reverse-path.
    pub(super) sender: &'a EmailAddress,
    /// Without brackets.
    pub(super) recipient: &'a str,
    /// Of the author, if there is one author.
    pub(super) author_domain: Option<&'a str>,
    /// The host it came from.
    pub(super) peer: IpAddr,
    pub(super) received_at: OffsetDateTime,
    pub(super) raw: &'a [u8],
}

/// A whole message. `name` is unique among all reports and made of letters and digits.
pub(super) fn write(
    kind: ReportKind,
    mail: &Reported<'_>,
    name: &str,
    now: OffsetDateTime,
) -> String {
    let host = mail.host_name;
    let boundary = format!("=_{name}");
    let (subject, report_type) = match kind {
        ReportKind::Bounce => ("Undelivered mail returned to sender", "delivery-status"),
        ReportKind::Complaint => ("Complaint about a message", "feedback-report"),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _infallible = write!(text, "{name}: {value}\r\n");
    };
    line(
        "From",
        &format!("Mail Delivery System <mailer-daemon@{host}>"),
    );
    line("To", &format!("<{}>", ascii(&mail.sender.to_string())));
    line("Subject", subject);
    line("Date", &date(now));
    line("Message-ID", &format!("<report.{name}@{host}>"));
    if let Some(reference) = message_id(mail.raw) {
        line("In-Reply-To", &reference);
        line("References", &reference);
    }
    // A machine's answer, which nothing should answer (RFC 3834 section 5).
    line("Auto-Submitted", "auto-replied");
    line("MIME-Version", "1.0");
    line(
        "Content-Type",
        &format!("multipart/report; report-type={report_type};\r\n boundary=\"{boundary}\""),
    );
    let (about, status) = match kind {
        ReportKind::Bounce => (bounce_text(mail), bounce_status(mail, now)),
        ReportKind::Complaint => (complaint_text(mail), complaint_status(mail)),
    };
    for (media_type, content) in [
        ("text/plain; charset=us-ascii", about),
        (&format!("message/{report_type}"), status),
        ("text/rfc822-headers", returned(mail.raw)),
    ] {
        let _infallible = write!(
            text,
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\n\r\n{content}"
        );
    }
    let _infallible = write!(text, "\r\n--{boundary}--\r\n");
    text
}

fn bounce_text(mail: &Reported<'_>) -> String {
    format!(
        "This is the mail system at host {}.\r\n\r\n\
         Your message was accepted, but could not be delivered to its recipient.\r\n\r\n\
         <{}>: {GONE}\r\n",
        mail.host_name,
        ascii(mail.recipient)
    )
}

fn bounce_status(mail: &Reported<'_>, now: OffsetDateTime) -> String {
    let host = mail.host_name;
    format!(
        "Reporting-MTA: dns; {host}\r\nArrival-Date: {}\r\n\r\n\
         Final-Recipient: {}\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Remote-MTA: dns; mailbox.{host}\r\nDiagnostic-Code: smtp; {GONE}\r\n\
         Last-Attempt-Date: {}\r\n",
        date(mail.received_at),
        typed(mail.recipient),
        date(now)
    )
}

fn complaint_text(mail: &Reported<'_>) -> String {
    format!(
        "This is a report about a message that came from {} on\r\n{}.\r\n\
         Its recipient marked it as spam.\r\n",
        mail.peer,
        date(mail.received_at)
    )
}

fn complaint_status(mail: &Reported<'_>) -> String {
    let mut status = format!(
        "Feedback-Type: abuse\r\nUser-Agent: Postrider-Sandbox/1.0\r\nVersion: 1\r\n\
         Original-Mail-From: <{}>\r\nOriginal-Rcpt-To: <{}>\r\nArrival-Date: {}\r\n\
         Source-IP: {}\r\nReporting-MTA: dns; {}\r\n",
        ascii(&mail.sender.to_string()),
        ascii(mail.recipient),
        date(mail.received_at),
        mail.peer,
        mail.host_name
    );
    if let Some(domain) = mail.author_domain {
        let _infallible = write!(status, "Reported-Domain: {}\r\n", ascii(domain));
    }
    status
}

/// An address with its type; beyond ASCII in the form of RFC 6533 section 3.
fn typed(address: &str) -> String {
    if address.is_ascii() {
        return format!("rfc822; {}", ascii(address));
    }
    let mut text = "utf-8; ".to_owned();
    for c in address.chars() {
        match c {
            '\\' => text.push_str("\\x{5C}"),
            ' '..='~' => text.push(c),
            c => {
                let _infallible = write!(text, "\\x{{{:X}}}", u32::from(c));
            }
        }
    }
    text
}

/// The header block, so changed that it can stand in mail of 7 bits: it comes from a stranger.
fn returned(raw: &[u8]) -> String {
    let mut text = String::new();
    for line in header_lines(raw) {
        let line = line.get(..LINE_MAX).unwrap_or(line);
        text.extend(line.iter().map(|octet| match octet {
            b'\t' | b' '..=b'~' => char::from(*octet),
            _ => '?',
        }));
        text.push_str("\r\n");
    }
    text
}

fn header_lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let head = raw.get(..RETURNED_MAX).unwrap_or(raw);
    let lines = head.split(|octet| *octet == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.take_while(|line| !line.is_empty())
}

/// The Message-ID with its brackets, where it can be referred to.
fn message_id(raw: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"message-id:";
    let mut lines = header_lines(raw);
    let field = lines.find(|line| {
        line.get(..NAME.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(NAME))
    })?;
    // A long value may stand on the next line (RFC 5322 section 2.2.3).
    let value = match field.get(NAME.len()..)?.trim_ascii() {
        [] => lines.next()?.trim_ascii(),
        value => value,
    };
    let plain = value.iter().all(u8::is_ascii_graphic) && value.len() <= REFERENCE_MAX;
    let closed = value.starts_with(b"<") && value.ends_with(b">");
    let value = str::from_utf8(value).ok()?;
    (plain && closed).then(|| value.to_owned())
}

fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect()
}

fn date(at: OffsetDateTime) -> String {
    at.format(&Rfc2822).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};

    const RAW: &[u8] = b"From: a@acme.test\r\nMessage-ID:\r\n <x1@acme.test>\r\n\
        Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nThe body\r\n";

    fn report(kind: ReportKind, recipient: &str, raw: &[u8]) -> String {
        let at = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let sender = EmailAddress::parse("b-1@bounce.test").unwrap();
        let reported = Reported {
            host_name: "mx.sandbox.test",
            sender: &sender,
            recipient,
            author_domain: Some("acme.test"),
            peer: "192.0.2.1".parse().unwrap(),
            received_at: at,
            raw,
        };
        write(kind, &reported, "abc1", at + time::Duration::SECOND)
    }

    /// Media types and contents of the parts, as another program reads them.
    fn parts(report: &str) -> Vec<(String, String)> {
        let message = MessageParser::default().parse(report).unwrap();
        assert_eq!(message.in_reply_to().as_text(), Some("x1@acme.test"));
        let part = |part: &mail_parser::MessagePart<'_>| {
            let kind = part.content_type().unwrap();
            let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap());
            let body = &report[part.offset_body as usize..part.offset_end as usize];
            (kind, body.to_owned())
        };
        message.parts.iter().map(part).collect()
    }

    #[test]
    fn a_bounce_says_who_and_why_in_its_second_part() {
        let parts = parts(&report(ReportKind::Bounce, "bounce-later@r.test", RAW));
        let kinds: Vec<_> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
        let expected = [
            "multipart/report",
            "text/plain",
            "message/delivery-status",
            "text/rfc822-headers",
        ];
        assert_eq!(kinds, expected);
        let status = "Reporting-MTA: dns; mx.sandbox.test\r\n\
            Arrival-Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n\r\n\
            Final-Recipient: rfc822; bounce-later@r.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
            Remote-MTA: dns; mailbox.mx.sandbox.test\r\n\
            Diagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\
            Last-Attempt-Date: Mon, 21 Sep 2026 14:13:21 +0000\r\n";
        assert_eq!(parts[2].1, status);
        assert!(
            parts[3].1.contains("Subject: Gr????e\r\n"),
            "{}",
            parts[3].1
        );
        assert!(!parts[3].1.contains("body"));
    }

    #[test]
    fn a_complaint_names_the_message_and_its_recipient() {
        let parts = parts(&report(ReportKind::Complaint, "complaint@r.test", RAW));
        assert_eq!(parts[2].0, "message/feedback-report");
        let status = "Feedback-Type: abuse\r\nUser-Agent: Postrider-Sandbox/1.0\r\nVersion: 1\r\n\
            Original-Mail-From: <b-1@bounce.test>\r\nOriginal-Rcpt-To: <complaint@r.test>\r\n\
            Arrival-Date: Mon, 21 Sep 2026 14:13:20 +0000\r\nSource-IP: 192.0.2.1\r\n\
            Reporting-MTA: dns; mx.sandbox.test\r\nReported-Domain: acme.test\r\n";
        assert_eq!(parts[2].1, status);
    }

    #[test]
    fn addresses_beyond_ascii_are_spelled_out() {
        let text = report(ReportKind::Bounce, "gr\u{fc}n\\@r.test", RAW);
        assert!(text.contains("Final-Recipient: utf-8; gr\\x{FC}n\\x{5C}@r.test\r\n"));
    }

    #[test]
    fn whatever_the_mail_holds_a_report_can_be_sent() {
        let long = [b"A: ".as_slice(), &[b'x'; 70_000]].concat();
        for raw in [
            b"".as_slice(),
            b"\r\n",
            b"A\0B\rC\nD: \xff\r\n--=_abc1--\r\nMessage-ID: <a\0b@c>\r\n\r\n",
            b"Message-ID:",
            b"Message-ID: <>\r\n",
            b"Message-ID: no brackets\r\n",
            &long,
        ] {
            for kind in [ReportKind::Bounce, ReportKind::Complaint] {
                let text = report(kind, "a\r\nX: y@r.test", raw);
                assert!(text.is_ascii() && !text.contains("\r\nX:"), "{text}");
                for line in text.split("\r\n") {
                    assert!(line.len() <= LINE_MAX && !line.contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}
