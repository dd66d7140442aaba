//! Which of many numbered messages have come: the numbers of each series as bits, so that a
//! million take 125 KB, and what is missing can be told exactly.

use std::collections::BTreeMap;

use serde::Serialize;

/// Numbers that are followed, all series together; their bits take 64 MB.
const NUMBERS_MAX: u64 = 512 * 1024 * 1024;
/// Series that are followed.
const SERIES_MAX: usize = 1_000;
/// Missing numbers that are named.
const NAMED_MAX: usize = 20;
const BITS: u64 = 64;

/// All series, by what their ids begin with.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    series: BTreeMap<String, Series>,
    followed: u64,
}

/// The numbers of one series that have come.
#[derive(Debug, Default)]
struct Series {
    bits: Vec<u64>,
    came: u64,
    highest: u64,
}

/// What is known of one series.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct SeriesReport {
    /// The highest number that came.
    pub(super) highest: u64,
    /// Different numbers that came.
    pub(super) came: u64,
    /// Numbers from 0 to the highest that have not come.
    pub(super) missing: u64,
    /// The first of these.
    pub(super) first_missing: Vec<u64>,
}

impl Sequences {
    /// Notes an id such as `run7-123`: everything before the last hyphen names its series. Ids
    /// without a number, and more than can be followed, are passed over.
    pub(super) fn note(&mut self, id: &str) {
        let Some((name, number)) = id.rsplit_once('-') else {
            return;
        };
        let Ok(number) = number.parse::<u64>() else {
            return;
        };
        if !self.series.contains_key(name) {
            if self.series.len() >= SERIES_MAX {
                return;
            }
            self.series.insert(name.to_owned(), Series::default());
        }
        if let Some(series) = self.series.get_mut(name) {
            let room = NUMBERS_MAX - self.followed;
            self.followed += series.note(number, room);
        }
    }

    /// Numbers that have not come though a higher one of their series has.
    pub(super) fn missing(&self) -> u64 {
        self.series.values().map(Series::missing).sum()
    }

    /// Every series.
    pub(super) fn report(&self) -> BTreeMap<&str, SeriesReport> {
        let report = |series: &Series| SeriesReport {
            highest: series.highest,
            came: series.came,
            missing: series.missing(),
            first_missing: series.first_missing(),
        };
        self.series
            .iter()
            .map(|(name, series)| (name.as_str(), report(series)))
            .collect()
    }
}

impl Series {
    /// How many more numbers it follows now.
    fn note(&mut self, number: u64, room: u64) -> u64 {
        let (word, bit) = (number / BITS, 1_u64 << (number % BITS));
        let words = self.bits.len() as u64;
        // Memory is taken in steps, so that a growing series is not moved for every message.
        let wanted = (word + 1).max(words + words / 2);
        let more = if word < words { 0 } else { wanted - words };
        if more * BITS > room {
            return 0;
        }
        self.bits.resize((words + more) as usize, 0);
        let place = &mut self.bits[word as usize];
        self.came += u64::from(*place & bit == 0);
        *place |= bit;
        self.highest = self.highest.max(number);
        more * BITS
    }

    fn missing(&self) -> u64 {
        match self.came {
            0 => 0,
            came => self.highest + 1 - came,
        }
    }

    fn first_missing(&self) -> Vec<u64> {
        let is_missing = |number: &u64| {
            let word = self.bits.get((number / BITS) as usize);
            word.is_some_and(|word| word & (1 << (number % BITS)) == 0)
        };
        (0..self.highest)
            .filter(is_missing)
            .take(NAMED_MAX)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_by_series() {
        let mut sequences = Sequences::default();
        for id in ["a-0", "a-2", "a-2", "a-130", "b-c-1", "x", "a-y"] {
            sequences.note(id);
        }
        let report = sequences.report();
        assert_eq!(report.keys().copied().collect::<Vec<_>>(), ["a", "b-c"]);
        let a = &report["a"];
        assert_eq!((a.highest, a.came, a.missing), (130, 3, 128));
        assert_eq!(a.first_missing[..3], [1, 3, 4]);
        assert_eq!(report["b-c"].first_missing, [0]);
        assert_eq!(sequences.missing(), 129);
    }

    #[test]
    fn a_number_beyond_all_memory_is_passed_over() {
        let mut sequences = Sequences::default();
        sequences.note("a-5");
        sequences.note(&format!("a-{}", u64::MAX));
        sequences.note(&format!("b-{NUMBERS_MAX}"));
        assert_eq!(sequences.report()["a"].highest, 5);
        assert_eq!(sequences.missing(), 5);
    }
}
