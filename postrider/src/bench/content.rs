//! The messages of a benchmark: every one different, all the same for the same seed, and about as
//! compressible as real mail is. Pure.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// The header that carries the number of a message through the platform to the sink.
pub(super) const ID_HEADER: &str = "X-Bench-Id";

/// Share of words that are random letters and digits, as the tokens in links are. Found by
/// trying: it brings the whole message to a zstd-1 ratio of 0.60 to 0.65, where real mail is.
const TOKEN_SHARE: f64 = 0.2;
/// Words in the vocabulary. Low numbers are drawn more often, as in any language.
const VOCABULARY_WORDS: usize = 600;
/// Octets that a composed message has besides its text: header, MIME parts.
const FRAME_OCTETS: usize = 700;
const LINE_OCTETS: usize = 68;
const PARAGRAPH_OCTETS: usize = 300;

const ONSETS: [&str; 17] = [
    "b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "ch",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ou", "ea"];
const CODAS: [&str; 8] = ["", "", "n", "r", "s", "t", "ng", "l"];
const SYLLABLES: [usize; 5] = [1, 1, 2, 2, 3];
const TOKEN_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Where the messages come from and go to.
#[derive(Debug, Clone)]
pub(super) struct Correspondence {
    /// The sender.
    pub(super) from: String,
    /// Domain of the recipients.
    pub(super) to_domain: String,
    /// How many subdomains of it the recipients are spread over; 0: none, the domain itself.
    pub(super) subdomains: u32,
}

/// Makes the messages of one run.
#[derive(Debug, Clone)]
pub(super) struct Content {
    who: Correspondence,
    size: usize,
    seed: u64,
    run: u32,
    vocabulary: Vec<String>,
}

impl Content {
    /// Messages of about `size` octets when composed.
    pub(super) fn new(who: Correspondence, size: usize, seed: u64, run: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let vocabulary = (0..VOCABULARY_WORDS).map(|_| word(&mut random)).collect();
        Self {
            who,
            size,
            seed,
            run,
            vocabulary,
        }
    }

    /// The id of message `number`, as the sink will report it.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The number in an id of this run.
    pub(super) fn number(&self, id: &str) -> Option<u64> {
        let (run, number) = id.split_once('-')?;
        (run.parse() == Ok(self.run)).then(|| number.parse().ok())?
    }

    /// The body of the request that sends message `number`.
    pub(super) fn request(&self, number: u64) -> Vec<u8> {
        // Neighbouring numbers must not give related streams: the generator spreads its seed.
        let mut random = SmallRng::seed_from_u64(
            self.seed ^ (u64::from(self.run) << 40) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let body = self.size.saturating_sub(FRAME_OCTETS).max(2);
        let text = self.words(&mut random, body / 3);
        let mut html = String::with_capacity(body);
        while html.len() < body - body / 3 {
            let paragraph = PARAGRAPH_OCTETS.min(body - body / 3 - html.len());
            html.push_str("<p>");
            html.push_str(&self.words(&mut random, paragraph));
            html.push_str("</p>\r\n");
        }
        let request = json!({
            "from": format!("Bench <{}>", self.who.from),
            "to": [self.recipient(&mut random)],
            "subject": self.words(&mut random, 30),
            "text": text,
            "html": html,
            "headers": { ID_HEADER: self.id(number) },
            "tags": ["bench"],
        });
        request.to_string().into_bytes()
    }

    fn recipient(&self, random: &mut SmallRng) -> String {
        let Correspondence {
            to_domain,
            subdomains,
            ..
        } = &self.who;
        let user = random.random_range(0..100_000);
        match *subdomains {
            0 => format!("user{user}@{to_domain}"),
            count => format!("user{user}@d{}.{to_domain}", random.random_range(0..count)),
        }
    }

    /// At least one word and about `octets` octets, in lines.
    fn words(&self, random: &mut SmallRng, octets: usize) -> String {
        let mut out = String::with_capacity(octets + LINE_OCTETS);
        let mut line = 0;
        loop {
            let before = out.len();
            if random.random_bool(TOKEN_SHARE) {
                let length = random.random_range(8..25);
                out.extend(
                    (0..length).map(|_| char::from(TOKEN_ALPHABET[random.random_range(0..62)])),
                );
            } else {
                let skewed = random.random::<f64>().powi(2) * self.vocabulary.len() as f64;
                out.push_str(&self.vocabulary[skewed as usize]);
            }
            line += out.len() - before + 1;
            if out.len() >= octets {
                return out;
            }
            // A subject stays on one line.
            if line > LINE_OCTETS && octets > LINE_OCTETS {
                out.push_str("\r\n");
                line = 0;
            } else {
                out.push(' ');
            }
        }
    }
}

fn word(random: &mut SmallRng) -> String {
    let mut pick = |from: &[&'static str]| from[random.random_range(0..from.len())];
    let syllable = [pick(&ONSETS), pick(&VOWELS), pick(&CODAS)].concat();
    let more = SYLLABLES[random.random_range(0..SYLLABLES.len())] - 1;
    (0..more).fold(syllable, |word, _| {
        let mut pick = |from: &[&'static str]| from[random.random_range(0..from.len())];
        [word.as_str(), pick(&ONSETS), pick(&VOWELS), pick(&CODAS)].concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::compose::{ComposeContext, compose};
    use mail::domain_name::DomainName;
    use mail::ids::{MessageId, uuid_v7};
    use mail::message::{Limits, Message};
    use time::macros::datetime;

    fn content(seed: u64) -> Content {
        let who = Correspondence {
            from: "bench@bench.test".to_owned(),
            to_domain: "sink.test".to_owned(),
            subdomains: 20,
        };
        Content::new(who, 5_120, seed, 3)
    }

    fn composed(request: &[u8], number: u64) -> Vec<u8> {
        let request = serde_json::from_slice(request).unwrap();
        let message = Message::parse(request, &Limits::default()).unwrap();
        let context = ComposeContext {
            message_id: MessageId::from_uuid(uuid_v7(1_700_000_000_000 + number, [0; 10])),
            date: datetime!(2026-11-22 12:00 UTC),
            message_id_domain: &DomainName::parse("bench.test").unwrap(),
        };
        compose(&message, &context).unwrap().bytes
    }

    #[test]
    fn composed_messages_have_the_size_and_ratio_of_real_mail() {
        let content = content(1);
        let (mut octets, mut compressed) = (0, 0);
        for number in 0..200 {
            let bytes = composed(&content.request(number), number);
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
    fn messages_differ_and_repeat_with_their_seed() {
        let one = content(7);
        let requests: std::collections::HashSet<_> = (0..500).map(|n| one.request(n)).collect();
        assert_eq!(requests.len(), 500);
        assert_eq!(content(7).request(42), one.request(42));
        assert_ne!(content(8).request(42), one.request(42));
    }

    #[test]
    fn ids_are_read_back_and_other_runs_are_told_apart() {
        let content = content(1);
        assert_eq!(content.number(&content.id(42)), Some(42));
        assert_eq!((content.number("2-42"), content.number("x")), (None, None));
        let bytes = composed(&content.request(42), 42);
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .contains("X-Bench-Id: 3-42\r\n")
        );
    }

    #[test]
    fn any_size_gives_a_message() {
        for size in [0, 1, 800, 100_000] {
            let who = Correspondence {
                subdomains: 0,
                ..content(1).who
            };
            composed(&Content::new(who, size, 1, 1).request(1), 1);
        }
    }
}
