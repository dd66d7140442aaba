//! The same load by turns on two platforms, one without and one with what is asked about: what the
//! machine does meanwhile falls on both.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Manner;
use super::super::args::BenchArgs;
use super::super::load::{Budget, Pace, Parcel};
use super::super::own_runs::OwnRuns;
use super::super::summary::{Spread, Summary, figures};
use super::{Answer, Pair, Question};

/// Length of one load, unless the command line says.
pub(super) const TIME_DEFAULT: Duration = Duration::from_secs(30);
/// Share of the most a platform delivers that an open loop sends.
const OPEN_LOOP_SHARE: f64 = 0.3;
/// For so long at most it is found out how much that is.
const MAXIMUM_TIME_MAX: Duration = Duration::from_secs(10);
const MAXIMUM_CONCURRENCY: usize = 64;
/// Messages of the search for the maximum have this number.
const MAXIMUM_RUN: u32 = 900_000;

/// How hard to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// A closed loop: all it can do.
    All,
    /// An open loop at 30 % of that.
    Share,
}

/// The pace for this effort: that of the command line, or found out on the platform.
///
/// # Errors
/// The platform does not answer.
pub(super) async fn pace(
    question: &Question<'_>,
    effort: Effort,
    runs: &OwnRuns<'_>,
) -> anyhow::Result<Pace> {
    if question.args.rate.is_some() || question.args.concurrency.is_some() || effort == Effort::All
    {
        return question.args.pace();
    }
    eprintln!("bench: finding out how much is delivered at most");
    let closed = Pace::Closed {
        concurrency: MAXIMUM_CONCURRENCY,
    };
    let time = question.time().min(MAXIMUM_TIME_MAX);
    let found = runs
        .measure(MAXIMUM_RUN, &manner(question, closed, time))
        .await?;
    let most = found
        .delivery
        .map_or(0.0, |delivery| delivery.delivered_per_s);
    let per_second = (most * OPEN_LOOP_SHARE).max(1.0).round();
    eprintln!("bench: {most:.0}/s; the load is {per_second:.0}/s");
    Ok(Pace::Open { per_second })
}

/// Runs the pairs, A before B.
///
/// # Errors
/// A platform does not answer.
pub(super) async fn run(
    question: &Question<'_>,
    pace: Pace,
    a: &OwnRuns<'_>,
    b: &OwnRuns<'_>,
) -> anyhow::Result<Vec<Pair>> {
    let manner = manner(question, pace, question.time());
    let mut pairs = Vec::new();
    for pair in 1..=question.args.pairs {
        if question.stop.is_requested() {
            break;
        }
        eprintln!("bench: pair {pair} of {}", question.args.pairs);
        let (a, b) = (
            a.measure(pair, &manner).await?,
            b.measure(pair, &manner).await?,
        );
        pairs.push(Pair { a, b });
    }
    Ok(pairs)
}

fn manner(question: &Question<'_>, pace: Pace, time: Duration) -> Manner {
    Manner {
        pace,
        parcel: Parcel::Single,
        budget: Budget {
            messages: None,
            time: Some(time),
        },
        stop: question.stop.clone(),
    }
}

/// The answer that pairs give.
///
/// # Errors
/// A run cannot be written as JSON.
pub(super) fn answer(
    scenario: &'static str,
    args: &BenchArgs,
    pace: Pace,
    pairs: Vec<Pair>,
) -> anyhow::Result<Answer> {
    Ok(Answer {
        scenario,
        queued: Some(args.queued),
        accounts: None,
        pace: Some(pace.to_string()),
        summary: compare(&pairs)?,
        pairs,
    })
}

fn compare(pairs: &[Pair]) -> anyhow::Result<Summary> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut before: BTreeMap<String, f64> = BTreeMap::new();
    let mut note = |side: &str, path: &str, value: f64| {
        let path = format!("{side}.{path}");
        values.entry(path).or_default().push(value);
    };
    for pair in pairs {
        let (a, b) = (figures(&pair.a)?, figures(&pair.b)?);
        for (path, of_a) in &a {
            note("a", path, *of_a);
            if let Some(of_b) = b.get(path).filter(|_| *of_a > 0.0) {
                note("ratio", path, of_b / of_a);
            }
            if let Some(earlier) = before.get(path).filter(|earlier| **earlier > 0.0) {
                note("noise", path, (of_a / earlier - 1.0).abs());
            }
        }
        for (path, of_b) in &b {
            note("b", path, *of_b);
        }
        before = a;
    }
    let spreads = values.into_iter();
    Ok(spreads
        .filter_map(|(path, values)| Some((path, Spread::of(values)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::super::report::tests::example;
    use super::*;

    #[test]
    fn pairs_are_compared_one_by_one() {
        let pair = |a, b| Pair {
            a: example(a),
            b: example(b),
        };
        let summary = compare(&[pair(100.0, 90.0), pair(200.0, 190.0), pair(100.0, 80.0)]).unwrap();
        let at = |path: &str| summary[&format!("{path}.delivery.delivered_per_s")].median;
        // The median of the ratios, not the ratio of the medians.
        assert_eq!((at("a"), at("b"), at("ratio")), (100.0, 90.0, 0.9));
        assert_eq!(at("noise"), 0.75);
    }
}
