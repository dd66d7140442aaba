//! The JSON of a batch: an array of messages, or an object with defaults. Every message is read on
//! its own, so that a wrong shape is the fault of that message only. Fills in nothing.

use std::collections::HashMap;
use std::fmt;

use mail::message_fields::SendRequest;
use mail::message_fields::bounded::TOO_MANY;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json;
use crate::problem::{FieldProblem, Problem};

/// Messages that are read at all; the limit that counts lies below.
const READ_MAX: usize = 10_000;

/// A batch whose shape was looked at.
pub(super) struct BatchBody {
    /// Where a message stands: this and its number.
    pub(super) messages_pointer: &'static str,
    pub(super) defaults: SendRequest,
    pub(super) messages: Vec<Result<SendRequest, Problem>>,
    /// Whether anybody gives variables, the defaults or a message: then all messages are templates.
    pub(super) uses_variables: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithDefaults {
    defaults: Option<Box<RawValue>>,
    messages: Messages,
}

/// Messages as they are written.
struct Messages(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MessagesVisitor)
    }
}

struct MessagesVisitor;

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = Messages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Messages, A::Error> {
        let mut messages = Vec::new();
        while let Some(message) = members.next_element()? {
            if messages.len() == READ_MAX {
                let text = format_args!("{TOO_MANY}: at most {READ_MAX} are read");
                return Err(A::Error::custom(text));
            }
            messages.push(message);
        }
        Ok(Messages(messages))
    }
}

/// Reads a batch of 1 to `max` messages.
///
/// # Errors
/// It is no batch, or its defaults are no message.
pub(super) fn read(body: &[u8], max: usize) -> Result<BatchBody, Problem> {
    let (messages_pointer, defaults, Messages(messages)) = match body.trim_ascii_start().first() {
        Some(b'[') => ("", None, json::read(body)?),
        _ => {
            let body: WithDefaults = json::parse(body)?;
            ("/messages", body.defaults, body.messages)
        }
    };
    let refuse = |code, detail: String| {
        Err(Problem::fields([FieldProblem::new(
            messages_pointer,
            code,
            detail,
        )]))
    };
    if messages.is_empty() {
        return refuse("empty", "a batch has at least one message".to_owned());
    }
    if messages.len() > max {
        return refuse("too_many", format!("a batch has at most {max} messages"));
    }
    let defaults = match defaults {
        Some(defaults) => read_message(&defaults).map_err(|problem| below("/defaults", problem))?,
        None => SendRequest::default(),
    };
    let mut uses_variables = defaults.variables.is_some();
    let messages = messages.into_iter().map(|message| {
        let read = read_message(&message);
        uses_variables |= match &read {
            Ok(read) => read.variables.is_some(),
            Err(_) => names_variables(&message),
        };
        read
    });
    let messages = messages.collect();
    Ok(BatchBody {
        messages_pointer,
        defaults,
        messages,
        uses_variables,
    })
}

/// Whether a message that is refused gives variables. It counts: what the others say must not turn
/// from templates into plain text because one of them has a fault.
fn names_variables(message: &RawValue) -> bool {
    let fields = serde_json::from_str::<HashMap<String, Option<IgnoredAny>>>(message.get());
    fields.is_ok_and(|fields| fields.get("variables").is_some_and(Option::is_some))
}

fn read_message(message: &RawValue) -> Result<SendRequest, Problem> {
    let text = message.get();
    if !text.starts_with('{') {
        let detail = "a message must be a JSON object";
        return Err(Problem::fields([FieldProblem::new(
            "",
            "invalid_type",
            detail,
        )]));
    }
    json::parse(text.as_bytes())
}

/// The same problem with pointers from further up.
pub(super) fn below(pointer: &str, problem: Problem) -> Problem {
    let (code, detail, errors) = problem.into_parts();
    if errors.is_empty() {
        return Problem::fields([FieldProblem::new(pointer, code.word(), detail)]);
    }
    let moved = errors.into_iter().map(|error| {
        let at = format!("{pointer}{}", error.pointer());
        error.at(at)
    });
    Problem::fields(moved).with_code(code)
}
