//! Values that are read from JSON to be printed.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::json::{MAP, SET, UUID};
use super::write_quoted;

/// The text notation of a value. It is written while its JSON is read, without the value in
/// between: a table of a thousand ports has fifty thousand atoms, which a client only prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        let mut text = String::new();
        Writer { to: &mut text, what: What::Value }.deserialize(deserializer)?;
        Ok(Text(text))
    }
}

/// What is read next.
#[derive(Clone, Copy)]
enum What {
    Value,
    Atom,
    /// The text of a UUID.
    Uuid,
    /// The array of a set's atoms.
    Atoms,
    /// The array of a map's pairs.
    Pairs,
    /// A pair of them.
    Pair,
}

struct Writer<'a> {
    to: &'a mut String,
    what: What,
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Writer<'_> {
    fn is_atom(&self) -> bool {
        matches!(self.what, What::Value | What::Atom)
    }

    fn write<E: Error>(self, atom: impl fmt::Display) -> Result<(), E> {
        match self.is_atom() {
            true => write!(self.to, "{atom}").map_err(E::custom),
            false => Err(E::invalid_type(Unexpected::Other("an atom"), &self)),
        }
    }

    /// Reads the next element. Returns whether there is one.
    fn next<'de, A: SeqAccess<'de>>(
        &mut self,
        items: &mut A,
        what: What,
    ) -> Result<bool, A::Error> {
        Ok(items.next_element_seed(Writer { to: self.to, what })?.is_some())
    }

    /// The same of one that there must be.
    fn must<'de, A: SeqAccess<'de>>(&mut self, items: &mut A, what: What) -> Result<(), A::Error> {
        match self.next(items, what)? {
            true => Ok(()),
            false => Err(A::Error::invalid_length(0, &*self)),
        }
    }

    /// Reads all elements of a set or a map.
    fn list<'de, A: SeqAccess<'de>>(&mut self, items: &mut A, what: What) -> Result<(), A::Error> {
        let begin = self.to.len();
        loop {
            let end = self.to.len();
            if end > begin {
                self.to.push_str(", ");
            }
            if !self.next(items, what)? {
                self.to.truncate(end);
                return Ok(());
            }
        }
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.what {
            What::Value => "an atom, a set or a map",
            What::Atom => "an atom",
            What::Uuid => "the text of a UUID",
            What::Atoms => "an array of atoms",
            What::Pairs => "an array of pairs",
            What::Pair => "a key and its value",
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.write(value),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.what {
            What::Uuid => self.to.push_str(value),
            // Writing to a string does not fail.
            What::Value | What::Atom => drop(write_quoted(self.to, value)),
            _ => return Err(E::invalid_type(Unexpected::Str(value), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        match self.what {
            What::Atoms => return self.list(&mut items, What::Atom),
            What::Pairs => return self.list(&mut items, What::Pair),
            What::Pair => {
                self.must(&mut items, What::Atom)?;
                self.to.push('=');
                return self.must(&mut items, What::Atom);
            }
            _ => {}
        }
        let kind = items.next_element::<Kind>()?;
        let (what, around) = match (kind, self.what) {
            (Some(Kind::Uuid), What::Value | What::Atom) => (What::Uuid, None),
            (Some(Kind::Set), What::Value) => (What::Atoms, Some(['[', ']'])),
            (Some(Kind::Map), What::Value) => (What::Pairs, Some(['{', '}'])),
            _ => return Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        };
        self.to.extend(around.map(|[open, _]| open));
        self.must(&mut items, what)?;
        self.to.extend(around.map(|[_, close]| close));
        Ok(())
    }
}

/// What an array is.
enum Kind {
    Uuid,
    Set,
    Map,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{UUID}, {SET} or {MAP}")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Kind, E> {
                match word {
                    UUID => Ok(Kind::Uuid),
                    SET => Ok(Kind::Set),
                    MAP => Ok(Kind::Map),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_str(Word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::value::{Atom, Value};

    fn atom() -> impl Strategy<Value = Atom> {
        prop_oneof![
            any::<bool>().prop_map(Atom::Bool),
            any::<i64>().prop_map(Atom::Integer),
            ".*".prop_map(Atom::string),
            "[a-z.]{0,5}".prop_map(Atom::string),
            Just(Atom::uuid("5c458bc8-24e8-4a91-aebb-6870216ac44b")),
        ]
    }

    proptest! {
        /// It is what the value is printed as.
        #[test]
        fn text_is_that_of_the_value(
            one in atom(),
            set in btree_set(atom(), 0..4),
            map in vec((atom(), atom()), 0..4),
        ) {
            for value in [Value::One(one), Value::Set(set), Value::Map(map.into_iter().collect())] {
                let json = serde_json::to_string(&value).unwrap();
                prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap().0, value.to_string());
            }
        }

        /// What is no value is no text either.
        #[test]
        fn both_read_the_same(
            json in r#"(\[?"(set|map|uuid|x)"[,\]]?|[\[\],]|1|true|"a"|\["a",1\]){0,9}"#,
        ) {
            let value = serde_json::from_str::<Value>(&json).is_ok();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).is_ok(), value, "{}", json);
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "null",
            "{}",
            "1.5",
            "18446744073709551615",
            "[]",
            r#"["set", 1]"#,
            r#"["set", [["set", []]]]"#,
            r#"["map", ["a"]]"#,
            r#"["map", [["a"]]]"#,
            r#"["map", [["a", ["map", []]]]]"#,
            r#"["uuid"]"#,
            r#"["uuid", 1]"#,
            "[1, 2]",
        ] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
            assert!(serde_json::from_str::<Text>(bad).is_err(), "{bad}");
        }
    }
}
