//! The requests that are made of a case: its value in the place that its field names, and where the
//! platform has no such field, everywhere the value could do what the corpus fears of it.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::api::{Answer, Api, message};

use crate::corpus::Case;

/// Templates that hold nothing but a variable.
const VARIABLE: &str = "{{ value }}";

/// One request.
pub(crate) struct Attempt {
    /// `X-Test-Id` of what is sent; no other attempt has it.
    pub(crate) id: String,
    pub(crate) request: RequestBuilder,
    pub(crate) place: Place,
    pub(crate) expected: Expected,
}

/// Where the value was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its own field.
    Field,
    /// In a variable of a message whose subject, header, text and HTML are templates.
    Variable,
    /// In a link of the HTML.
    Link,
    /// Outside of any message.
    Elsewhere,
}

/// What has to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// What the corpus says.
    Corpus,
    /// It is taken.
    Taken,
    /// A problem of this status and code, about the field at this pointer if there is one.
    Refused(u16, &'static str, Option<&'static str>),
}

impl Expected {
    /// What is wrong with the answer; `corpus` is what the corpus has to say about it.
    pub(crate) fn complaint(self, answer: &Answer, corpus: Option<&str>) -> Option<String> {
        let status = answer.status.as_u16();
        let body = answer.json();
        let told = (status == 202 || status == 201) || body["code"].is_string();
        match self {
            _ if !told || !(200..500).contains(&status) => Some("no answer to input".to_owned()),
            Self::Corpus => corpus.map(str::to_owned),
            Self::Taken => (status != 202).then(|| "should be taken".to_owned()),
            Self::Refused(expected, code, pointer) => {
                let about = body["errors"][0]["pointer"].as_str();
                let as_wanted = status == expected && body["code"] == code;
                let refused = as_wanted && (pointer.is_none() || about == pointer);
                (!refused).then(|| format!("should be {self:?}"))
            }
        }
    }
}

/// Everything that is tried with a case. The order matters: one may repeat another.
pub(crate) fn of(api: &Api, case: &Case) -> Vec<Attempt> {
    let (field, value) = (case.text("field"), case.text("value"));
    let tries = Tries {
        api,
        id: case.text("id"),
        value: &value,
    };
    match field.as_str() {
        "webhook_url" => {
            let body = json!({"url": value, "events": ["email.delivered"]});
            let request = api.request(Method::POST, "/v1/webhooks").json(&body);
            vec![tries.attempt("", Place::Elsewhere, Expected::Corpus, request)]
        }
        "template_variable" => tries.as_variable(Expected::Taken),
        "idempotency_key" => tries.as_idempotency_key(),
        "body" => tries.as_body(),
        "click_target" => tries.as_link(),
        // A template gives a value no other way out of its field.
        "subject" | "custom_header_value" => {
            let mut all = tries.as_variable(Expected::Corpus);
            all.push(tries.in_field(&field));
            all
        }
        _ => vec![tries.in_field(&field)],
    }
}

struct Tries<'a> {
    api: &'a Api,
    id: String,
    value: &'a str,
}

impl Tries<'_> {
    fn attempt(
        &self,
        way: &str,
        place: Place,
        expected: Expected,
        request: RequestBuilder,
    ) -> Attempt {
        Attempt {
            id: format!("{}{way}", self.id),
            request,
            place,
            expected,
        }
    }

    fn send(&self, body: &Value) -> RequestBuilder {
        self.api.request(Method::POST, "/v1/emails").json(body)
    }

    /// A message to ana@sink.test with the id of this way.
    fn mail(&self, way: &str) -> Value {
        let mut mail = message("acme.test", "ana@sink.test");
        mail["headers"] = json!({"X-Test-Id": format!("{}{way}", self.id)});
        mail
    }

    fn in_field(&self, field: &str) -> Attempt {
        let value = self.value;
        let mut body = self.mail("");
        let attachment = |name: &str| {
            let mut one =
                json!({"filename": "a.txt", "content": "aGk=", "content_type": "text/plain"});
            one[name] = value.into();
            json!([one])
        };
        match field {
            "from" | "subject" => body[field] = value.into(),
            "from_name" => body["from"] = named(value, "hello@acme.test").into(),
            "to_name" => body["to"] = json!([named(value, "ana@sink.test")]),
            "reply_to_name" => body["reply_to"] = json!([named(value, "help@acme.test")]),
            "custom_header_name" => body["headers"][value] = "1".into(),
            "custom_header_value" => body["headers"]["X-Odd"] = value.into(),
            "list_unsubscribe" => body["headers"]["List-Unsubscribe"] = value.into(),
            "tag" => body["tags"] = json!([value]),
            "metadata_value" => body["metadata"] = json!({"key": value}),
            "attachment_content_type" => body["attachments"] = attachment("content_type"),
            "attachment_filename" => body["attachments"] = attachment("filename"),
            "content_id" => body["attachments"] = attachment("content_id"),
            _ => panic!("{}: the test does not know the field {field}", self.id),
        }
        self.attempt("", Place::Field, Expected::Corpus, self.send(&body))
    }

    /// Through the variables of one message, and of one in a batch.
    fn as_variable(&self, expected: Expected) -> Vec<Attempt> {
        let template = |way| {
            let mut mail = self.mail(way);
            mail["subject"] = VARIABLE.into();
            mail["text"] = VARIABLE.into();
            mail["html"] = format!("<p>{VARIABLE}</p>").into();
            mail["headers"]["X-Odd"] = VARIABLE.into();
            mail
        };
        let mut mail = template("/variable");
        mail["variables"] = json!({"value": self.value});
        let mut defaults = template("/batch");
        let to = defaults.as_object_mut().unwrap().remove("to");
        let one = json!({"to": to, "variables": {"value": self.value}});
        // Strict, so that the answer's status is that of the only message.
        let batch = self
            .api
            .request(Method::POST, "/v1/emails/batch?mode=strict");
        let batch = batch.json(&json!({"defaults": defaults, "messages": [one]}));
        vec![
            self.attempt("/variable", Place::Variable, expected, self.send(&mail)),
            self.attempt("/batch", Place::Variable, expected, batch),
        ]
    }

    /// As it is, and as a key that may be: then another body never goes out under it.
    fn as_idempotency_key(&self) -> Vec<Attempt> {
        let under = |key: &str, way: &str| {
            let request = self.send(&self.mail(way));
            request.header("Idempotency-Key", key)
        };
        let spaced = Expected::Refused(400, "invalid_idempotency_key", None);
        let reused = Expected::Refused(409, "idempotency_mismatch", None);
        let key = self.value.replace(' ', "-");
        let attempt = |way, expected, request| self.attempt(way, Place::Field, expected, request);
        vec![
            attempt("/spaced", spaced, under(self.value, "/spaced")),
            attempt("", Expected::Taken, under(&key, "")),
            attempt("/other", reused, under(&key, "/other")),
            attempt("", Expected::Taken, under(&key, "")),
        ]
    }

    /// As the whole body, and as the part of a body that lacks nothing.
    fn as_body(&self) -> Vec<Attempt> {
        let mut rest = self.mail("/whole");
        rest.as_object_mut().unwrap().remove("to");
        let (rest, value) = (rest.to_string(), self.value);
        let whole = format!("{},{}", rest.strip_suffix('}').unwrap(), &value[1..]);
        let expected = Expected::Refused(422, "validation_failed", Some("/to"));
        let attempt = |way, body: String| {
            let request = self.api.request(Method::POST, "/v1/emails").body(body);
            let request = request.header("content-type", "application/json");
            self.attempt(way, Place::Elsewhere, expected, request)
        };
        vec![attempt("", value.to_owned()), attempt("/whole", whole)]
    }

    /// Links are not rewritten, nobody can ask for it, and no address of ours sends a reader on.
    fn as_link(&self) -> Vec<Attempt> {
        let link = |way| {
            let mut mail = self.mail(way);
            mail["html"] = link(self.value).into();
            mail
        };
        let mut tracked = link("/tracked");
        tracked["tracking"] = json!({"opens": false, "clicks": true});
        let unknown = Expected::Refused(422, "validation_failed", Some("/tracking"));
        let nowhere = Expected::Refused(404, "not_found", None);
        let opened = self.api.request(Method::GET, &format!("/{}", self.value));
        vec![
            self.attempt(
                "/link",
                Place::Link,
                Expected::Taken,
                self.send(&link("/link")),
            ),
            self.attempt("/tracked", Place::Link, unknown, self.send(&tracked)),
            self.attempt("/opened", Place::Elsewhere, nowhere, opened),
        ]
    }
}

/// HTML with a link to it.
pub(crate) fn link(target: &str) -> String {
    format!("<p><a href=\"{target}\">More</a></p>")
}

/// A mailbox with a quoted name (RFC 5322 section 3.2.4).
fn named(name: &str, address: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{name}\" <{address}>")
}
