//! The attachments that messages share: many messages hold the same ones without a copy, and they
//! are told apart without looking at them again. Checks nothing.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message_fields::AttachmentRequest;

/// Keyed, or a sender could make lists that look alike.
static DIGESTS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A list of attachments as given. Cheap to clone and to hash, however large the files are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SharedFiles {
    digest: u64,
    list: Arc<Vec<AttachmentRequest>>,
}

impl SharedFiles {
    pub(crate) fn new(list: Vec<AttachmentRequest>) -> Self {
        Self {
            digest: if list.is_empty() {
                0
            } else {
                DIGESTS.hash_one(&list)
            },
            list: Arc::new(list),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Octets of the files, in base64.
    pub(crate) fn octets(&self) -> usize {
        let of_one = |one: &AttachmentRequest| one.content.as_ref().map_or(0, String::len);
        self.list.iter().map(of_one).sum()
    }

    /// The list itself: copied if others hold it.
    pub(crate) fn into_list(self) -> Vec<AttachmentRequest> {
        Arc::unwrap_or_clone(self.list)
    }
}

impl Hash for SharedFiles {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Serialize for SharedFiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::new)
    }
}
