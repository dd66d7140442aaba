//! The messages of a benchmark: every one different, all the same for the same seed, and about as
//! compressible as real mail is. They are made before the load begins: a ring of request bodies in
//! bounded memory, in which only the number of the message, its recipient and its domain are
//! written anew. Pure.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;

use super::words::Words;

/// The header that carries the number of a message through the platform to the sink.
pub(super) const ID_HEADER: &str = "X-Bench-Id";

/// Octets that a composed message has besides its text: header, MIME parts.
const FRAME_OCTETS: usize = 750;
const SUBJECT_OCTETS: usize = 30;
/// Memory of the ring, about, and how many bodies it has at least and at most. A debug build would
/// take seconds to fill it.
const RING_OCTETS_MAX: usize = if cfg!(test) { 1 << 20 } else { 24 << 20 };
const RING_BODIES: std::ops::RangeInclusive<usize> = 16..=4_096;

/// Places to write into. No word has a hyphen or an @, so they cannot be found elsewhere.
const ID_PLACE: &str = "0000000000-000000000000";
const RUN_DIGITS: usize = 10;
const USER_PLACE: &str = "user00000@";
const DOMAIN_PLACE: &str = "@d00000.";
const SENDER_PLACE: &str = "@s00000.";
/// Different local parts.
const USERS: u64 = 100_000;
/// Recipient domains at most: what five digits can tell apart.
pub(super) const DOMAINS_MAX: u32 = 100_000;

/// Where the messages come from and go to.
#[derive(Debug, Clone)]
pub(super) struct Correspondence {
    /// The sender; of many, each has a subdomain of its own.
    pub(super) from: String,
    /// How many senders take turns, one message each.
    pub(super) senders: u32,
    /// Domain of the recipients.
    pub(super) to_domain: String,
    /// How many domains the recipients are spread over: more than one are subdomains of it.
    pub(super) domains: u32,
}

/// Makes the messages of one run.
#[derive(Debug, Clone)]
pub(super) struct Content {
    run: u32,
    domains: u32,
    senders: u32,
    ring: Vec<Body>,
}

/// The body of one request, with what has to be written into it.
#[derive(Debug, Clone)]
struct Body {
    octets: Vec<u8>,
    id_at: Vec<usize>,
    user_at: usize,
    /// None where there is one domain.
    domain_at: Option<usize>,
    /// None where there is one sender.
    sender_at: Option<usize>,
}

impl Content {
    /// Messages of about `size` octets when composed; takes some tenths of a second.
    pub(super) fn new(who: &Correspondence, size: usize, seed: u64, run: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let words = Words::new(&mut random);
        let bodies = RING_OCTETS_MAX / size.max(1);
        let bodies = bodies.clamp(*RING_BODIES.start(), *RING_BODIES.end());
        let ring = (0..bodies).map(|_| Body::new(who, size, &words, &mut random));
        Self {
            run,
            domains: who.domains.clamp(1, DOMAINS_MAX),
            senders: who.senders.max(1),
            ring: ring.collect(),
        }
    }

    /// What the ids of this run begin with, before the last hyphen.
    pub(super) fn series(&self) -> String {
        format!("{:010}", self.run)
    }

    /// The number in an id of this run.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        let (run, number) = id.split_once('-')?;
        (run.parse() == Ok(self.run)).then(|| number.parse().ok())?
    }

    /// The body of the request that sends message `number`.
    pub(super) fn single(&self, number: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body(number).octets.len());
        self.append(number, &mut out);
        out
    }

    /// The body of the request that sends so many messages from `first` on.
    pub(super) fn batch(&self, first: u64, count: u64) -> Vec<u8> {
        let octets: usize = (first..first + count)
            .map(|number| self.body(number).octets.len() + 1)
            .sum();
        let mut out = Vec::with_capacity(octets + 1);
        let mut before = b'[';
        for number in first..first + count {
            out.push(before);
            self.append(number, &mut out);
            before = b',';
        }
        out.push(b']');
        out
    }

    fn body(&self, number: u64) -> &Body {
        &self.ring[(number % self.ring.len() as u64) as usize]
    }

    fn append(&self, number: u64, out: &mut Vec<u8>) {
        let body = self.body(number);
        let start = out.len();
        out.extend_from_slice(&body.octets);
        let written = &mut out[start..];
        for at in &body.id_at {
            write_number(written, at + RUN_DIGITS, u64::from(self.run));
            write_number(written, at + ID_PLACE.len(), number);
        }
        // The user changes slower than the domain, so that the two do not go in step.
        let user = (number / u64::from(self.domains)) % USERS;
        write_number(written, body.user_at + USER_PLACE.len() - 1, user);
        if let Some(at) = body.domain_at {
            let domain = number % u64::from(self.domains);
            write_number(written, at + DOMAIN_PLACE.len() - 1, domain);
        }
        if let Some(at) = body.sender_at {
            let sender = number % u64::from(self.senders);
            write_number(written, at + SENDER_PLACE.len() - 1, sender);
        }
    }
}

impl Body {
    fn new(who: &Correspondence, size: usize, words: &Words, random: &mut SmallRng) -> Self {
        let octets = size.saturating_sub(FRAME_OCTETS).max(2);
        let domain = match who.domains {
            0 | 1 => format!("@{}", who.to_domain),
            _ => format!("{DOMAIN_PLACE}{}", who.to_domain),
        };
        let from = match who.senders {
            0 | 1 => who.from.clone(),
            _ => who.from.replacen('@', SENDER_PLACE, 1),
        };
        let text = words.text(random, octets / 3);
        let html = words.html(random, octets - octets / 3);
        let request = json!({
            "from": format!("Bench <{from}>"),
            "to": [format!("{}{domain}", USER_PLACE.trim_end_matches('@'))],
            "subject": words.text(random, SUBJECT_OCTETS),
            // Also in the text: no two bodies hash alike.
            "text": format!("{ID_PLACE} {text}"),
            "html": format!("<p>{ID_PLACE}</p>{html}"),
            "headers": { ID_HEADER: ID_PLACE },
            "tags": ["bench"],
        });
        let octets = request.to_string().into_bytes();
        Self {
            id_at: places(&octets, ID_PLACE),
            user_at: places(&octets, USER_PLACE)
                .into_iter()
                .next()
                .unwrap_or_default(),
            domain_at: places(&octets, DOMAIN_PLACE).into_iter().next(),
            sender_at: places(&octets, SENDER_PLACE).into_iter().next(),
            octets,
        }
    }
}

fn places(octets: &[u8], place: &str) -> Vec<usize> {
    let windows = octets.windows(place.len()).enumerate();
    windows
        .filter(|(_, window)| *window == place.as_bytes())
        .map(|(at, _)| at)
        .collect()
}

/// Writes over the zeros before `end`, from the last digit to the first.
fn write_number(octets: &mut [u8], end: usize, mut number: u64) {
    let mut at = end;
    while number > 0 && at > 0 {
        at -= 1;
        octets[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::compose::{ComposeContext, compose};
    use mail::domain_name::DomainName;
    use mail::ids::{MessageId, uuid_v7};
    use mail::message::{Limits, Message};
    use std::collections::HashSet;
    use time::macros::datetime;

    fn content(size: usize, domains: u32, seed: u64) -> Content {
        let who = Correspondence {
            from: "bench@bench.test".to_owned(),
            to_domain: "sink.test".to_owned(),
            domains,
            senders: 1,
        };
        Content::new(&who, size, seed, 3)
    }

    fn parsed(request: &[u8]) -> Message {
        let request = serde_json::from_slice(request).unwrap();
        Message::parse(request, &Limits::default()).unwrap()
    }

    fn composed(request: &[u8], number: u64) -> Vec<u8> {
        let context = ComposeContext {
            message_id: MessageId::from_uuid(uuid_v7(1_700_000_000_000 + number, [0; 10])),
            date: datetime!(2026-11-22 12:00 UTC),
            message_id_domain: &DomainName::parse("bench.test").unwrap(),
        };
        compose(&parsed(request), &context).unwrap().bytes
    }

    #[test]
    fn composed_messages_have_the_size_and_ratio_of_real_mail() {
        let content = content(5_120, 1, 1);
        let (mut octets, mut compressed) = (0, 0);
        for number in 0..200 {
            let bytes = composed(&content.single(number), number);
            assert!((4_600..5_700).contains(&bytes.len()), "{}", bytes.len());
            octets += bytes.len();
            compressed += zstd::bulk::compress(&bytes, 1).unwrap().len();
        }
        let ratio = compressed as f64 / octets as f64;
        assert!((0.60..=0.65).contains(&ratio), "{ratio}");
        let mean = octets / 200;
        assert!((4_900..5_350).contains(&mean), "{mean}");
    }

    #[test]
    fn sizes_are_kept_from_one_kilobyte_to_many() {
        for size in [1_024, 51_200, 512_000] {
            let content = content(size, 1, 1);
            let mean = (0..16).map(|n| composed(&content.single(n), n).len());
            let mean = mean.sum::<usize>() as f64 / 16.0;
            let off = mean / size as f64;
            assert!((0.9..1.1).contains(&off), "{size}: {mean}");
            let octets: usize = content.ring.iter().map(|body| body.octets.len()).sum();
            assert!(octets < 10 * RING_OCTETS_MAX, "{size}: {octets}");
        }
        composed(&content(0, 1, 1).single(1), 1);
    }

    #[test]
    fn messages_differ_once_round_the_ring_and_repeat_with_their_seed() {
        let one = content(50_000, 1, 7);
        let round = one.ring.len() as u64;
        let requests: HashSet<_> = (0..3 * round).map(|n| one.single(n)).collect();
        assert_eq!(requests.len() as u64, 3 * round);
        assert_eq!(content(50_000, 1, 7).single(42), one.single(42));
        assert_ne!(content(50_000, 1, 8).single(42), one.single(42));
    }

    #[test]
    fn ids_are_read_back_and_other_runs_are_told_apart() {
        let content = content(5_120, 1, 1);
        assert_eq!(content.number("0000000003-000000000042"), Some(42));
        assert_eq!(content.series(), "0000000003");
        assert_eq!((content.number("2-42"), content.number("x")), (None, None));
        let text = String::from_utf8(composed(&content.single(42), 42)).unwrap();
        assert!(text.contains("X-Bench-Id: 0000000003-000000000042\r\n"));
        assert_eq!(text.matches("0000000003-000000000042").count(), 3);
    }

    #[test]
    fn recipients_are_spread_over_the_domains() {
        for (domains, round) in [(1, 5), (100, 100), (DOMAINS_MAX, 100_000)] {
            let content = content(300, domains, 1);
            let domain = |number| {
                let request = parsed(&content.single(number));
                request.recipients().next().unwrap().domain().to_string()
            };
            let found: HashSet<_> = (0..round).step_by(7).map(domain).collect();
            let expected = if domains == 1 { 1 } else { round.div_ceil(7) };
            assert_eq!(found.len() as u64, expected, "{domains}");
            assert!(found.iter().all(|name| name.ends_with("sink.test")));
        }
    }

    #[test]
    fn senders_take_turns() {
        let who = Correspondence {
            from: "bench@bench.test".to_owned(),
            to_domain: "sink.test".to_owned(),
            domains: 1,
            senders: 3,
        };
        let content = Content::new(&who, 50_000, 1, 1);
        let from = |number| parsed(&content.single(number)).from().address().to_string();
        let expected = [0, 1, 2, 0].map(|sender| format!("bench@s0000{sender}.bench.test"));
        assert_eq!([3, 4, 5, 6].map(from), expected);
    }

    #[test]
    fn a_batch_is_the_messages_one_after_another() {
        let content = content(1_024, 100, 1);
        let batch: Vec<serde_json::Value> = serde_json::from_slice(&content.batch(10, 3)).unwrap();
        let alone = |number| serde_json::from_slice(&content.single(number)).unwrap();
        let expected: Vec<serde_json::Value> = (10..13).map(alone).collect();
        assert_eq!(batch, expected);
    }
}
