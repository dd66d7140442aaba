//! The messages of a batch, filled in from its defaults and told apart by what they say. Looks at
//! no field, and fills in no variable.

use std::collections::HashMap;
use std::rc::Rc;

use mail::batch::fill_in_absent;
use mail::content_source::ContentFields;
use mail::message_fields::{FieldError, SendRequest};
use mail::variables::{self, VariableMap, Variables};

use super::body::{BatchBody, below};
use crate::config::ApiConfig;
use crate::problem::Problem;

/// Where the contents of a batch have the one that comes from its defaults.
const OF_DEFAULTS: usize = 0;

/// The messages of a batch with their defaults, and what they say.
pub(super) struct Drafts {
    pub(super) messages: Vec<Result<Draft, Problem>>,
    pub(super) contents: Vec<Rc<ContentFields>>,
}

/// One message, everything filled in but its variables.
pub(super) struct Draft {
    /// Without content and variables.
    pub(super) request: SendRequest,
    pub(super) variables: Option<Result<Variables, FieldError>>,
    /// Whether it gives variables itself. Else it may be a template because of others.
    pub(super) gives_variables: bool,
    pub(super) share: Share,
    /// Names of the fields that come from the defaults.
    pub(super) from_defaults: Vec<&'static str>,
}

/// What messages with the same content have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Share {
    pub(super) content: usize,
    pub(super) as_template: bool,
}

/// Fills in the defaults, and finds out which messages say the same.
///
/// # Errors
/// The defaults have variables that are none.
pub(super) fn draft_all(body: BatchBody, config: &ApiConfig) -> Result<Drafts, Problem> {
    let mut defaults = body.defaults;
    let max_octets = config.message_limits.variables_max_octets;
    let default_variables = defaults.variables.take();
    let default_variables = default_variables
        .map(|given| variables::parse(given.get()))
        .transpose()
        .map_err(|error| below("/defaults", Problem::fields([error])))?;
    let uses_variables = body.uses_variables;
    let mut contents = Contents::new(ContentFields::take(&mut defaults));
    let mut draft = |mut request: SendRequest| {
        let given = request.variables.take();
        let variables = uses_variables.then(|| {
            let own = given.as_ref().map(|given| variables::parse(given.get()));
            let own = own.unwrap_or_else(|| Ok(VariableMap::new()))?;
            Variables::new(own, default_variables.as_ref(), max_octets)
        });
        let own = ContentFields::take(&mut request);
        let mut from_defaults = fill_in_absent(&mut request, &defaults);
        let (content, filled_in) = contents.number(own);
        from_defaults.extend(filled_in);
        Draft {
            request,
            share: Share {
                content,
                as_template: variables.is_some() && contents.is_template(content),
            },
            variables,
            gives_variables: given.is_some(),
            from_defaults,
        }
    };
    let messages = body.messages.into_iter();
    Ok(Drafts {
        messages: messages.map(|message| message.map(&mut draft)).collect(),
        contents: contents.all,
    })
}

/// The different contents of a batch, in the order they came.
struct Contents {
    all: Vec<Rc<ContentFields>>,
    are_templates: Vec<bool>,
    numbers: HashMap<Rc<ContentFields>, usize>,
}

impl Contents {
    fn new(defaults: ContentFields) -> Self {
        Self {
            are_templates: vec![defaults.is_template()],
            all: vec![Rc::new(defaults)],
            numbers: HashMap::new(),
        }
    }

    /// The number of the content of a message, and the fields that it has from the defaults.
    fn number(&mut self, own: ContentFields) -> (usize, Vec<&'static str>) {
        if own.is_absent() {
            // The usual case, in which nothing is copied or compared.
            return (OF_DEFAULTS, self.all[OF_DEFAULTS].names());
        }
        let (content, filled_in) = own.or(&self.all[OF_DEFAULTS]);
        let number = match self.numbers.get(&content) {
            Some(number) => *number,
            None => {
                let number = self.all.len();
                self.are_templates.push(content.is_template());
                let content = Rc::new(content);
                self.all.push(content.clone());
                self.numbers.insert(content, number);
                number
            }
        };
        (number, filled_in)
    }

    fn is_template(&self, number: usize) -> bool {
        self.are_templates[number]
    }
}
