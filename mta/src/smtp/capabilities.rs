//! What a server offered in its EHLO reply (RFC 5321 section 4.1.1.1). Pure.

/// The extensions a server offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SIZE (RFC 1870): offered at all.
    pub size: bool,
    /// Largest message in octets the server says it takes; nothing if it states no limit.
    pub size_max: Option<u64>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// LIMITS (RFC 9422).
    pub limits: Limits,
}

/// The limits of RFC 9422; nothing where the server stated none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Messages per session.
    pub mail_max: Option<u32>,
    /// Recipients per transaction.
    pub rcpt_max: Option<u32>,
    /// Different recipient domains per transaction.
    pub rcpt_domain_max: Option<u32>,
}

impl Capabilities {
    /// Reads the lines of an EHLO reply, without codes. The first line is the server's name.
    /// Unknown keywords and malformed parameters are ignored.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for line in lines.into_iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SIZE" => {
                    found.size = true;
                    // Zero means no fixed limit (RFC 1870 section 4).
                    let octets = words.next().and_then(|octets| octets.parse().ok());
                    found.size_max = octets.filter(|octets| *octets > 0);
                }
                "SMTPUTF8" => found.smtputf8 = true,
                "ENHANCEDSTATUSCODES" => found.enhanced_status_codes = true,
                "STARTTLS" => found.starttls = true,
                "CHUNKING" => found.chunking = true,
                "DSN" => found.dsn = true,
                "REQUIRETLS" => found.require_tls = true,
                "LIMITS" => found.limits = Limits::parse(words),
                _ => {}
            }
        }
        found
    }
}

impl Limits {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut limits = Self::default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().ok().filter(|value| *value > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => limits.mail_max = value,
                "RCPTMAX" => limits.rcpt_max = value,
                "RCPTDOMAINMAX" => limits.rcpt_domain_max = value,
                _ => {}
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_extensions_are_known_in_any_case() {
        let lines = [
            "mx.example PIPELINING",
            "size 1000",
            "8bitmime",
            "LIMITS MAILMAX=5 RCPTMAX=x",
            "X-NEW thing",
        ];
        let found = Capabilities::parse(lines);
        let limits = Limits {
            mail_max: Some(5),
            ..Limits::default()
        };
        let expected = Capabilities {
            size: true,
            size_max: Some(1000),
            eight_bit_mime: true,
            limits,
            ..Capabilities::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn size_zero_or_nonsense_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE 99999999999999999999999", "SIZE big"] {
            let found = Capabilities::parse(["mx", line]);
            assert!(found.size && found.size_max.is_none(), "{line}");
        }
    }
}
