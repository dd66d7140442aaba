//! Percentiles of what was measured. Exact: every sample is kept. Pure.

use serde::Serialize;

/// The usual points of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Percentiles {
    /// Of these samples, in milliseconds; `None` when there are none.
    pub(super) fn of(mut samples_ms: Vec<f64>) -> Option<Self> {
        samples_ms.sort_unstable_by(f64::total_cmp);
        let max = *samples_ms.last()?;
        // The smallest sample that is not below the given share of all (nearest rank).
        let at = |share: f64| {
            let rank = (share * samples_ms.len() as f64).ceil() as usize;
            samples_ms[rank.clamp(1, samples_ms.len()) - 1]
        };
        Some(Self {
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max,
        })
    }
}

/// The middle value; of an even number the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!((median(vec![7.0]), median(Vec::new())), (Some(7.0), None));
    }

    #[test]
    fn percentiles_are_samples() {
        assert_eq!(Percentiles::of(Vec::new()), None);
        let found = Percentiles::of((1..=1_000).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            found,
            Percentiles {
                p50: 500.0,
                p90: 900.0,
                p99: 990.0,
                max: 1_000.0
            }
        );
        let one = Percentiles::of(vec![7.0]).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
    }
}
