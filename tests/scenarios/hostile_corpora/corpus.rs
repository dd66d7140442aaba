//! The corpus beside the repository. Nothing of it is left out here: a line that is no case fails
//! the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use serde_json::value::RawValue;

/// One line of a part of the corpus.
#[derive(Debug)]
pub(crate) struct Case {
    fields: BTreeMap<String, Box<RawValue>>,
}

impl Case {
    /// A field as it is written, quotes and escapes included. JSON can write what is no text of
    /// ours: half a surrogate pair.
    pub(crate) fn written(&self, field: &str) -> &str {
        self.fields[field].get()
    }

    /// A field; none when it is no JSON of ours.
    pub(crate) fn read(&self, field: &str) -> Option<Value> {
        serde_json::from_str(self.written(field)).ok()
    }

    /// A field that has to be a text.
    pub(crate) fn text(&self, field: &str) -> String {
        let read = self.read(field).unwrap();
        read.as_str().unwrap().to_owned()
    }
}

/// The cases of a part of the corpus; none, and a loud line, where it is absent.
pub(crate) fn cases(part: &str) -> Option<Vec<Case>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/hostile");
    let path = root.join(part).join("cases.jsonl");
    let Ok(lines) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED: hostile {part}: {} is not there", path.display());
        return None;
    };
    let case = |line| Case {
        fields: serde_json::from_str(line).unwrap(),
    };
    let cases: Vec<Case> = lines.lines().map(case).collect();
    assert!(!cases.is_empty(), "{} is empty", path.display());
    Some(cases)
}
