//! Types of columns, and how text becomes a [`Value`] of a type.
//!
//! The grammar is that of Open vSwitch's database commands: a word or a JSON string is an atom;
//! sets are atoms and maps are `key=value` pairs, separated by commas or blanks, with or without
//! brackets; integers in sets may be ranges (`10-20`). In one place more is taken: a value that is
//! any text may have colons (`mac=52:54:00:00:00:01`), which Open vSwitch refuses without quotes.

use std::collections::{BTreeMap, BTreeSet};

use trama_api::value::{Atom, Pairs, Value, is_uuid};

use crate::Fault;

/// The kind of a column's atoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    String,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// An integer in this range, bounds included.
    Integer(i64, i64),
    /// `true` or `false`.
    Bool,
    /// The UUID of a record.
    Uuid,
}

/// How many atoms a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number.
    Set,
    /// Any number, by key.
    Map,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    /// The kind of its atoms; in a map, of its values.
    pub kind: Kind,
    /// The number of its atoms.
    pub shape: Shape,
    /// The kind of a map's keys.
    pub keys: Kind,
}

impl Type {
    /// A column of this kind and shape.
    pub(crate) const fn new(kind: Kind, shape: Shape) -> Type {
        Type { kind, shape, keys: Kind::String }
    }

    /// A map with keys and values of these kinds.
    pub(crate) const fn map(keys: Kind, values: Kind) -> Type {
        Type { kind: values, shape: Shape::Map, keys }
    }

    /// Reads a whole column value.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, Fault> {
        let mut scanner = Scanner { whole: text, rest: text, of: *self };
        if self.shape == Shape::Map {
            return Ok(Value::Map(scanner.list('{', '}', |s| s.pair(self))?.into_iter().collect()));
        }
        let atoms = scanner.list('[', ']', |s| s.atoms(self.kind))?;
        let atoms: BTreeSet<Atom> = atoms.into_iter().flatten().collect();
        let shaped = self.shaped(atoms).map_err(|count| match self.shape {
            Shape::One if count == 0 => format!("{text}: exactly one value is needed"),
            _ => format!("{text}: {count} value(s) specified but the maximum number is 1"),
        });
        Ok(shaped?)
    }

    /// Gives atoms the column's shape. Error: the number of atoms, if it does not fit.
    pub(crate) fn shaped(&self, mut atoms: BTreeSet<Atom>) -> Result<Value, usize> {
        match (self.shape, atoms.len()) {
            (Shape::One | Shape::Optional, 1) => atoms.pop_first().map(Value::One).ok_or(0),
            (Shape::Optional, 0) | (Shape::Set, _) => Ok(Value::Set(atoms)),
            (_, count) => Err(count),
        }
    }

    /// Reads one atom from the whole text: `a,b` is one string.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse_atom(&self, text: &str) -> Result<Atom, Fault> {
        if text.starts_with('"') {
            let text = serde_json::from_str::<String>(text).map_err(|e| format!("{text}: {e}"))?;
            return self.kind.atom(&text, true);
        }
        self.kind.atom(text, false)
    }

    /// Reads one key of a map from the whole text.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse_key(&self, text: &str) -> Result<Atom, Fault> {
        self.keys.atom(text, false)
    }

    /// The value of a column of this type that nobody has set.
    pub(crate) fn default(&self) -> Value {
        match (self.shape, self.kind) {
            (Shape::Map, _) => Value::Map(Pairs::default()),
            (Shape::Optional | Shape::Set, _) => Value::NOTHING,
            (Shape::One, Kind::Bool) => Value::One(Atom::Bool(false)),
            (Shape::One, Kind::Integer(..)) => Value::One(Atom::Integer(0)),
            (Shape::One, _) => Value::string(""),
        }
    }

    fn describe(&self) -> &'static str {
        match (self.kind, self.shape) {
            (_, Shape::Map) => "map of key=value pairs",
            (Kind::Integer(..), Shape::Set) => "set of integers",
            (Kind::Integer(..), _) => "integer",
            (Kind::Bool, _) => "true or false",
            (Kind::Uuid, _) => "UUID",
            (_, Shape::Set) => "set of strings",
            _ => "string",
        }
    }
}

impl Kind {
    fn atom(self, text: &str, quoted: bool) -> Result<Atom, Fault> {
        match self {
            Kind::String => Ok(Atom::string(text)),
            Kind::Enum(words) if words.contains(&text) => Ok(Atom::string(text)),
            Kind::Enum(words) => Err(format!(
                "constraint violation: {text} is not one of the allowed values ([{}])",
                words.join(", ")
            )
            .into()),
            Kind::Integer(min, max) => match text.parse::<i64>() {
                Ok(number) if quoted => {
                    Err(format!("\"{number}\" is a string, not an integer").into())
                }
                Ok(number) if (min..=max).contains(&number) => Ok(Atom::Integer(number)),
                Ok(number) => Err(out_of_range(number, min, max).into()),
                Err(_) => Err(format!("\"{text}\" is not a valid integer or range").into()),
            },
            Kind::Bool => match text {
                "true" | "yes" | "on" | "1" => Ok(Atom::Bool(true)),
                "false" | "no" | "off" | "0" => Ok(Atom::Bool(false)),
                _ => {
                    Err(format!("\"{text}\" is not a valid boolean (use \"true\" or \"false\")")
                        .into())
                }
            },
            Kind::Uuid if is_uuid(text) => Ok(Atom::uuid(text.to_ascii_lowercase())),
            Kind::Uuid => Err(format!("\"{text}\" is not a valid UUID").into()),
        }
    }
}

fn out_of_range(number: i64, min: i64, max: i64) -> String {
    if max == i64::MAX {
        return format!("constraint violation: {number} is less than minimum allowed value {min}");
    }
    format!("constraint violation: {number} is not in the valid range {min} to {max} (inclusive)")
}

/// Characters that end an unquoted word.
pub(crate) const DELIMITERS: &str = ":=, []{}!<>";

/// What to do about a character that ends a word.
const QUOTE: &str = r#"put the value into double quotes, and single ones for the shell: '"a=b"'"#;

struct Scanner<'a> {
    whole: &'a str,
    rest: &'a str,
    of: Type,
}

impl Scanner<'_> {
    /// `[` item, item ... `]`, the brackets optional.
    fn list<T>(
        &mut self,
        open: char,
        close: char,
        item: impl Fn(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut items = Vec::new();
        self.skip_blanks();
        let bracketed = self.take(open);
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if bracketed && self.take(close) {
                break;
            }
            if self.rest.is_empty() {
                if bracketed {
                    let message = format!("{}: missing \"{close}\" at end of data", self.whole);
                    return Err(message.into());
                }
                break;
            }
            items.push(item(self)?);
        }
        self.skip_blanks();
        if self.rest.is_empty() { Ok(items) } else { Err(self.unexpected()) }
    }

    /// A word of this kind or a JSON string; whether it was a string.
    fn word(&mut self, kind: Kind) -> Result<(String, bool), Fault> {
        if self.rest.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let text = match strings.next() {
                Some(Ok(text)) => text,
                _ => {
                    return Err(format!("{}: missing \" at the end of a string", self.whole).into());
                }
            };
            self.rest = self.rest.get(strings.byte_offset()..).unwrap_or_default();
            return Ok((text, true));
        }
        // Nothing follows a colon in Open vSwitch's values, so no text has two meanings.
        let ends = |c| DELIMITERS.contains(c) && !(c == ':' && kind == Kind::String);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.unexpected());
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok((word.to_owned(), false))
    }

    /// One atom, or all integers of a range.
    fn atoms(&mut self, kind: Kind) -> Result<Vec<Atom>, Fault> {
        let (word, quoted) = self.word(kind)?;
        if let (Kind::Integer(min, max), false) = (kind, quoted)
            && let Some((from, to)) = range(&word)
        {
            if from > to {
                return Err(format!(
                    "\"{word}\" is not a valid range. Range end cannot be before start."
                )
                .into());
            }
            if let Some(outside) = [from, to].into_iter().find(|end| !(min..=max).contains(end)) {
                return Err(out_of_range(outside, min, max).into());
            }
            // A column of VLANs needs no larger set.
            if to.abs_diff(from) > 4095 {
                return Err(format!("\"{word}\" holds more than 4096 integers").into());
            }
            return Ok((from..=to).map(Atom::Integer).collect());
        }
        Ok(vec![kind.atom(&word, quoted)?])
    }

    fn pair(&mut self, of: &Type) -> Result<(Atom, Atom), Fault> {
        let (key, is_quoted) = self.key()?;
        let key = of.keys.atom(&key, is_quoted)?;
        if !self.take('=') {
            let near = self.rest.chars().next().map_or("the end".into(), |c| format!("\"{c}\""));
            return Err(format!("{}: syntax error at {near} expecting \"=\"", self.whole).into());
        }
        let (word, quoted) = self.word(of.kind)?;
        Ok((key, of.kind.atom(&word, quoted)?))
    }

    /// The key of a pair, which ends at a colon as in `COLUMN:KEY=VALUE`.
    fn key(&mut self) -> Result<(String, bool), Fault> {
        self.word(Kind::Enum(&[]))
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn unexpected(&self) -> Fault {
        let of = self.of.describe();
        let Some(c) = self.rest.chars().next() else {
            return format!("{}: unexpected end parsing {of}", self.whole).into();
        };
        let message = format!("{}: unexpected \"{c}\" parsing {of}", self.whole);
        let can_quote = self.of.kind == Kind::String && !self.whole.contains('"');
        Fault::new(message, if can_quote { QUOTE } else { "" })
    }
}

/// `10-20`; a leading minus belongs to the number.
fn range(word: &str) -> Option<(i64, i64)> {
    let middle = word.get(1..)?.find('-')? + 1;
    let (from, to) = word.split_at(middle);
    Some((from.parse().ok()?, to.get(1..)?.parse().ok()?))
}

/// A map's values as text.
pub(crate) fn string_map(value: Value) -> BTreeMap<String, String> {
    value.pairs().into_iter().map(|(key, atom)| (key.bare(), atom.bare())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    const TAG: Type = Type::new(Kind::Integer(0, 4095), Shape::Optional);
    const TRUNKS: Type = Type::new(Kind::Integer(0, 4095), Shape::Set);
    const NAME: Type = Type::new(Kind::String, Shape::One);
    const NAMES: Type = Type::new(Kind::String, Shape::Set);
    const IDS: Type = Type::new(Kind::String, Shape::Map);
    const CABLE: Type = Type::new(Kind::Bool, Shape::One);

    fn shown(of: Type, text: &str) -> String {
        match of.parse(text) {
            Ok(value) => value.to_string(),
            Err(message) => format!("ERR {message}"),
        }
    }

    #[test]
    fn what_people_type_is_understood() {
        for (of, text, expected) in [
            (TAG, "10", "10"),
            (TAG, "[10]", "10"),
            (TAG, "[]", "[]"),
            (TRUNKS, "10,20", "[10, 20]"),
            (TRUNKS, "[20, 10 5]", "[5, 10, 20]"),
            (TRUNKS, "1-3,9", "[1, 2, 3, 9]"),
            (TRUNKS, "5,5", "[5]"),
            (NAME, "a.b", "a.b"),
            (NAME, "\"a b\"", "\"a b\""),
            (NAME, "\"\"", "\"\""),
            (NAME, "/tmp/x", "\"/tmp/x\""),
            (NAME, "52:54:00:00:00:01", "\"52:54:00:00:00:01\""),
            (NAMES, "fd00::/64,10.0.0.0/8", "[\"10.0.0.0/8\", \"fd00::/64\"]"),
            (IDS, "a=52:54,b=c:", "{a=\"52:54\", b=\"c:\"}"),
            (IDS, "a=b,c=d", "{a=b, c=d}"),
            (IDS, "{a=\"b,c\", d=e f=7}", "{a=\"b,c\", d=e, f=\"7\"}"),
            (IDS, "{}", "{}"),
            (CABLE, "true", "true"),
            (CABLE, "off", "false"),
        ] {
            assert_eq!(shown(of, text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (of, text, part) in [
            (TAG, "5000", "5000 is not in the valid range 0 to 4095 (inclusive)"),
            (TAG, "-1", "-1 is not in the valid range"),
            (TAG, "abc", "\"abc\" is not a valid integer or range"),
            (TAG, "1,2", "2 value(s) specified but the maximum number is 1"),
            (TAG, "99999999999999999999", "is not a valid integer"),
            (TRUNKS, "[5,10", "missing \"]\" at end of data"),
            (TRUNKS, "5}", "unexpected \"}\" parsing set of integers"),
            (TRUNKS, "5-1", "Range end cannot be before start"),
            (TRUNKS, "1-9000000000000000000", "9000000000000000000 is not in the valid range"),
            (NAME, "a,b", "2 value(s) specified"),
            (NAME, "[]", "exactly one value"),
            (NAME, "\"a", "missing \" at the end"),
            (IDS, "a", "a: syntax error at the end expecting \"=\""),
            (IDS, "a=b=c", "unexpected \"=\""),
            (IDS, "a:b=c", "syntax error at \":\" expecting"),
            (NAME, "a=b", "unexpected \"=\" parsing string; put the value into double quotes"),
            (TAG, "1:2", "unexpected \":\" parsing integer"),
            (CABLE, "maybe", "not a valid boolean"),
        ] {
            let shown = shown(of, text);
            assert!(shown.starts_with("ERR ") && shown.contains(part), "{text}: {shown}");
        }
    }

    #[test]
    fn an_atom_is_taken_whole() {
        assert_eq!(IDS.parse_atom("x,y=z").unwrap(), Atom::string("x,y=z"));
        assert_eq!(IDS.parse_atom("\"x y\"").unwrap(), Atom::string("x y"));
        assert!(IDS.parse_atom("\"x").is_err());
        assert!(TAG.parse_atom("\"1\"").is_err());
    }

    proptest! {
        /// Printed values can be typed again, with quotes, brackets and commas.
        #[test]
        fn printed_values_are_read_back(
            map in btree_map(".*".prop_map(Atom::string), ".*".prop_map(Atom::string), 0..4),
            trunks in btree_set((0_i64..=4095).prop_map(Atom::Integer), 0..20),
            name in ".*",
        ) {
            for (of, value) in [
                (IDS, Value::Map(map.into())),
                (TRUNKS, Value::Set(trunks)),
                (NAME, Value::string(name)),
            ] {
                prop_assert_eq!(of.parse(&value.to_string()), Ok(value));
            }
        }

        /// No input panics or makes a huge set.
        #[test]
        fn any_text_is_read_or_refused(text in ".*", near in "[\\[{]?[-0-9a,=\" \\]}]*") {
            for of in [TAG, TRUNKS, NAME, IDS, CABLE] {
                for text in [&text, &near] {
                    let _ = of.parse_atom(text);
                    if let Ok(value) = of.parse(text) {
                        prop_assert!(value.len() <= 4096 * text.len());
                    }
                }
            }
        }
    }
}
