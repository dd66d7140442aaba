//! Figures by name, each with its median and spread: read from what `postrider bench` wrote, made
//! of single values, written to a file and read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::shell::{Failure, Outcome};

/// Names of figures that several files look at.
pub(super) const ACCEPTED: &str = "accepted_per_s";
pub(super) const DELIVERED: &str = "delivery.delivered_per_s";
pub(super) const CPU: &str = "cost.platform_cpu_us_per_message";
pub(super) const SIGNATURES: &str = "cost.machine.rsa_2048_signatures_per_s";
pub(super) const SHARE: &str = "delivered_per_signature";

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// The figures of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, Spread>);

impl Figures {
    /// The median of a figure.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.spread(name).map(|spread| spread.median)
    }

    pub(super) fn spread(&self, name: &str) -> Option<Spread> {
        self.0.get(name).copied()
    }

    /// Names that begin with this, without it.
    pub(super) fn below<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let named = self.0.iter();
        named.filter_map(move |(name, spread)| Some((name.strip_prefix(start)?, spread.median)))
    }

    /// The figures of runs, each a list of names and values; those that all have.
    pub(super) fn of_runs(runs: &[Vec<(String, f64)>]) -> Self {
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in runs.iter().flatten() {
            values.entry(name.clone()).or_default().push(*value);
        }
        let complete = values
            .into_iter()
            .filter(|(_, values)| values.len() == runs.len());
        Self(
            complete
                .map(|(name, values)| (name, Spread::of(values)))
                .collect(),
        )
    }

    /// The `summary` of a file that `postrider bench` wrote.
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let written = read_json(path)?;
        Self::from_json(&written["summary"])
            .ok_or_else(|| Failure::new(format!("{} holds no summary", path.display())))
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        let spread = |value: &Value| {
            let at = |name: &str| value[name].as_f64();
            Some(Spread {
                median: at("median")?,
                min: at("min")?,
                max: at("max")?,
            })
        };
        let figures = members
            .iter()
            .map(|(name, value)| Some((name.clone(), spread(value)?)));
        Some(Self(figures.collect::<Option<_>>()?))
    }

    pub(super) fn to_json(&self) -> Value {
        let member = |(name, spread): (&String, &Spread)| {
            let Spread { median, min, max } = spread;
            (
                name.clone(),
                json!({"median": median, "min": min, "max": max}),
            )
        };
        Value::Object(self.0.iter().map(member).collect::<Map<_, _>>())
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        Self {
            median: f64::midpoint(values[low], values[high]),
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}

/// The JSON in a file.
pub(super) fn read_json(path: &Path) -> Outcome<Value> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("could not read {}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{} is not JSON: {error}", path.display())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures of one run.
    pub(in super::super) fn figures(values: &[(&str, f64)]) -> Figures {
        let named = |(name, value): &(&str, f64)| ((*name).to_owned(), *value);
        Figures::of_runs(&[values.iter().map(named).collect()])
    }

    #[test]
    fn runs_become_medians_and_are_read_back() {
        let run = |a: f64| vec![("a".to_owned(), a), ("b.c".to_owned(), 2.0)];
        let mut runs = vec![run(3.0), run(1.0), run(2.0)];
        runs[0].push(("only once".to_owned(), 1.0));
        let figures = Figures::of_runs(&runs);
        let expected = Spread {
            median: 2.0,
            min: 1.0,
            max: 3.0,
        };
        assert_eq!(figures.spread("a"), Some(expected));
        assert_eq!(figures.get("only once"), None);
        assert_eq!(figures.below("b.").collect::<Vec<_>>(), [("c", 2.0)]);
        assert_eq!(Figures::from_json(&figures.to_json()), Some(figures));
        assert_eq!(Figures::from_json(&json!({"a": 1})), None);
    }
}
