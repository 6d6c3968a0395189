//! Values of table columns: atoms, sets and maps, in the notations of Open vSwitch.
//!
//! There are three notations. *Text* (`[10, 20]`, `{a=b}`) is typed and printed. *Bare* (`10 20`)
//! is text for scripts. *JSON* is that of RFC 7047, section 5.1, and also travels between `tramad`
//! and `tramactl`. The daemon decides what a column accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use smol_str::SmolStr;

mod json;
mod pairs;
mod text;

pub use json::AsTools;
pub use pairs::Pairs;
pub use text::Text;

/// A single value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Text. Most texts are short, and a table of a thousand ports has fifty thousand.
    String(SmolStr),
    /// The UUID of a record, in its usual text form.
    Uuid(SmolStr),
}

/// The value of one cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Exactly one atom. An optional column that is empty holds an empty [`Value::Set`].
    One(Atom),
    /// Any number of atoms.
    Set(BTreeSet<Atom>),
    /// Atoms by key.
    Map(Pairs),
}

impl Value {
    /// The value of an empty optional column.
    pub const NOTHING: Value = Value::Set(BTreeSet::new());

    /// One string.
    pub fn string(text: impl Into<SmolStr>) -> Value {
        Value::One(Atom::string(text))
    }

    /// An optional column's value.
    pub fn optional(atom: Option<Atom>) -> Value {
        atom.map_or(Value::NOTHING, Value::One)
    }

    /// A map of strings.
    pub fn strings<K: Into<SmolStr>, V: Into<SmolStr>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Value {
        let pair = |(key, value): (K, V)| (Atom::string(key), Atom::string(value));
        Value::Map(pairs.into_iter().map(pair).collect())
    }

    /// A map of counts.
    pub fn counts(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Value {
        let key = |name| Atom::String(SmolStr::new_static(name));
        let pair = |(name, count)| (key(name), Atom::from(count));
        Value::Map(counts.into_iter().map(pair).collect())
    }

    /// The number of atoms, or of pairs of a map.
    pub fn len(&self) -> usize {
        match self {
            Value::One(_) => 1,
            Value::Set(atoms) => atoms.len(),
            Value::Map(pairs) => pairs.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The atoms; none for a map.
    pub fn atoms(&self) -> BTreeSet<Atom> {
        match self {
            Value::One(atom) => BTreeSet::from([atom.clone()]),
            Value::Set(atoms) => atoms.clone(),
            Value::Map(_) => BTreeSet::new(),
        }
    }

    /// The pairs, to change them; none unless it is a map.
    pub fn pairs(&self) -> BTreeMap<Atom, Atom> {
        match self {
            Value::Map(pairs) => pairs.clone().into(),
            _ => BTreeMap::new(),
        }
    }

    /// The value of this key of a map.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        match self {
            Value::Map(pairs) => pairs.get(key),
            _ => None,
        }
    }

    /// The value of this key of a map of strings.
    pub fn at(&self, key: &str) -> Option<&Atom> {
        self.get(&Atom::string(key))
    }

    /// The bare notation.
    pub fn bare(&self) -> String {
        match self {
            Value::One(atom) => atom.bare(),
            Value::Set(atoms) => atoms.iter().map(Atom::bare).collect::<Vec<_>>().join(" "),
            Value::Map(pairs) => {
                let pairs =
                    pairs.iter().map(|(key, atom)| format!("{}={}", key.bare(), atom.bare()));
                pairs.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

impl Value {
    /// Writes the text notation. Its writer is known, so that a table of fifty thousand atoms is
    /// not printed by way of a formatter for each.
    ///
    /// # Errors
    /// Those of the writer; a [`String`] has none.
    pub fn write_text(&self, to: &mut impl Write) -> fmt::Result {
        match self {
            Value::One(atom) => atom.write_text(to),
            Value::Set(atoms) => write_list(to, '[', atoms, |to, atom| atom.write_text(to), ']'),
            Value::Map(pairs) => {
                let pair = |to: &mut _, (key, atom): &(Atom, Atom)| {
                    key.write_text(to)?;
                    Write::write_char(to, '=')?;
                    atom.write_text(to)
                };
                write_list(to, '{', pairs, pair, '}')
            }
        }
    }
}

fn write_list<W: Write, T>(
    to: &mut W,
    open: char,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut W, T) -> fmt::Result,
    close: char,
) -> fmt::Result {
    to.write_char(open)?;
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            to.write_str(", ")?;
        }
        write(to, item)?;
    }
    to.write_char(close)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_text(f)
    }
}

impl Atom {
    /// Text.
    pub fn string(text: impl Into<SmolStr>) -> Atom {
        Atom::String(text.into())
    }

    /// The UUID of a record.
    pub fn uuid(text: impl Into<SmolStr>) -> Atom {
        Atom::Uuid(text.into())
    }

    /// The text without quotes.
    pub fn bare(&self) -> String {
        match self {
            Atom::String(text) => text.to_string(),
            other => other.to_string(),
        }
    }
}

impl From<u64> for Atom {
    /// Counters wrap beyond 2⁶³, as those of Open vSwitch do.
    fn from(count: u64) -> Atom {
        Atom::Integer(count as i64)
    }
}

impl Atom {
    fn write_text(&self, to: &mut impl Write) -> fmt::Result {
        match self {
            Atom::Bool(value) => write!(to, "{value}"),
            Atom::Integer(value) => write!(to, "{value}"),
            Atom::String(value) => write_quoted(to, value),
            Atom::Uuid(value) => to.write_str(value),
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_text(f)
    }
}

/// The string itself if it is a plain word, else a JSON string: `lab`, `"lab/x"`, `"10"`.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    // Writing to a string does not fail.
    let _ = write_quoted(&mut quoted, text);
    quoted
}

fn write_quoted(to: &mut impl Write, text: &str) -> fmt::Result {
    if is_plain(text) {
        return to.write_str(text);
    }
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return to.write_str(&serde_json::to_string(text).unwrap_or_default());
    }
    to.write_char('"')?;
    to.write_str(text)?;
    to.write_char('"')
}

fn is_plain(text: &str) -> bool {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    start && text.bytes().all(is_of_word) && text != "true" && text != "false" && !is_uuid(text)
}

/// Whether the text has the usual form of a UUID: 32 hexadecimal digits in five groups.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(words: &[&str]) -> Value {
        Value::Set(words.iter().map(|word| Atom::String((*word).into())).collect())
    }

    #[test]
    fn strings_are_quoted_only_where_a_reader_needs_it() {
        for plain in ["lab", "_x", "a-b.c9", "trueish"] {
            assert_eq!(quoted(plain), plain);
        }
        for odd in ["", "10", "a b", "lab/x", "true", "false", "a,b", "-x", "é"] {
            assert_eq!(quoted(odd), format!("\"{odd}\""));
        }
        for (odd, shown) in [("a\"b", r#""a\"b""#), ("a\nb", r#""a\nb""#), ("a\\b", r#""a\\b""#)] {
            assert_eq!(quoted(odd), shown);
        }
    }

    #[test]
    fn text_bare_and_json_of_each_shape() {
        let one = Value::One(Atom::Integer(7));
        assert_eq!((one.to_string(), one.bare()), ("7".into(), "7".into()));
        let set = text(&["b", "a/c"]);
        assert_eq!((set.to_string(), set.bare()), (r#"["a/c", b]"#.into(), "a/c b".into()));
        let map = Value::strings([("k", "1")]);
        assert_eq!((map.to_string(), map.bare()), (r#"{k="1"}"#.into(), "k=1".into()));
        assert_eq!(map.at("k"), Some(&Atom::String("1".into())));
        let number = |number| (Atom::Integer(number), Atom::Bool(true));
        let by_number = Value::Map([number(10), number(9)].into_iter().collect());
        assert_eq!(by_number.to_string(), "{9=true, 10=true}");
        assert_eq!(by_number.at("9"), None);
        assert_eq!(Value::NOTHING.to_string(), "[]");
        assert_eq!(serde_json::to_value(AsTools(&text(&["x"]))).unwrap(), json!("x"));
        assert_eq!(serde_json::to_value(text(&["x"])).unwrap(), json!(["set", ["x"]]));
    }

    #[test]
    fn json_survives_the_way_there_and_back() {
        let uuid = Atom::Uuid("5c458bc8-24e8-4a91-aebb-6870216ac44b".into());
        let values = [
            Value::One(Atom::Bool(true)),
            Value::One(Atom::Integer(-3)),
            Value::string("set"),
            Value::One(uuid.clone()),
            Value::NOTHING,
            Value::Set([uuid.clone()].into()),
            Value::Map(
                [(10, uuid.clone()), (9, uuid)]
                    .map(|(n, it)| (Atom::Integer(n), it))
                    .into_iter()
                    .collect(),
            ),
            text(&["a", "b"]),
            Value::counts([("rx", 5)]),
        ];
        for value in values {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value, "{json}");
        }
        for bad in ["null", "{}", "1.5", r#"["set", 1]"#, r#"["map", [["a"]]]"#, "[1, 2]"] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
    }
}
