//! What a message says, apart from whom it goes to: the fields that make its body, which many
//! messages may share, plain or as a template. Stores nothing and finds no sharers.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::compose::{Entity, compose_entity};
use crate::ids::MessageId;
use crate::message::{Limits, Message};
use crate::message_fields::{FieldError, GivenText, OneOrMany, SendRequest};
use crate::shared_files::SharedFiles;
use crate::template::{Templates, has_tags};
use crate::variables::Variables;

/// Stand for the envelope while only a body is looked at, and the other way round.
const STAND_IN_ADDRESS: &str = "stand-in@example.invalid";
const STAND_IN_TEXT: &str = "-";

/// The fields of a request that make the body, as given. The serialised form of a template is
/// what content of that kind is stored as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    #[serde(default, skip_serializing_if = "GivenText::is_absent")]
    text: GivenText,
    #[serde(default, skip_serializing_if = "SharedFiles::is_empty")]
    attachments: SharedFiles,
}

impl ContentFields {
    /// Takes the fields out of a request.
    pub fn take(request: &mut SendRequest) -> Self {
        Self {
            html: request.html.take(),
            text: std::mem::take(&mut request.text),
            attachments: SharedFiles::new(std::mem::take(&mut request.attachments)),
        }
    }

    /// Whether no field is given at all.
    pub fn is_absent(&self) -> bool {
        self.names().is_empty()
    }

    /// Names of the fields that are given.
    pub fn names(&self) -> Vec<&'static str> {
        let given = [
            ("html", self.html.is_some()),
            ("text", !self.text.is_absent()),
            ("attachments", !self.attachments.is_empty()),
        ];
        let names = given.into_iter().filter(|(_, is_given)| *is_given);
        names.map(|(name, _)| name).collect()
    }

    /// The same, absent fields filled in; with the names of those that were.
    pub fn or(self, defaults: &Self) -> (Self, Vec<&'static str>) {
        let own = self.names();
        let mut filled = defaults.names();
        filled.retain(|name| !own.contains(name));
        let whole = Self {
            html: self.html.or_else(|| defaults.html.clone()),
            text: match self.text {
                GivenText::Absent => defaults.text.clone(),
                given => given,
            },
            attachments: match self.attachments.is_empty() {
                true => defaults.attachments.clone(),
                false => self.attachments,
            },
        };
        (whole, filled)
    }

    /// Octets of what is given, attachments in base64.
    pub fn octets(&self) -> usize {
        let texts =
            self.html.as_ref().map_or(0, String::len) + self.text.as_deref().map_or(0, str::len);
        texts.saturating_add(self.attachments.octets())
    }

    /// Octets of the attachments, in base64.
    pub fn attached_octets(&self) -> usize {
        self.attachments.octets()
    }

    /// The same without attachments.
    pub fn without_attachments(self) -> Self {
        Self {
            attachments: SharedFiles::default(),
            ..self
        }
    }

    /// The attachments alone, behind some HTML.
    pub fn attachments_with_html(&self) -> Self {
        Self {
            html: Some(STAND_IN_TEXT.to_owned()),
            text: GivenText::Refused,
            attachments: self.attachments.clone(),
        }
    }

    /// Whether variables change anything in it.
    pub fn is_template(&self) -> bool {
        self.sources().any(|(_, source)| has_tags(source))
    }

    /// A message that says this, to nobody in particular.
    ///
    /// # Errors
    /// What is wrong with these fields.
    pub fn parse(self, limits: &Limits) -> Result<Message, Vec<FieldError>> {
        let request = SendRequest {
            from: Some(STAND_IN_ADDRESS.to_owned()),
            to: OneOrMany::One(STAND_IN_ADDRESS.to_owned()),
            subject: Some(STAND_IN_TEXT.to_owned()),
            html: self.html,
            text: self.text,
            attachments: self.attachments.into_list(),
            ..SendRequest::default()
        };
        Message::parse(request, limits)
    }

    fn sources(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let html = self.html.as_deref().map(|source| ("/html", source));
        let text = self.text.as_deref().map(|source| ("/text", source));
        html.into_iter().chain(text)
    }
}

/// Looks at everything but the body of a request whose [`ContentFields`] were taken out. The body
/// of the message that comes back stands for another one.
///
/// # Errors
/// What is wrong with the fields.
pub fn parse_envelope(request: SendRequest, limits: &Limits) -> Result<Message, Vec<FieldError>> {
    let request = SendRequest {
        text: GivenText::Given(STAND_IN_TEXT.to_owned()),
        ..request
    };
    Message::parse(request, limits)
}

/// Fills in subject and header values, and says what could not be; such a field stays as it was.
pub fn fill_in_envelope(request: &mut SendRequest, variables: &Variables) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fill = |pointer: &str, source: &mut String| {
        if !has_tags(source) {
            return;
        }
        let mut templates = Templates::default();
        let rendered = templates
            .add(pointer, source)
            .and_then(|()| templates.render(pointer, variables).transpose());
        match rendered {
            Ok(rendered) => *source = rendered.unwrap_or_default(),
            Err(error) => errors.push(error),
        }
    };
    if let Some(subject) = &mut request.subject {
        fill("/subject", subject);
    }
    for (name, value) in &mut request.headers {
        fill(&crate::message_fields::member("/headers", name), value);
    }
    errors
}

/// Looks at every field of a request, its variables filled in first if it has any.
///
/// # Errors
/// All that is wrong, at once; never an empty list.
pub fn parse_request(
    mut request: SendRequest,
    limits: &Limits,
) -> Result<Message, Vec<FieldError>> {
    let Some(given) = request.variables.take() else {
        return Message::parse(request, limits);
    };
    let variables = crate::variables::parse(given.get())
        .and_then(|map| Variables::new(map, None, limits.variables_max_octets));
    let mut errors = Vec::new();
    match variables {
        Ok(variables) => {
            errors.extend(fill_in_envelope(&mut request, &variables));
            let attachments = std::mem::take(&mut request.attachments);
            match ContentTemplate::new(ContentFields::take(&mut request)) {
                Ok(template) => match template.fill_in(&variables) {
                    Ok(filled) => (request.html, request.text) = (filled.html, filled.text),
                    Err(wrong) => errors.extend(wrong),
                },
                Err(wrong) => errors.extend(wrong),
            }
            request.attachments = attachments;
            if !errors.is_empty() && request.html.is_none() && request.text.as_deref().is_none() {
                // Told of already; the other fields are still looked at.
                request.html = Some(STAND_IN_TEXT.to_owned());
            }
        }
        Err(error) => errors.push(error),
    }
    match Message::parse(request, limits) {
        Ok(message) if errors.is_empty() => Ok(message),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

/// Content with variables in it, compiled.
#[derive(Debug)]
pub struct ContentTemplate {
    fields: ContentFields,
    templates: Templates,
}

/// Why stored content cannot be filled in. Accepting tried it, so each is damage.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// The stored template is not one.
    #[error("the stored template cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// It cannot be filled in with these variables any more.
    #[error("the stored template cannot be filled in: {0}")]
    Failed(String),
}

impl From<Vec<FieldError>> for TemplateError {
    fn from(errors: Vec<FieldError>) -> Self {
        let list: Vec<String> = errors
            .iter()
            .map(|error| format!("{} {}", error.pointer, error.detail))
            .collect();
        Self::Failed(list.join("; "))
    }
}

impl ContentTemplate {
    /// Compiles the fields.
    ///
    /// # Errors
    /// Those that are no templates.
    pub fn new(fields: ContentFields) -> Result<Self, Vec<FieldError>> {
        let mut templates = Templates::default();
        let compiled = fields
            .sources()
            .map(|(pointer, source)| templates.add(pointer, source));
        let errors: Vec<FieldError> = compiled.filter_map(Result::err).collect();
        if errors.is_empty() {
            Ok(Self { fields, templates })
        } else {
            Err(errors)
        }
    }

    /// Compiles what [`to_stored`](Self::to_stored) gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, TemplateError> {
        Ok(Self::new(serde_json::from_slice(bytes)?)?)
    }

    /// The form that is stored: JSON of the fields.
    ///
    /// # Errors
    /// Never for fields that came out of a request.
    pub fn to_stored(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.fields)
    }

    /// The fields with the variables filled in.
    ///
    /// # Errors
    /// What could not be.
    pub fn fill_in(&self, variables: &Variables) -> Result<ContentFields, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut fill = |pointer| {
            let rendered = self.templates.render(pointer, variables)?;
            rendered.map_err(|error| errors.push(error)).ok()
        };
        let (html, text) = (fill("/html"), fill("/text"));
        if errors.is_empty() {
            Ok(ContentFields {
                html,
                text: match text {
                    Some(text) => GivenText::Given(text),
                    // Absent or refused, as it was.
                    None => self.fields.text.clone(),
                },
                attachments: self.fields.attachments.clone(),
            })
        } else {
            Err(errors)
        }
    }

    /// The entity of one message: the same octets whenever it is asked for.
    ///
    /// # Errors
    /// `Failed` when this is not what was accepted.
    pub fn entity(&self, variables: &Variables, id: MessageId) -> Result<Entity, TemplateError> {
        // How much a message may hold was decided when it was accepted.
        let limits = Limits {
            content_max_octets: usize::MAX,
            attachments_max: usize::MAX,
            attachments_max_octets: usize::MAX,
            ..Limits::default()
        };
        let message = self.fill_in(variables)?.parse(&limits)?;
        Ok(compose_entity(&message, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId::from_time_and_random(1_790_000_000_000, [7; 10]);

    fn fields(json: &str) -> ContentFields {
        ContentFields::take(&mut serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_field_comes_whole_from_the_message_or_from_the_defaults() {
        let file = r#"[{"filename":"a","content":"QQ=="}]"#;
        let defaults = fields(&format!(
            r#"{{"html":"h","text":"t","attachments":{file}}}"#
        ));
        let check = |own: &str, filled: &[&str], whole: &str| {
            let (made, names) = fields(own).or(&defaults);
            assert_eq!((made, names.as_slice()), (fields(whole), filled), "{own}");
        };
        check(
            r#"{"html":"own"}"#,
            &["text", "attachments"],
            &format!(r#"{{"html":"own","text":"t","attachments":{file}}}"#),
        );
        // Refusing the text is an answer too.
        check(
            r#"{"text":null,"attachments":[{"filename":"b"}]}"#,
            &["html"],
            r#"{"html":"h","text":null,"attachments":[{"filename":"b"}]}"#,
        );
    }

    #[test]
    fn a_template_gives_the_same_octets_after_it_was_stored() {
        let variables = Variables::stored(r#"{"name":"Zoë <z>"}"#.to_owned()).unwrap();
        let check = |source: &str, parts: &[&str], absent: &str| {
            let template = ContentTemplate::new(fields(source)).unwrap();
            let stored = template.to_stored().unwrap();
            let again = ContentTemplate::from_stored(&stored).unwrap();
            let entity = template.entity(&variables, ID).unwrap();
            assert_eq!(again.entity(&variables, ID).unwrap(), entity, "{source}");
            let text = String::from_utf8(entity.bytes).unwrap();
            for part in parts {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains(absent), "{absent}: {text}");
        };
        let html = r#""html":"<p>{{ name }}</p>""#;
        check(
            &format!("{{{html}}}"),
            &["Zo=C3=AB &lt;z&gt;", "text/plain"],
            "{{",
        );
        check(
            &format!("{{{html},\"text\":null}}"),
            &["Zo=C3=AB &lt;z&gt;"],
            "text/plain",
        );
        let file = r#"[{"filename":"{{ name }}.txt","content":"YQ=="}]"#;
        check(
            &format!("{{{html},\"attachments\":{file}}}"),
            &["\r\n\r\nYQ==\r\n", "{{ name }}.txt"],
            "<p>{{",
        );
    }

    #[test]
    fn what_was_not_stored_by_us_is_damage() {
        for bytes in ["", "7", r#"{"html":"{{"}"#, r#"{"hmtl":"a"}"#] {
            let read = ContentTemplate::from_stored(bytes.as_bytes());
            assert!(read.is_err(), "{bytes}");
        }
        let template = ContentTemplate::new(fields(r#"{"text":"{{ name }}"}"#)).unwrap();
        let none = Variables::stored("{}".to_owned()).unwrap();
        let refused = template.entity(&none, ID).unwrap_err();
        assert!(refused.to_string().contains("`name`"), "{refused}");
    }
}
