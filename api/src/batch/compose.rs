//! The messages of a batch, looked at and composed: what several say alike is composed once, or
//! compiled once where it is a template. Asks no database.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mail::compose::{ComposeContext, ComposedHeader, Entity, compose_entity, compose_header};
use mail::content_source::{ContentFields, ContentTemplate, fill_in_envelope, parse_envelope};
use mail::dkim::body_hash;
use mail::ids::MessageId;
use mail::message::Message;
use mail::message_fields::FieldError;
use mail::variables::Variables;
use store::{ContentKind, NewContent};
use time::OffsetDateTime;

use super::body::{BatchBody, below};
use super::draft::{Draft, Drafts, Share, draft_all};
use crate::config::ApiConfig;
use crate::endpoints::emails::refusal;
use crate::problem::{Code, Problem, chain};
use crate::random;
use crate::send::Prepared;

/// Errors told of one message; whoever has more has made one mistake many times.
const ERRORS_MAX: usize = 50;
/// Octets that one octet of a body may become when it is encoded (RFC 2045 section 6.7).
const ENCODED_MAX: usize = 3;
/// How many times as much may come out of templates as may be stored.
const FILLED_IN_FACTOR: usize = 8;

const TOGETHER: &str = "the messages of a batch together";
/// Why a message without variables is a template: whoever wrote it may not have expected that.
const BY_OTHERS: &str = "it is a template because variables are given elsewhere in this batch";

/// A message, or what is wrong with it.
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) made: Result<Prepared, Problem>,
}

/// Where a message stands in the body of the request.
pub(super) struct Place {
    pointer: String,
    /// Names of the fields that come from the defaults.
    from_defaults: Vec<&'static str>,
    /// Whether the message gives variables itself.
    gives_variables: bool,
}

impl Place {
    /// The pointer into the body for one into the message: a field may have come from the defaults.
    pub(super) fn locate(&self, pointer: &str) -> String {
        let object = match self.is_from_defaults(pointer) {
            true => "/defaults",
            false => self.pointer.as_str(),
        };
        format!("{object}{pointer}")
    }

    fn is_from_defaults(&self, pointer: &str) -> bool {
        let field = pointer.split('/').nth(1).unwrap_or_default();
        self.from_defaults.contains(&field)
    }

    /// The same error with its pointer into the body. What is wrong with the defaults is the same
    /// for everybody, and told once.
    fn tell(&self, error: FieldError) -> FieldError {
        let is_unexpected = !self.gives_variables
            && !self.is_from_defaults(&error.pointer)
            && error.is_of_template();
        FieldError {
            pointer: self.locate(&error.pointer),
            detail: match is_unexpected {
                true => format!("{}; {BY_OTHERS}", error.detail),
                false => error.detail,
            },
            ..error
        }
    }
}

/// Composes every message.
///
/// # Errors
/// The defaults have variables that are none.
pub(super) fn compose_all(
    body: BatchBody,
    config: &ApiConfig,
    now: OffsetDateTime,
) -> Result<Vec<Item>, Problem> {
    let pointer = body.messages_pointer;
    let drafts = draft_all(body, config)?;
    let mut composer = Composer::new(&drafts, config, now);
    let contents = drafts.contents;
    let drafts = drafts.messages.into_iter().enumerate();
    Ok(drafts
        .map(|(index, draft)| {
            let mut place = Place {
                pointer: format!("{pointer}/{index}"),
                from_defaults: Vec::new(),
                gives_variables: false,
            };
            let made = match draft {
                Ok(mut draft) => {
                    place.from_defaults = std::mem::take(&mut draft.from_defaults);
                    place.gives_variables = draft.gives_variables;
                    let made = composer.compose(draft, &contents);
                    made.map_err(|fault| fault.into_problem(&place))
                }
                Err(problem) => Err(below(&place.pointer, problem)),
            };
            Item { place, made }
        })
        .collect())
}

/// What several messages share, made when the first of them comes.
enum Shared {
    Entity(Arc<NewContent>),
    Template(Box<ContentTemplate>, Option<Arc<NewContent>>),
}

impl Shared {
    /// Octets that are stored, once for all.
    fn octets(&self) -> usize {
        let stored = match self {
            Self::Entity(content) => Some(content),
            Self::Template(_, stored) => stored.as_ref(),
        };
        stored.map_or(0, |content| content.bytes.len())
    }
}

/// What a message says, ready to go behind its header.
enum Said {
    Alone(Entity),
    Shared(Arc<NewContent>),
}

/// Why a message cannot be composed.
enum Fault {
    Fields(Vec<FieldError>),
    TooLarge(&'static str, usize),
    Broken,
}

impl Fault {
    fn into_problem(self, place: &Place) -> Problem {
        let errors = match self {
            Self::Fields(errors) => errors,
            Self::TooLarge(what, max) => {
                let detail = format!("{what} may have {max} octets after encoding");
                return Problem::new(Code::MessageTooLarge, detail);
            }
            Self::Broken => {
                return Problem::new(Code::Internal, "the message could not be composed");
            }
        };
        // Content that is too long is told by its place in the message.
        let code = refusal(errors.clone()).code();
        let errors = errors.into_iter().take(ERRORS_MAX);
        let errors = errors.map(|error| place.tell(error));
        Problem::fields(errors).with_code(code)
    }
}

struct Composer<'a> {
    config: &'a ApiConfig,
    now: OffsetDateTime,
    sharers: HashMap<Share, usize>,
    shared: HashMap<Share, Result<Shared, Vec<FieldError>>>,
    /// Octets of content made so far.
    octets: usize,
    /// Octets of content looked at for one message only.
    looked_at: usize,
    /// Octets that came out of shared templates: not kept, but work here and where they are sent.
    filled_in: usize,
}

impl<'a> Composer<'a> {
    fn new(drafts: &Drafts, config: &'a ApiConfig, now: OffsetDateTime) -> Self {
        let mut sharers = HashMap::new();
        for draft in drafts.messages.iter().flatten() {
            *sharers.entry(draft.share).or_default() += 1;
        }
        Self {
            config,
            now,
            sharers,
            shared: HashMap::new(),
            octets: 0,
            looked_at: 0,
            filled_in: 0,
        }
    }

    fn compose(&mut self, draft: Draft, contents: &[Rc<ContentFields>]) -> Result<Prepared, Fault> {
        // However large the rest would be, it costs nothing any more.
        let max = self.config.batch_max_octets;
        let is_worked_off = self.filled_in / FILLED_IN_FACTOR > max;
        if self.octets > max || self.looked_at > max || is_worked_off {
            return Err(Fault::TooLarge(TOGETHER, max));
        }
        let unix_ms = u64::try_from(self.now.unix_timestamp_nanos() / 1_000_000);
        let id = MessageId::from_time_and_random(unix_ms.unwrap_or_default(), random::octets());
        let mut errors = Vec::new();
        let mut request = draft.request;
        let variables = match draft.variables {
            Some(Ok(variables)) => {
                errors.extend(fill_in_envelope(&mut request, &variables));
                Some(variables)
            }
            Some(Err(error)) => {
                errors.push(error);
                None
            }
            None => None,
        };
        let message = parse_envelope(request, &self.config.message_limits)
            .map_err(|wrong| errors.extend(wrong));
        let content = &contents[draft.share.content];
        let said = if draft.share.as_template && variables.is_none() {
            // Told of already.
            Err(Vec::new())
        } else {
            self.say(draft.share, content, variables.as_ref(), id)
        };
        let said = said.map_err(|wrong| errors.extend(wrong));
        let (Ok(message), Ok(said), true) = (message, said, errors.is_empty()) else {
            return Err(Fault::Fields(errors));
        };
        self.finish(id, message, said, variables)
    }

    /// The content of one message, alone or shared.
    fn say(
        &mut self,
        share: Share,
        content: &ContentFields,
        variables: Option<&Variables>,
        id: MessageId,
    ) -> Result<Said, Vec<FieldError>> {
        let is_shared = self.sharers.get(&share).is_some_and(|count| *count > 1);
        let limits = &self.config.message_limits;
        if !share.as_template && !is_shared {
            self.looked_at += content.octets();
            let message = content.clone().parse(limits)?;
            return Ok(Said::Alone(compose_entity(&message, id)));
        }
        let shared = self.shared.entry(share).or_insert_with(|| {
            let made = make_shared(share, content, is_shared, id, self.config);
            self.octets += made.as_ref().map_or(0, Shared::octets);
            made
        });
        match shared {
            Err(errors) => Err(errors.clone()),
            Ok(Shared::Entity(content)) => Ok(Said::Shared(content.clone())),
            Ok(Shared::Template(template, stored)) => {
                let Some(variables) = variables else {
                    return Err(Vec::new());
                };
                let filled = template.fill_in(variables)?;
                let max = self.config.message_max_octets / (ENCODED_MAX + 1);
                if let Some(stored) = stored {
                    let attached = filled.attached_octets();
                    self.filled_in += filled.octets() - attached;
                    // The attachments were looked at with the template, for a message with HTML.
                    let texts = filled.clone().without_attachments().parse(limits)?;
                    // Small enough whatever the encoding makes of it: made when it is sent.
                    if texts.content_octets() + attached < max
                        && (attached == 0 || texts.html().is_some())
                    {
                        return Ok(Said::Shared(stored.clone()));
                    }
                }
                self.looked_at += filled.octets();
                let message = filled.parse(limits)?;
                Ok(Said::Alone(compose_entity(&message, id)))
            }
        }
    }

    /// The header, and the whole if the message shares nothing.
    fn finish(
        &mut self,
        id: MessageId,
        message: Message,
        said: Said,
        variables: Option<Variables>,
    ) -> Result<Prepared, Fault> {
        let context = ComposeContext {
            message_id: id,
            date: self.now,
            message_id_domain: message.from().address().domain(),
        };
        let header = compose_header(&message, &context).map_err(|error| {
            tracing::error!(error = chain(&error), "composing failed");
            Fault::Broken
        })?;
        let octets = match &said {
            Said::Alone(entity) => entity.bytes.len(),
            Said::Shared(content) => content.bytes.len(),
        };
        let max = self.config.message_max_octets;
        if header.text.len() + octets > max {
            return Err(Fault::TooLarge("a message", max));
        }
        if let Said::Alone(_) = said {
            self.octets += octets;
        }
        let max = self.config.batch_max_octets;
        if self.octets > max {
            return Err(Fault::TooLarge(TOGETHER, max));
        }
        Ok(match said {
            Said::Alone(entity) => {
                let composed = entity.with_header(header);
                Prepared::whole(id, message.into_summary(), composed, self.config.retention)
            }
            Said::Shared(content) => sharer(id, message, header, content, variables),
        })
    }
}

fn sharer(
    id: MessageId,
    message: Message,
    header: ComposedHeader,
    content: Arc<NewContent>,
    variables: Option<Variables>,
) -> Prepared {
    let is_template = content.kind == ContentKind::Template;
    Prepared {
        id,
        message: message.into_summary(),
        rfc_message_id: header.rfc_message_id,
        needs_smtputf8: header.needs_smtputf8,
        header: Some(header.text),
        variables: variables
            .filter(|_| is_template)
            .map(|variables| variables.as_json().to_owned()),
        content,
    }
}

fn make_shared(
    share: Share,
    content: &ContentFields,
    is_shared: bool,
    id: MessageId,
    config: &ApiConfig,
) -> Result<Shared, Vec<FieldError>> {
    let of = |kind, header_len, bytes, body_hash| {
        Arc::new(NewContent {
            kind,
            class: config.retention,
            header_len,
            bytes: Bytes::from(bytes),
            body_hash,
        })
    };
    if share.as_template {
        let template = ContentTemplate::new(content.clone())?;
        if is_shared && content.attached_octets() > 0 {
            // Once for all of them; the texts are looked at when they are filled in.
            content
                .attachments_with_html()
                .parse(&config.message_limits)?;
        }
        // Alone it is composed here, once and for all.
        let stored = is_shared.then(|| template.to_stored()).transpose();
        let stored = stored.map_err(|error| vec![FieldError::new("/html", "invalid", error)])?;
        let stored = stored.map(|bytes| of(ContentKind::Template, 0, bytes, [0; 32]));
        return Ok(Shared::Template(Box::new(template), stored));
    }
    let message = content.clone().parse(&config.message_limits)?;
    let entity = compose_entity(&message, id);
    let hash = body_hash(entity.body());
    Ok(Shared::Entity(of(
        ContentKind::Entity,
        entity.header_len,
        entity.bytes,
        hash,
    )))
}
