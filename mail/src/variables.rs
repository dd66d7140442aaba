//! The variables of a message: an object of JSON values that its template may name.
//! Knows no template; bounds what is stored with the message.

use minijinja::Value;
use serde::Deserialize;
use serde_json::Map;

use crate::message_fields::FieldError;

/// Pointer of the field, and of everything that is missing in it.
pub(crate) const POINTER: &str = "/variables";

/// Variables by name, before they are bounded.
pub type VariableMap = Map<String, serde_json::Value>;

/// The variables of one message, in the form they are stored and in the form they are used.
#[derive(Debug, Clone)]
pub struct Variables {
    json: String,
    context: Value,
}

/// Reads the object that a request gives.
///
/// # Errors
/// It is no object, or nested deeper than 127 levels.
pub fn parse(json: &str) -> Result<VariableMap, FieldError> {
    serde_json::from_str(json).map_err(|_| {
        let detail = "must be an object of names and values, not nested too deep";
        FieldError::new(POINTER, "invalid_type", detail)
    })
}

impl Variables {
    /// These variables, `defaults` filling in the names that are absent.
    ///
    /// # Errors
    /// Too long as JSON.
    pub fn new(
        own: VariableMap,
        defaults: Option<&VariableMap>,
        max_octets: usize,
    ) -> Result<Self, FieldError> {
        let mut map = own;
        for (name, value) in defaults.into_iter().flatten() {
            if !map.contains_key(name) {
                map.insert(name.clone(), value.clone());
            }
        }
        let json = serde_json::Value::Object(map).to_string();
        if json.len() > max_octets {
            return Err(FieldError::too_long(POINTER, max_octets));
        }
        Self::stored(json)
    }

    /// Variables in the form [`as_json`](Self::as_json) gave.
    ///
    /// # Errors
    /// It is not that form.
    pub fn stored(json: String) -> Result<Self, FieldError> {
        let map = serde_json::Value::Object(parse(&json)?);
        let context = Value::deserialize(map).map_err(|error| {
            FieldError::new(POINTER, "invalid_type", format!("cannot be used: {error}"))
        })?;
        Ok(Self { json, context })
    }

    /// The form that is stored.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    pub(crate) fn context(&self) -> &Value {
        &self.context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> VariableMap {
        parse(json).unwrap()
    }

    #[test]
    fn defaults_fill_in_what_is_absent() {
        let defaults = map(r#"{"company":"Acme","name":"friend"}"#);
        let variables = Variables::new(map(r#"{"name":"Ana"}"#), Some(&defaults), 100).unwrap();
        let read: serde_json::Value = serde_json::from_str(variables.as_json()).unwrap();
        assert_eq!(read, serde_json::json!({"company": "Acme", "name": "Ana"}));
        let again = Variables::stored(variables.as_json().to_owned()).unwrap();
        assert_eq!(again.as_json(), variables.as_json());
    }

    #[test]
    fn only_bounded_objects_are_variables() {
        for wrong in ["[]", "7", "\"a\"", "null", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(parse(wrong).unwrap_err().code, "invalid_type", "{wrong}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(parse(&deep).unwrap_err().code, "invalid_type");
        let long = map(&format!("{{\"a\":\"{}\"}}", "x".repeat(100)));
        let error = Variables::new(long, None, 100).unwrap_err();
        assert_eq!((error.pointer.as_str(), error.code), (POINTER, "too_long"));
    }
}
