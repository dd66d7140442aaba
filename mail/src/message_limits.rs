//! How much one message may hold; `message` holds requests against it.
//! Configuration may change the values, so nothing else in the crate relies on them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How much one message may hold. Lengths in octets of UTF-8.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Mailboxes in To, Cc and Bcc together; never more than [`DELIVERIES_MAX`](crate::ids::DELIVERIES_MAX) count.
    pub recipients_max: usize,
    /// Mailboxes in Reply-To.
    pub reply_to_max: usize,
    /// Subject.
    pub subject_max_octets: usize,
    /// HTML and text together.
    pub content_max_octets: usize,
    /// Header fields of the sender's own.
    pub headers_max: usize,
    /// Attachments.
    pub attachments_max: usize,
    /// All attachments together, in base64 as they come.
    pub attachments_max_octets: usize,
    /// Tags.
    pub tags_max: usize,
    /// One tag.
    pub tag_max_octets: usize,
    /// Metadata keys.
    pub metadata_max: usize,
    /// One metadata key.
    pub metadata_key_max_octets: usize,
    /// One metadata value.
    pub metadata_value_max_octets: usize,
    /// The variables of one message, as JSON.
    pub variables_max_octets: usize,
    /// How far ahead of now `send_at` may be.
    pub send_ahead_max: Duration,
    /// What `expires_in` may say.
    pub expires_in: RangeInclusive<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recipients_max: 50,
            reply_to_max: 10,
            subject_max_octets: 998,
            content_max_octets: 25 * 1024 * 1024,
            headers_max: 50,
            attachments_max: 50,
            attachments_max_octets: 40 * 1024 * 1024,
            tags_max: 10,
            tag_max_octets: 64,
            metadata_max: 20,
            metadata_key_max_octets: 64,
            metadata_value_max_octets: 512,
            variables_max_octets: 64 * 1024,
            send_ahead_max: Duration::from_secs(30 * 86_400),
            // RFC 5321 section 4.5.4.1: nobody tries longer than five days.
            expires_in: Duration::from_secs(60)..=Duration::from_secs(5 * 86_400),
        }
    }
}
