//! A stored message as one piece again: its own header before what it shares, templates filled in.
//! Reads nothing from the database.

use bytes::Bytes;
use mail::content_source::{ContentTemplate, TemplateError};
use mail::dkim::body_hash;
use mail::variables::Variables;

use crate::accept::ContentKind;
use crate::content::StoredMessage;

/// Header and body of a message, as its recipients get them.
#[derive(Debug, Clone)]
pub struct WholeMessage {
    /// Header and body.
    pub bytes: Bytes,
    /// Octets of `bytes` that are header, the empty line included.
    pub header_len: usize,
    /// SHA-256 of the canonicalised body, for DKIM.
    pub body_hash: [u8; 32],
}

impl StoredMessage {
    /// The same with the entity that its variables make of its template; always the same octets.
    ///
    /// # Errors
    /// The template or the variables are damaged.
    pub fn filled_in(self, template: &ContentTemplate) -> Result<Self, TemplateError> {
        let variables = self.variables.clone().unwrap_or_default();
        let variables = Variables::stored(variables).map_err(|error| vec![error])?;
        let entity = template.entity(&variables, self.id)?;
        Ok(Self {
            kind: ContentKind::Entity,
            header_len: entity.header_len,
            body_hash: body_hash(entity.body()),
            bytes: Bytes::from(entity.bytes),
            ..self
        })
    }

    /// The message in one piece. Takes as long as composing where the content is a template.
    ///
    /// # Errors
    /// The template or the variables are damaged.
    pub fn into_whole(self) -> Result<WholeMessage, TemplateError> {
        let message = match self.kind {
            ContentKind::Template => {
                let template = ContentTemplate::from_stored(&self.bytes)?;
                self.filled_in(&template)?
            }
            ContentKind::Entity | ContentKind::Message => self,
        };
        let bytes = match message.header.is_empty() {
            true => message.bytes,
            false => Bytes::from([message.header.as_bytes(), &message.bytes].concat()),
        };
        Ok(WholeMessage {
            bytes,
            header_len: message.header.len() + message.header_len,
            body_hash: message.body_hash,
        })
    }
}
