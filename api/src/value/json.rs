//! Values in JSON, as in RFC 7047, section 5.1.
//!
//! They are written and read without a tree of JSON values between: a table of a thousand ports has
//! fifty thousand atoms.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use super::{Atom, Pairs, Value};

pub(super) const UUID: &str = "uuid";
pub(super) const SET: &str = "set";
pub(super) const MAP: &str = "map";

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Atom::Bool(value) => serializer.serialize_bool(*value),
            Atom::Integer(value) => serializer.serialize_i64(*value),
            Atom::String(value) => serializer.serialize_str(value),
            Atom::Uuid(value) => (UUID, value).serialize(serializer),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::One(atom) => atom.serialize(serializer),
            Value::Set(atoms) => (SET, atoms).serialize(serializer),
            Value::Map(pairs) => (MAP, pairs).serialize(serializer),
        }
    }
}

/// A value as the tools of Open vSwitch print it: a set of one is written as its atom.
pub struct AsTools<'a>(pub &'a Value);

impl Serialize for AsTools<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Set(atoms) if atoms.len() == 1 => atoms.first().serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Atom, D::Error> {
        let value = deserializer.deserialize_any(Reader)?;
        let expected = &"a boolean, an integer, a string or a UUID";
        match value {
            Value::One(atom) => Ok(atom),
            _ => Err(Error::invalid_type(Unexpected::Seq, expected)),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an atom, a set or a map")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::One(Atom::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::One(Atom::Integer(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        let integer = i64::try_from(value).map(Atom::Integer);
        let integer = integer.map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
        Ok(Value::One(integer))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::One(Atom::String(value.into())))
    }

    /// Reads the rest of an array that begins with its kind.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let kind: SmolStr = next(&mut items)?;
        match kind.as_str() {
            UUID => Ok(Value::One(Atom::Uuid(next(&mut items)?))),
            SET => Ok(Value::Set(next::<_, BTreeSet<Atom>>(&mut items)?)),
            MAP => Ok(Value::Map(next::<_, Vec<_>>(&mut items)?.into_iter().collect())),
            other => Err(Error::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(items: &mut A) -> Result<T, A::Error> {
    items.next_element()?.ok_or_else(|| Error::invalid_length(0, &Reader))
}
