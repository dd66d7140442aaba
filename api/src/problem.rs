//! Errors as clients see them: RFC 9457 problem details, with one table of codes.
//! A problem never repeats a secret, and is never the place to log a cause.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::message_fields::FieldError;
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

/// Media type of a problem (RFC 9457 section 6.1).
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// What a client is told to wait when the database cannot be reached.
const UNAVAILABLE_RETRY_SECS: u64 = 5;

macro_rules! codes {
    ($($code:ident, $status:ident, $word:literal, $title:literal;)+) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($code,)+ }

        impl Code {
            fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)+ }
            }

            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$code => $word,)+ }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)+ }
            }
        }
    };
}

codes! {
    MalformedJson, BAD_REQUEST, "malformed_json", "The body is not JSON";
    MalformedBody, BAD_REQUEST, "malformed_body", "The body cannot be read";
    InvalidIdempotencyKey, BAD_REQUEST, "invalid_idempotency_key", "The Idempotency-Key cannot be used";
    MissingApiKey, UNAUTHORIZED, "missing_api_key", "An API key is needed";
    InvalidApiKey, UNAUTHORIZED, "invalid_api_key", "The API key is not valid";
    AccountDisabled, FORBIDDEN, "account_disabled", "The account is disabled";
    MissingScope, FORBIDDEN, "missing_scope", "The API key may not do this";
    TestKeyNotAllowed, FORBIDDEN, "test_key_not_allowed", "A test key may not do this";
    SenderNotVerified, FORBIDDEN, "sender_not_verified", "The sender's domain is not verified";
    DomainNotAllowed, FORBIDDEN, "domain_not_allowed", "The API key is restricted to other domains";
    NetworkNotAllowed, FORBIDDEN, "network_not_allowed", "The API key may not be used from here";
    KeyEscalation, FORBIDDEN, "key_escalation", "A key cannot give more than it has";
    NotFound, NOT_FOUND, "not_found", "There is no such thing";
    NoTranscript, NOT_FOUND, "no_transcript", "No transcript was kept of this attempt";
    ContentGone, GONE, "content_gone", "The content is not kept any more";
    MethodNotAllowed, METHOD_NOT_ALLOWED, "method_not_allowed", "This address does not know the method";
    BodyTimeout, REQUEST_TIMEOUT, "body_timeout", "The body took too long to arrive";
    IdempotencyMismatch, CONFLICT, "idempotency_mismatch", "The Idempotency-Key was used for another request";
    WebhookDisabled, CONFLICT, "webhook_disabled", "The webhook is disabled";
    TooManyWebhooks, CONFLICT, "too_many_webhooks", "The account has all the webhooks it may have";
    AlreadySending, CONFLICT, "already_sending", "It is too late for that";
    TooManyDomains, CONFLICT, "too_many_domains", "The account has all the domains it may have";
    DomainTaken, CONFLICT, "domain_taken", "Another account has proved this domain";
    RotationUnderWay, CONFLICT, "rotation_under_way", "A new key waits for its record already";
    TooManyKeys, CONFLICT, "too_many_keys", "The account has all the API keys it may have";
    KeyEnded, CONFLICT, "key_ended", "The API key was revoked or has expired";
    Conflict, CONFLICT, "conflict", "Something else is in the way";
    BodyTooLarge, PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large";
    MessageTooLarge, PAYLOAD_TOO_LARGE, "message_too_large", "The message is too large";
    UnsupportedMediaType, UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body has the wrong media type";
    UnsupportedEncoding, UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "The body's encoding is not known";
    ValidationFailed, UNPROCESSABLE_ENTITY, "validation_failed", "Some fields are not right";
    InvalidParameter, UNPROCESSABLE_ENTITY, "invalid_parameter", "A query parameter is not right";
    SandboxUnavailable, UNPROCESSABLE_ENTITY, "sandbox_unavailable", "There is no sandbox to send to";
    RateLimited, TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    TooManyCommands, TOO_MANY_REQUESTS, "too_many_commands", "Earlier actions are not carried out yet";
    TooManyAtOnce, TOO_MANY_REQUESTS, "too_many_at_once", "The account has too much of this under way";
    Internal, INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side";
    Timeout, SERVICE_UNAVAILABLE, "timeout", "The request took too long";
    Unavailable, SERVICE_UNAVAILABLE, "unavailable", "The service is not available for a moment";
}

/// One refused request, as it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldProblem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// JSON pointer to the field (RFC 6901); empty for the whole body.
    #[schema(example = "/to/0")]
    pointer: String,
    /// Stable word for programs.
    #[schema(example = "invalid_address")]
    code: String,
    /// A sentence for people.
    #[schema(example = "address needs the form local-part@domain")]
    detail: String,
}

impl FieldProblem {
    pub(crate) fn new(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.to_owned(),
            detail: detail.into(),
        }
    }
}

impl FieldProblem {
    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    pub(crate) fn at(self, pointer: String) -> Self {
        Self { pointer, ..self }
    }
}

impl From<FieldError> for FieldProblem {
    fn from(error: FieldError) -> Self {
        Self::new(error.pointer, error.code, error.detail)
    }
}

/// The body of every error answer (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Stable URI of the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:postrider:problem:validation_failed")]
    kind: String,
    /// The kind of problem in a few words.
    #[schema(example = "Some fields are not right")]
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened and what to do about it.
    detail: &'a str,
    /// Stable word for programs.
    #[schema(example = "validation_failed")]
    code: &'a str,
    /// What is wrong with single fields.
    #[serde(skip_serializing_if = "<[FieldProblem]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldProblem],
    /// The same as in the header `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        required = true,
        nullable = false,
        example = "req_01kasxq2bke9qa1bz2t0zc6m4d"
    )]
    request_id: Option<&'a str>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// One thing or several wrong with fields of the body.
    pub(crate) fn fields(errors: impl IntoIterator<Item = impl Into<FieldProblem>>) -> Self {
        let errors: Vec<FieldProblem> = errors.into_iter().map(Into::into).collect();
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{} {}", only.pointer, only.detail),
            many => format!("{} fields are not right; see errors", many.len()),
        };
        Self {
            errors,
            ..Self::new(Code::ValidationFailed, detail)
        }
    }

    /// The same with the status and title of another code.
    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The same in other words.
    pub(crate) fn with_detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }

    /// The same answer for what does not exist and for what belongs to somebody else.
    pub(crate) fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "nothing of this account has this id or address",
        )
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer, once the id of the request is known.
    pub(crate) fn render(&self, request_id: Option<&str>) -> Response {
        let status = self.code.status();
        let body = ProblemBody {
            kind: format!("urn:postrider:problem:{}", self.code.word()),
            title: self.code.title(),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code.word(),
            errors: &self.errors,
            request_id,
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Leaves itself among the extensions: the outermost layer renders it again with the id of
    /// the request, which handlers do not know.
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    /// The cause is logged here and nowhere else; the client learns only what it can act on.
    fn from(error: StoreError) -> Self {
        let causes = chain(&error);
        match error {
            StoreError::Conflict { what } => {
                Self::new(Code::Conflict, format!("{what} is in use already"))
            }
            StoreError::Invalid { what, detail } => {
                let detail = format!("this {what} cannot be stored: {detail}");
                Self::fields([FieldProblem::new("", "invalid", detail)])
            }
            // A commit whose outcome nobody saw counts too: only repeating it can tell.
            error if error.is_unavailable() => {
                tracing::warn!(error = causes, "store unavailable");
                let detail = "the database cannot be reached; send the request again in a few \
                              seconds, with the same Idempotency-Key so that it counts once";
                Self::new(Code::Unavailable, detail).with_header(
                    header::RETRY_AFTER,
                    HeaderValue::from(UNAVAILABLE_RETRY_SECS),
                )
            }
            _ => {
                tracing::error!(error = causes, "store failed");
                Self::new(
                    Code::Internal,
                    "the cause was logged under the id of this request",
                )
            }
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

impl Problem {
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Code, detail and field errors, for answers that tell of several problems.
    pub(crate) fn into_parts(self) -> (Code, String, Vec<FieldProblem>) {
        (self.code, self.detail, self.errors)
    }
}

#[cfg(test)]
impl Problem {
    /// Code, detail and field errors, for tests of those who make problems.
    pub(crate) fn parts(&self) -> (&str, &str, &[FieldProblem]) {
        (self.code.word(), &self.detail, &self.errors)
    }
}

#[cfg(test)]
impl FieldProblem {
    /// Pointer and code.
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.pointer, &self.code)
    }
}
