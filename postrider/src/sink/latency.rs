//! How long a sink waits before the final reply: distributions, parsed and drawn. Nothing waits
//! here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::RngExt;

/// Longest wait that can be asked for.
const WAIT_MAX: Duration = Duration::from_mins(60);

/// Wait before the final reply to a message.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Latency {
    #[default]
    None,
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential {
        mean: Duration,
    },
    /// Never below zero.
    Normal {
        mean: Duration,
        deviation: Duration,
    },
}

impl Latency {
    /// Draws one wait.
    pub(crate) fn draw(self) -> Option<Duration> {
        // 1 - x is never zero for x in [0, 1), so its logarithm is a number.
        let open_interval = || 1.0 - rand::random::<f64>();
        match self {
            Self::None => None,
            Self::Fixed(wait) => Some(wait),
            Self::Uniform(from, to) => Some(rand::rng().random_range(from..=to)),
            // Inverse of the distribution function.
            Self::Exponential { mean } => Some(bounded(mean.as_secs_f64() * -open_interval().ln())),
            // Box and Muller.
            Self::Normal { mean, deviation } => {
                let radius = (-2.0 * open_interval().ln()).sqrt();
                let turn = std::f64::consts::TAU * rand::random::<f64>();
                let drawn = mean.as_secs_f64() + deviation.as_secs_f64() * radius * turn.cos();
                Some(bounded(drawn))
            }
        }
    }
}

fn bounded(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, WAIT_MAX.as_secs_f64()))
}

impl FromStr for Latency {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(mean) = text.strip_prefix("exp:") {
            let mean = wait(mean)?;
            return Ok(Self::Exponential { mean });
        }
        if let Some(shape) = text.strip_prefix("normal:") {
            let (mean, deviation) = shape.split_once('/').with_context(|| {
                format!("latency {text}: write mean and deviation like normal:50ms/10ms")
            })?;
            let (mean, deviation) = (wait(mean)?, wait(deviation)?);
            return Ok(Self::Normal { mean, deviation });
        }
        if let Some((from, to)) = text.split_once('-') {
            let (from, to) = (wait(from)?, wait(to)?);
            ensure!(
                from <= to,
                "latency {text}: the first value must not be the larger one"
            );
            return Ok(Self::Uniform(from, to));
        }
        wait(text).map(Self::Fixed)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(wait) => write!(f, "{}ms", wait.as_millis()),
            Self::Uniform(from, to) => write!(f, "{}ms-{}ms", from.as_millis(), to.as_millis()),
            Self::Exponential { mean } => write!(f, "exp:{}ms", mean.as_millis()),
            Self::Normal { mean, deviation } => {
                let (mean, deviation) = (mean.as_millis(), deviation.as_millis());
                write!(f, "normal:{mean}ms/{deviation}ms")
            }
        }
    }
}

/// A time such as `20ms` or `2s`; a bare number is milliseconds.
///
/// # Errors
/// It is none, or longer than an hour.
pub(super) fn wait(text: &str) -> anyhow::Result<Duration> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => match text.strip_suffix('s') {
            Some(digits) => (digits, 1000),
            None => (text, 1),
        },
    };
    let value: u64 = digits
        .parse()
        .with_context(|| format!("{text:?} is not a time such as 20ms or 2s"))?;
    let wait = Duration::from_millis(value.saturating_mul(unit));
    ensure!(wait <= WAIT_MAX, "{text} is longer than an hour");
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_and_shown_alike() {
        for text in ["none", "20ms", "10ms-50ms", "exp:20ms", "normal:50ms/10ms"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        assert_eq!(
            "2s".parse::<Latency>().unwrap(),
            Latency::Fixed(Duration::from_secs(2))
        );
        for bad in [
            "",
            "fast",
            "50ms-10ms",
            "exp:",
            "normal:5ms",
            "-1",
            "99999999s",
        ] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
    }

    #[test]
    fn latencies_are_drawn_from_their_distribution() {
        let (from, to) = (Duration::from_millis(10), Duration::from_millis(20));
        for _ in 0..100 {
            let wait = Latency::Uniform(from, to).draw().unwrap();
            assert!((from..=to).contains(&wait));
        }
        let draws = |latency: Latency| -> Vec<f64> {
            let draw = |_| latency.draw().unwrap().as_secs_f64() * 1e3;
            (0..20_000).map(draw).collect()
        };
        let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (mean, deviation) = (Duration::from_millis(10), Duration::from_millis(2));
        let exponential = average(&draws(Latency::Exponential { mean }));
        assert!((9.0..11.0).contains(&exponential), "{exponential}");
        let normal = draws(Latency::Normal { mean, deviation });
        let centre = average(&normal);
        let squares: Vec<_> = normal.iter().map(|x| (x - centre).powi(2)).collect();
        let spread = average(&squares).sqrt();
        assert!((9.8..10.2).contains(&centre), "{centre}");
        assert!((1.9..2.1).contains(&spread), "{spread}");
    }
}
