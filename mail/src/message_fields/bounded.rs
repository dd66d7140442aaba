//! Lists and maps of strings that stop being read at a bound, so that a body of many tiny members
//! cannot fill the memory before anyone counts them.
//! The bounds lie above every limit of a message: which limit is right is not decided here.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::OneOrMany;

/// How the refusal of a list or map begins that has more members than are read.
pub const TOO_MANY: &str = "too many members";

/// Mailboxes of one list.
const MAILBOXES_MAX: usize = 1_100;

/// Reads an array of strings.
///
/// # Errors
/// No array, a member that is no string, or more than `MAX` members.
pub fn list<'de, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(List::<MAX>)
}

/// Reads an array of anything.
///
/// # Errors
/// No array, a member that is no `T`, or more than `MAX` members.
pub fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Items::<T, MAX>(PhantomData))
}

/// Reads an object of strings; the last of two equal keys counts.
///
/// # Errors
/// No object, a value that is no string, or more than `MAX` members, repeated keys counted.
pub fn map<'de, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_map(Map::<MAX>)
}

fn too_many<E: Error>(max: usize) -> E {
    E::custom(format_args!("{TOO_MANY}: at most {max} are read"))
}

struct List<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for List<MAX> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<String>, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            if list.len() == MAX {
                return Err(too_many(MAX));
            }
            list.push(member);
        }
        Ok(list)
    }
}

struct Items<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(member) = members.next_element()? {
            if items.len() == MAX {
                return Err(too_many(MAX));
            }
            items.push(member);
        }
        Ok(items)
    }
}

struct Map<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for Map<MAX> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        let mut read = 0;
        while let Some((key, value)) = members.next_entry()? {
            if read == MAX {
                return Err(too_many(MAX));
            }
            read += 1;
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrList)
    }
}

struct StringOrList;

impl<'de> Visitor<'de> for StringOrList {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, members: A) -> Result<OneOrMany, A::Error> {
        List::<MAILBOXES_MAX>
            .visit_seq(members)
            .map(OneOrMany::Many)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SendRequest;
    use super::*;

    fn read(json: &str) -> Result<SendRequest, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn members_beyond_the_bound_are_not_read() {
        let list = |field: &str, count: usize| {
            read(&format!(
                "{{\"{field}\":[{}]}}",
                vec!["\"\""; count].join(",")
            ))
        };
        let map = |field: &str, count: usize| {
            let members: Vec<_> = (0..count).map(|key| format!("\"{key}\":\"\"")).collect();
            read(&format!("{{\"{field}\":{{{}}}}}", members.join(",")))
        };
        for field in ["to", "cc", "bcc", "reply_to"] {
            assert!(list(field, MAILBOXES_MAX).is_ok(), "{field}");
            let error = list(field, MAILBOXES_MAX + 1).unwrap_err();
            assert!(error.starts_with(TOO_MANY), "{field}: {error}");
        }
        assert!(list("tags", 100).is_ok());
        assert!(list("tags", 101).unwrap_err().starts_with(TOO_MANY));
        for (field, max) in [("metadata", 200), ("headers", 500)] {
            assert!(map(field, max).is_ok(), "{field}");
            assert!(map(field, max + 1).unwrap_err().starts_with(TOO_MANY));
            let repeated = vec!["\"k\":\"\""; max + 1].join(",");
            let error = read(&format!("{{\"{field}\":{{{repeated}}}}}")).unwrap_err();
            assert!(error.starts_with(TOO_MANY), "{field}: {error}");
        }
    }

    #[test]
    fn a_list_may_be_written_as_its_member() {
        let request = read(r#"{"to":"a@b.example","cc":["c","d"]}"#).unwrap();
        assert_eq!(request.to.as_slice(), ["a@b.example"]);
        assert_eq!(request.cc.as_slice(), ["c", "d"]);
        for wrong in [r#"{"to":null}"#, r#"{"to":{"a":"b"}}"#, r#"{"to":[[]]}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
