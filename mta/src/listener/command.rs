//! SMTP command lines as types. Pure: a line in, a command or the reply that refuses it out.

use super::handler::{HandlerReply, MailFrom};

/// A well-formed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Ehlo(String),
    Helo(String),
    Mail(MailFrom),
    Rcpt(String),
    Data,
    Bdat { octets: u64, last: bool },
    StartTls,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
}

/// Longest path: 256 octets with its brackets (RFC 5321 section 4.5.3.1.3).
const PATH_BYTES_MAX: usize = 256;

impl Command {
    /// Parses a line without its CRLF.
    pub(super) fn parse(line: &[u8]) -> Result<Self, HandlerReply> {
        let text = std::str::from_utf8(line).map_err(|_| syntax("Invalid UTF-8 in command"))?;
        if text
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(syntax("Control character in command"));
        }
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let argument = rest.trim_start_matches(' ');
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => helo_name(argument).map(Self::Ehlo),
            "HELO" => helo_name(argument).map(Self::Helo),
            "MAIL" => parse_mail(argument).map(Self::Mail),
            "RCPT" => parse_rcpt(argument).map(Self::Rcpt),
            "DATA" => no_argument(argument, Self::Data),
            "BDAT" => parse_bdat(argument),
            "STARTTLS" => no_argument(argument, Self::StartTls),
            "RSET" => no_argument(argument, Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Vrfy),
            "HELP" => Ok(Self::Help),
            "QUIT" => no_argument(argument, Self::Quit),
            _ => Err(HandlerReply::new(
                500,
                Some((5, 5, 1)),
                "Command not recognized",
            )),
        }
    }
}

fn syntax(text: &'static str) -> HandlerReply {
    HandlerReply::new(500, Some((5, 5, 2)), text)
}

fn bad_argument(text: &'static str) -> HandlerReply {
    HandlerReply::new(501, Some((5, 5, 4)), text)
}

fn no_argument(argument: &str, command: Command) -> Result<Command, HandlerReply> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(bad_argument("No argument allowed"))
    }
}

fn helo_name(argument: &str) -> Result<String, HandlerReply> {
    let name = argument.split(' ').next().unwrap_or_default();
    if name.is_empty() || name.len() > 255 {
        return Err(bad_argument("Host name required"));
    }
    Ok(name.to_owned())
}

fn parse_bdat(argument: &str) -> Result<Command, HandlerReply> {
    let (octets, tail) = argument.split_once(' ').unwrap_or((argument, ""));
    let last = match tail.trim_start() {
        "" => false,
        tail if tail.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(bad_argument("Only LAST may follow the chunk size").then_close()),
    };
    // Closed on failure: without the size nobody knows where commands begin again.
    let octets = parse_octets(octets)
        .ok_or_else(|| bad_argument("Chunk size is not a number").then_close())?;
    Ok(Command::Bdat { octets, last })
}

fn parse_octets(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if only_digits {
        digits.parse().ok()
    } else {
        None
    }
}

fn parse_mail(argument: &str) -> Result<MailFrom, HandlerReply> {
    let argument =
        after_keyword(argument, "FROM:").ok_or_else(|| bad_argument("Use MAIL FROM:<address>"))?;
    let (path, parameters) = split_path(argument)?;
    let mut mail = MailFrom {
        address: path.to_owned(),
        size: None,
        eight_bit: false,
        smtputf8: false,
    };
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.to_ascii_uppercase().as_str() {
            "SIZE" => {
                let octets = parse_octets(value);
                mail.size = Some(octets.ok_or_else(|| bad_argument("Bad SIZE value"))?);
            }
            "BODY" if value.eq_ignore_ascii_case("8BITMIME") => mail.eight_bit = true,
            "BODY" if value.eq_ignore_ascii_case("7BIT") => {}
            "SMTPUTF8" if value.is_empty() => mail.smtputf8 = true,
            _ => {
                return Err(HandlerReply::new(
                    555,
                    Some((5, 5, 4)),
                    "Unsupported parameter",
                ));
            }
        }
    }
    if !path.is_empty() {
        check_mailbox(path, (5, 1, 7))?;
    }
    Ok(mail)
}

fn parse_rcpt(argument: &str) -> Result<String, HandlerReply> {
    let argument =
        after_keyword(argument, "TO:").ok_or_else(|| bad_argument("Use RCPT TO:<address>"))?;
    let (path, parameters) = split_path(argument)?;
    if !parameters.is_empty() {
        return Err(HandlerReply::new(
            555,
            Some((5, 5, 4)),
            "Unsupported parameter",
        ));
    }
    // The one recipient without a domain that must be accepted (RFC 5321 section 4.1.1.3).
    if !path.eq_ignore_ascii_case("postmaster") {
        check_mailbox(path, (5, 1, 3))?;
    }
    Ok(path.to_owned())
}

fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let head = argument.get(..keyword.len())?;
    // A space after the colon is wrong but common; it cannot be misread.
    head.eq_ignore_ascii_case(keyword)
        .then(|| argument[keyword.len()..].trim_start_matches(' '))
}

/// Splits `<path> parameters`, minding that a quoted local part may hold `>` and spaces.
fn split_path(argument: &str) -> Result<(&str, &str), HandlerReply> {
    let refused = || bad_argument("Address must stand in angle brackets");
    let inner = argument.strip_prefix('<').ok_or_else(refused)?;
    let mut quoted = false;
    let mut escaped = false;
    let end = inner.char_indices().find_map(|(at, character)| {
        let ends = character == '>' && !quoted;
        if escaped {
            escaped = false;
        } else if quoted && character == '\\' {
            escaped = true;
        } else if character == '"' {
            quoted = !quoted;
        }
        ends.then_some(at)
    });
    let end = end.ok_or_else(refused)?;
    let tail = &inner[end + 1..];
    if !tail.is_empty() && !tail.starts_with(' ') {
        return Err(refused());
    }
    if end + 2 > PATH_BYTES_MAX {
        return Err(bad_argument("Path too long"));
    }
    Ok((strip_route(&inner[..end]), tail.trim_start_matches(' ')))
}

/// Source routes are accepted and ignored (RFC 5321 appendix C).
fn strip_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, mailbox)) if route.starts_with('@') => mailbox,
        _ => path,
    }
}

/// Rough check that a mailbox has a local part and a domain; existence is the handler's question.
fn check_mailbox(path: &str, enhanced: (u8, u16, u16)) -> Result<(), HandlerReply> {
    let well_formed = path.rsplit_once('@').is_some_and(|(local, domain)| {
        let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
        let local_ok = quoted || !local.contains([' ', '"', '<', '>', '@', '\t']);
        let domain_ok = !domain.contains([' ', '"', '<', '>', '(', ')', ',', '\t']);
        !local.is_empty() && !domain.is_empty() && local_ok && domain_ok
    });
    if well_formed {
        Ok(())
    } else {
        Err(HandlerReply::new(501, Some(enhanced), "Bad address syntax"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u16 {
        Command::parse(line.as_bytes()).map_or_else(|reply| reply.code, |_| 0)
    }

    fn mail(address: &str) -> MailFrom {
        MailFrom {
            address: address.into(),
            size: None,
            eight_bit: false,
            smtputf8: false,
        }
    }

    #[test]
    fn commands_are_read_in_any_case() {
        let parse = |line: &str| Command::parse(line.as_bytes()).unwrap();
        assert_eq!(parse("ehlo mx.example"), Command::Ehlo("mx.example".into()));
        assert_eq!(parse("mail from:<>"), Command::Mail(mail("")));
        assert_eq!(
            parse("MAIL FROM: <a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8"),
            Command::Mail(MailFrom {
                size: Some(10),
                eight_bit: true,
                smtputf8: true,
                ..mail("a@b.example")
            })
        );
        assert_eq!(
            parse("RCPT TO:<\"a>b c\"@d.example>"),
            Command::Rcpt("\"a>b c\"@d.example".into())
        );
        assert_eq!(
            parse("RCPT TO:<@x.example,@y.example:a@b.example>"),
            Command::Rcpt("a@b.example".into())
        );
        assert_eq!(
            parse("RCPT TO:<Postmaster>"),
            Command::Rcpt("Postmaster".into())
        );
        assert_eq!(
            parse("bdat 12 last"),
            Command::Bdat {
                octets: 12,
                last: true
            }
        );
        assert_eq!(parse("DATA "), Command::Data);
    }

    #[test]
    fn malformed_commands_are_refused_with_a_fitting_code() {
        for (line, expected) in [
            ("", 500),
            ("XYZZY", 500),
            ("EHLO c\0.example", 500),
            ("EHLO", 501),
            ("MAIL FROM:a@b.example", 501),
            ("MAIL FROM:<a@b.example", 501),
            ("MAIL FROM:<a@b.example>SIZE=1", 501),
            ("MAIL FROM:<a@b.example> SIZE=99999999999999999999999", 501),
            ("MAIL FROM:<a@b.example> SIZE=-1", 501),
            ("MAIL FROM:<a@b.example> XFOO=1", 555),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<nobody>", 501),
            ("RCPT TO:<a b@c.example>", 501),
            ("DATA now", 501),
            ("BDAT x", 501),
            ("BDAT +1 LAST", 501),
        ] {
            assert_eq!(code(line), expected, "{line:?}");
        }
        assert_eq!(
            code(&format!("RCPT TO:<{}@b.example>", "a".repeat(300))),
            501
        );
    }
}
