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

#[cfg(test)]
mod tests {
    use super::*;

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
