//! JSON bodies: an object of the wanted shape, or what is wrong in words a client can act on:
//! malformed text with its place, a wrong shape with a pointer to the field.
//! Knows no field's meaning.

use mail::message_fields::bounded::TOO_MANY;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::problem::{Code, FieldProblem, Problem};

/// Longest detail and pointer, in characters: both may repeat pieces of the body.
const SHOWN_MAX: usize = 300;

/// Reads an object.
///
/// # Errors
/// `malformed_json` when it is no JSON, `validation_failed` when it is no `T`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // A struct could be read from an array too, by the order of its fields.
    if body.trim_ascii_start().first() == Some(&b'{') {
        return read(body);
    }
    let detail = match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => "the body must be a JSON object",
        Err(error) => return Err(malformed(&error)),
    };
    Err(Problem::fields([FieldProblem::new(
        "",
        "invalid_type",
        detail,
    )]))
}

/// Reads a value of any shape.
///
/// # Errors
/// `malformed_json` when it is no JSON, `validation_failed` when it is no `T`.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| explain::<T>(body, &error))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let detail = format!("{} at line {line} column {column}", without_place(error));
    Problem::new(Code::MalformedJson, shorten(&detail))
}

/// Explains why `body` is no `T`. Reads it a second time, which only mistakes pay for.
fn explain<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> Problem {
    if error.classify() != Category::Data {
        return malformed(error);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let pointer = serde_path_to_error::deserialize::<_, T>(&mut deserializer)
        .err()
        .map(|error| pointer_to(error.path()))
        .unwrap_or_default();
    let detail = without_place(error);
    let (code, name) = classify(&detail);
    let pointer = match name {
        // Found only after the whole object was read, so the path ends one step early.
        Some(name) if !pointer.ends_with(&format!("/{name}")) => format!("{pointer}/{name}"),
        _ => pointer,
    };
    Problem::fields([FieldProblem::new(shorten(&pointer), code, shorten(&detail))])
}

/// The code of a wrong shape, and the field's name where the message tells it.
fn classify(detail: &str) -> (&'static str, Option<&str>) {
    let named = |prefix: &str| {
        let (name, _) = detail
            .strip_prefix(prefix)?
            .strip_prefix('`')?
            .split_once('`')?;
        Some(name)
    };
    if detail.starts_with("unknown field") {
        // The path names it already, and unlike this message also when it holds a backtick.
        ("unknown_field", None)
    } else if let Some(name) = named("duplicate field ") {
        ("duplicate_field", Some(name))
    } else if let Some(name) = named("missing field ") {
        ("required", Some(name))
    } else if detail.starts_with(TOO_MANY) {
        ("too_many", None)
    } else {
        ("invalid_type", None)
    }
}

fn pointer_to(path: &Path) -> String {
    path.iter().fold(String::new(), |mut pointer, segment| {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
        pointer
    })
}

fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mail::message_fields::SendRequest;
    use serde_json::{Value, json};

    use super::*;

    /// The problem as JSON.
    fn explained(body: &[u8]) -> Value {
        let problem = parse::<SendRequest>(body).unwrap_err();
        serde_json::to_value(problem.parts()).unwrap()
    }

    #[test]
    fn malformed_text_is_told_with_its_place() {
        let check = |body: &[u8], detail: &str| {
            assert_eq!(explained(body), json!(["malformed_json", detail, []]));
        };
        check(b"", "EOF while parsing a value at line 1 column 0");
        check(b"{\"from\":\n x}", "expected value at line 2 column 2");
        check(b"[1,]", "expected value at line 1 column 4");
        check(b"{} {}", "trailing characters at line 1 column 4");
        check(
            b"{\"from\":\"\xff\"}",
            "invalid unicode code point at line 1 column 10",
        );
        let deep = [&br#"{"to":"#[..], &[b'['; 300]].concat();
        assert_eq!(explained(&deep)[0], "validation_failed");
    }

    #[test]
    fn a_wrong_shape_is_told_with_a_pointer() {
        let check = |body: &str, pointer: &str, code: &str, detail: &str| {
            let found = explained(body.as_bytes());
            assert_eq!(found[0], "validation_failed", "{body}");
            assert_eq!(found[2][0]["pointer"], pointer, "{body}");
            assert_eq!(found[2][0]["code"], code, "{body}");
            let told = found[2][0]["detail"].as_str().unwrap();
            assert!(told.starts_with(detail), "{body}: {told}");
            assert!(!told.contains(" line "), "{body}: {told}");
        };
        for body in ["[]", " [\"a@b.example\"]", "7", "null", "\"\""] {
            check(body, "", "invalid_type", "the body must be a JSON object");
        }
        check(
            r#"{"form":1}"#,
            "/form",
            "unknown_field",
            "unknown field `form`, expected one of",
        );
        check(
            r#"{"a`b/c":1}"#,
            "/a`b~1c",
            "unknown_field",
            "unknown field `a`b/c`",
        );
        check(
            r#"{"subject":7}"#,
            "/subject",
            "invalid_type",
            "invalid type: integer `7`",
        );
        check(
            r#"{"to":7}"#,
            "/to",
            "invalid_type",
            "invalid type: integer `7`, expected a string or an array of strings",
        );
        check(
            r#"{"tags":["a",7]}"#,
            "/tags/1",
            "invalid_type",
            "invalid type: integer `7`",
        );
        check(
            r#"{"metadata":{"a/b":7}}"#,
            "/metadata/a~1b",
            "invalid_type",
            "invalid type",
        );
        check(
            r#"{"to":"a","to":"b"}"#,
            "/to",
            "duplicate_field",
            "duplicate field `to`",
        );
        check(
            &format!("{{\"to\":[{}]}}", vec!["\"\""; 100_000].join(",")),
            "/to",
            "too_many",
            "too many members",
        );
        check(
            &format!("{{\"tags\":[{}]}}", vec!["\"\""; 100_000].join(",")),
            "/tags",
            "too_many",
            "too many members",
        );
        check(
            r#"{"require_tls":"yes"}"#,
            "/require_tls",
            "invalid_type",
            "invalid type: string",
        );
    }

    #[test]
    fn an_answer_is_not_as_long_as_the_question() {
        let long = "é".repeat(1_000_000);
        for body in [
            format!(r#"{{"{long}":1}}"#),
            format!(r#"{{"require_tls":"{long}"}}"#),
        ] {
            assert!(explained(body.as_bytes()).to_string().len() < 3_000);
        }
    }
}
