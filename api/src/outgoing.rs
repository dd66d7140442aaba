//! What a request wants sent: a message that we compose, or one that came finished. One face for
//! both, so that the way of a send has no second branch.

use mail::address::EmailAddress;
use mail::compose::{ComposeContext, ComposeError, Composed, compose};
use mail::domain_name::DomainName;
use mail::handling::Handling;
use mail::mailbox::Mailbox;
use mail::message::{Message, MessageSummary};
use mail::raw::RawMessage;

/// A message on its way to being accepted. Boxed: one of the kinds is large.
pub(crate) enum Outgoing {
    Fields(Box<Message>),
    Raw(Box<RawMessage>),
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::Fields(Box::new(message))
    }
}

impl From<RawMessage> for Outgoing {
    fn from(message: RawMessage) -> Self {
        Self::Raw(Box::new(message))
    }
}

impl Outgoing {
    fn from(&self) -> &Mailbox {
        match self {
            Self::Fields(message) => message.from(),
            Self::Raw(message) => &message.summary().from,
        }
    }

    /// Domains that the account must have proved: that of the author first.
    pub(crate) fn sender_domains(&self) -> impl Iterator<Item = &DomainName> {
        let others = match self {
            Self::Fields(_) => None,
            Self::Raw(message) => Some(message.other_senders()),
        };
        let author = self.from().address();
        std::iter::once(author)
            .chain(others.into_iter().flatten())
            .map(EmailAddress::domain)
    }

    pub(crate) fn handling(&self) -> &Handling {
        match self {
            Self::Fields(message) => message.handling(),
            Self::Raw(message) => &message.summary().handling,
        }
    }

    /// What composing takes is in proportion to this.
    pub(crate) fn octets(&self) -> usize {
        match self {
            Self::Fields(message) => message.content_octets(),
            Self::Raw(message) => message.content_octets(),
        }
    }

    /// The octets for the wire, and what is known of them. The rest is let go: with attachments
    /// it is as large as the octets.
    pub(crate) fn compose(
        self,
        context: &ComposeContext<'_>,
    ) -> Result<(MessageSummary, Composed), ComposeError> {
        match self {
            Self::Fields(message) => {
                let composed = compose(&message, context)?;
                Ok((message.into_summary(), composed))
            }
            Self::Raw(message) => message.compose(context),
        }
    }
}
