//! Text that reads and compresses about as real mail does: words of a small vocabulary, among them
//! tokens as they stand in links. Pure; the same random numbers give the same text.

use rand::RngExt;
use rand::rngs::SmallRng;

/// Share of words that are random letters and digits, as the tokens in links are. Found by
/// trying: it brings the whole message to a zstd-1 ratio of 0.60 to 0.65, where real mail is.
const TOKEN_SHARE: f64 = 0.2;
/// Words in the vocabulary. Low numbers are drawn more often, as in any language.
const VOCABULARY_WORDS: usize = 600;
const LINE_OCTETS: usize = 68;
const PARAGRAPH_OCTETS: usize = 300;

const ONSETS: [&str; 17] = [
    "b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "ch",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ou", "ea"];
const CODAS: [&str; 8] = ["", "", "n", "r", "s", "t", "ng", "l"];
const SYLLABLES: [usize; 5] = [1, 1, 2, 2, 3];
const TOKEN_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The words that texts are made of.
#[derive(Debug, Clone)]
pub(super) struct Words {
    vocabulary: Vec<String>,
}

impl Words {
    pub(super) fn new(random: &mut SmallRng) -> Self {
        let vocabulary = (0..VOCABULARY_WORDS).map(|_| word(random)).collect();
        Self { vocabulary }
    }

    /// At least one word and about `octets` octets, in lines.
    pub(super) fn text(&self, random: &mut SmallRng, octets: usize) -> String {
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

    /// Paragraphs, about `octets` octets.
    pub(super) fn html(&self, random: &mut SmallRng, octets: usize) -> String {
        let mut out = String::with_capacity(octets + LINE_OCTETS);
        while out.len() < octets {
            let paragraph = PARAGRAPH_OCTETS.min(octets - out.len());
            out.push_str("<p>");
            out.push_str(&self.text(random, paragraph));
            out.push_str("</p>\r\n");
        }
        out
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
