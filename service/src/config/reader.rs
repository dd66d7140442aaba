//! Takes a configuration apart, section by section and key by key, so that one mistake hides no
//! other. What is right in a section with mistakes is kept.

use std::collections::BTreeMap;

use figment::Figment;
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use super::SECTIONS;
use super::error::Problem;

/// Reads sections and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) figment: &'a Figment,
    /// Name of the file, for people.
    pub(super) file: &'a str,
    pub(super) problems: Vec<Problem>,
}

/// A piece of a section with one value in it.
struct Piece {
    /// Key in the section that it belongs to.
    key: String,
    section: Dict,
    /// Which element of a list it is.
    index: Option<usize>,
}

impl Reader<'_> {
    /// The section of that name; keys that are wrong have their defaults.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        if !self.figment.contains(name) {
            return T::default();
        }
        let whole = match self.figment.extract_inner(name) {
            Ok(section) => return section,
            Err(error) => error,
        };
        let Ok(mut section) = self.figment.extract_inner::<Dict>(name) else {
            self.note(whole, name);
            return T::default();
        };
        let before = self.problems.len();
        for piece in pieces(&section.clone()) {
            let Err(mut error) = Value::from(piece.section).deserialize::<T>() else {
                continue;
            };
            if let Some(index) = piece.index
                && let Some(part) = error.path.iter_mut().find(|part| *part == "0")
            {
                *part = index.to_string();
            }
            self.note(error, name);
            section.remove(&piece.key);
        }
        if self.problems.len() == before {
            // Right in pieces and wrong together.
            self.note(whole, name);
            return T::default();
        }
        Value::from(section).deserialize().unwrap_or_default()
    }

    /// Notes sections that do not exist; if the text is no TOML at all, nothing but that.
    pub(super) fn other_sections(&mut self) {
        match self.figment.extract::<BTreeMap<String, Value>>() {
            Ok(found) => {
                let known = SECTIONS;
                for name in found.keys().filter(|name| !known.contains(&name.as_str())) {
                    let known = known.join("], [");
                    let wrong = format!("is not a section: remove it; there are [{known}]");
                    self.problems.push(Problem::new(name, wrong));
                }
            }
            // Not TOML: then each section failed the same way. Say it once.
            Err(error) => {
                self.problems.clear();
                self.note(error, "");
            }
        }
    }

    fn note(&mut self, error: figment::Error, section: &str) {
        let problem = Problem::from_figment(error, section, self.figment, self.file);
        self.problems.push(problem);
    }
}

/// The section once for each of its values, with that value only: for each key, each key of a
/// table in it, each element of a list.
fn pieces(section: &Dict) -> Vec<Piece> {
    let mut all = Vec::new();
    for (key, value) in section {
        let mut add = |value: Value, index| {
            all.push(Piece {
                key: key.clone(),
                section: Dict::from([(key.clone(), value)]),
                index,
            });
        };
        match value {
            Value::Dict(tag, inner) if !inner.is_empty() => {
                for (inner_key, value) in inner {
                    let alone = Dict::from([(inner_key.clone(), value.clone())]);
                    add(Value::Dict(*tag, alone), None);
                }
            }
            Value::Array(tag, elements) if !elements.is_empty() => {
                for (index, element) in elements.iter().enumerate() {
                    add(Value::Array(*tag, vec![element.clone()]), Some(index));
                }
            }
            _ => add(value.clone(), None),
        }
    }
    all
}
