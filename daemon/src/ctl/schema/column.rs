//! Tables and columns, and what columns of several tables share.

use std::collections::BTreeMap;

use trama_api::value::{Atom, Value};

use crate::Fault;
use crate::config::model::Port;
use crate::config::model::openvswitch::RecordTable;
use crate::config::model::rule::Rule;
use crate::config::openvswitch::{KeptColumn, Takes};
use crate::config::text::parse_rule;
use crate::ctl::context::View;
use crate::ctl::draft::{Draft, Place};
use crate::ctl::failure::Failure;
use crate::ctl::identity;
use crate::ctl::options_reader::SERVER_PATH;
use crate::value_type::{Kind, Shape, Type, string_map};

/// Reads a column of the record of this name.
pub(crate) type Read = fn(View<'_>, &str) -> Value;
/// Sets a column of the record of this name.
pub(crate) type Write = fn(&mut Draft, &str, Value) -> Result<(), Failure>;

/// The column of Interface with the settings of its device. No other table has one of this name.
pub(crate) const OPTIONS: &str = "options";
/// The key of it that is the path of a socket.
const PATH: &str = "path";

/// Second names of keys of that column: Open vSwitch's, trama's.
const SECOND_NAMES: [(&str, &str); 2] = [(SERVER_PATH, PATH), ("n_rxq", "queues")];

/// The columns of forwards.
const RULES: [&str; 2] = ["forward", "loopback"];

/// One column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: Type,
    source: Source,
}

/// Where a column's value is.
#[derive(Clone, Copy)]
enum Source {
    /// Where its code finds it; without `write` it is read-only.
    Code { read: Read, write: Option<Write> },
    /// Among the kept columns.
    Kept { place: Place, column: &'static KeptColumn },
}

/// One table.
pub(crate) struct Table {
    /// Its name.
    pub name: &'static str,
    /// `_uuid` first, then in alphabetical order.
    pub columns: Vec<Column>,
    records: Records,
    place: Place,
    also: fn(&Draft, &str) -> Vec<String>,
}

/// The records of a table.
#[derive(Clone, Copy)]
pub(super) enum Records {
    /// They have names: all of them, sorted, and whether one has this name.
    Named(fn(&Draft) -> Vec<String>, fn(&Draft, &str) -> bool),
    /// They are records of their own, whose names are their UUIDs.
    OfTheirOwn(RecordTable),
    /// They are mirrors, whose names are their UUIDs: all of them, sorted.
    Mirrors(fn(&Draft) -> Vec<String>),
}

/// What `create` makes in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// A record of its own.
    Record(RecordTable),
    /// A mirror.
    Mirror,
}

impl Table {
    /// A table of columns that have code, and of others that are kept in `place`.
    pub(super) fn new(
        name: &'static str,
        own: &[Column],
        (place, kept): (Place, &'static [KeptColumn]),
        records: Records,
    ) -> Table {
        let is_own = |column: &&KeptColumn| own.iter().any(|it| it.name == column.name);
        let others = kept.iter().filter(|column| !is_own(column));
        let others = others.map(|column| {
            let source = Source::Kept { place, column };
            Column { name: column.name, of: column.of, source }
        });
        let mut columns: Vec<Column> = own.iter().copied().chain(others).collect();
        columns.sort_unstable_by_key(|column| column.name);
        Table { name, columns, records, place, also: |_, _| Vec::new() }
    }

    /// The table, with other texts by which records are known.
    pub(super) fn known_by(self, also: fn(&Draft, &str) -> Vec<String>) -> Table {
        Table { also, ..self }
    }

    /// The names of its records, sorted.
    pub(crate) fn records(&self, draft: &Draft) -> Vec<String> {
        match self.records {
            Records::Named(names, _) | Records::Mirrors(names) => names(draft),
            Records::OfTheirOwn(table) => draft.records_of(table),
        }
    }

    /// Whether it has a record of exactly this name.
    pub(crate) fn has(&self, draft: &Draft, record: &str) -> bool {
        match self.records {
            Records::Named(_, has) => has(draft, record),
            Records::Mirrors(_) => draft.mirror(record).is_some(),
            Records::OfTheirOwn(table) => draft.record(record).is_some_and(|it| it.table == table),
        }
    }

    /// Whether the record of this name keeps any column of Open vSwitch.
    pub(crate) fn keeps(&self, draft: &Draft, record: &str) -> bool {
        draft.kept(self.place, record).is_some_and(|kept| !kept.is_empty())
    }

    /// The records that are known by this text besides their names and UUIDs.
    pub(crate) fn records_known_by(&self, draft: &Draft, text: &str) -> Vec<String> {
        (self.also)(draft, text)
    }

    /// What `create` makes in it, if anything.
    pub(crate) fn made(&self) -> Option<Made> {
        match self.records {
            Records::Named(..) => None,
            Records::OfTheirOwn(table) => Some(Made::Record(table)),
            Records::Mirrors(_) => Some(Made::Mirror),
        }
    }

    /// The UUID of a record.
    pub(crate) fn uuid(&self, record: &str) -> String {
        match self.records {
            Records::Named(..) => identity::of(self.name, record),
            Records::OfTheirOwn(_) | Records::Mirrors(_) => record.to_owned(),
        }
    }

    /// The column of exactly this name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Column {
    /// Its value in the record of this name.
    pub(crate) fn read(&self, view: View<'_>, record: &str) -> Value {
        match self.source {
            Source::Code { read, .. } => read(view, record),
            Source::Kept { place, column } => match view.draft.kept(place, record) {
                Some(kept) => column.read(kept),
                None => self.of.default(),
            },
        }
    }

    /// Reads a value. A forward may stand without quotes although it has commas: its parts mean
    /// nothing alone.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, Fault> {
        self.parse_as(self.of, text)
    }

    /// Reads a value with room for several, so that an excess is reported at the end.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse_many(&self, text: &str) -> Result<Value, Fault> {
        let shape = if self.of.shape == Shape::Map { Shape::Map } else { Shape::Set };
        self.parse_as(Type { shape, ..self.of }, text)
    }

    fn parse_as(&self, of: Type, text: &str) -> Result<Value, Fault> {
        let value = of.parse(text);
        let is_rules = RULES.contains(&self.name) && !text.contains('"') && !text.starts_with('[');
        let are_rules = |value: &Value| words(value).all(|word| parse_rule(&word).is_ok());
        if is_rules && !value.as_ref().is_ok_and(are_rules) {
            return parse_rule(text).map(|_| Value::Set([Atom::string(text)].into()));
        }
        value
    }

    /// The value of a key of its map, by any of the key's names.
    pub(crate) fn at(&self, map: &Value, key: &Atom) -> Option<Atom> {
        map.get(key).or_else(|| map.at(self.own_name(key)?)).cloned()
    }

    /// Removes a key of its map, by any of the key's names.
    pub(crate) fn remove(&self, pairs: &mut BTreeMap<Atom, Atom>, key: &Atom) {
        if pairs.remove(key).is_none() {
            self.own_name(key).map(|name| pairs.remove(&Atom::string(name)));
        }
    }

    /// trama's name of a key of its map that has another in Open vSwitch.
    fn own_name(&self, key: &Atom) -> Option<&'static str> {
        let mut names = SECOND_NAMES.iter().filter(|_| self.name == OPTIONS);
        names.find(|(name, _)| *key == Atom::string(*name)).map(|(_, own)| *own)
    }

    /// Whether a key of its map is the path of an interface's socket.
    pub(crate) fn is_socket_path(&self, key: &Atom) -> bool {
        self.name == OPTIONS && [SERVER_PATH, PATH].iter().any(|name| *key == Atom::string(*name))
    }

    /// Whether it can be set.
    pub(crate) fn is_free(&self) -> bool {
        match self.source {
            Source::Code { write, .. } => write.is_some(),
            Source::Kept { column, .. } => !matches!(column.takes, Takes::Nothing),
        }
    }

    /// Whether it has its default in the record of this name.
    pub(crate) fn is_default(&self, view: View<'_>, record: &str) -> bool {
        let is_unset = match self.source {
            Source::Code { .. } => false,
            Source::Kept { place, column } => {
                view.draft.kept(place, record).is_none_or(|kept| !kept.contains_key(column.name))
            }
        };
        is_unset || self.read(view, record) == self.of.default()
    }

    /// Whether it is kept beside settings, so that its default tells nothing.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.source, Source::Kept { place, .. } if place != Place::Record)
    }

    /// Sets it in the record of this name; it is free.
    ///
    /// # Errors
    /// The value is refused.
    pub(crate) fn write(
        &self,
        draft: &mut Draft,
        record: &str,
        value: Value,
    ) -> Result<(), Failure> {
        match self.source {
            Source::Code { write, .. } => write.map_or(Ok(()), |write| write(draft, record, value)),
            Source::Kept { place, column } => {
                if let Some(fault) = column.refusal(&value) {
                    return Err(fault.into());
                }
                if let Some(kept) = draft.kept_mut(place, record) {
                    column.write(kept, &value);
                }
                Ok(())
            }
        }
    }
}

/// A column that is read-only.
pub(crate) const fn fixed(name: &'static str, of: Type, read: Read) -> Column {
    Column { name, of, source: Source::Code { read, write: None } }
}

/// A column that can be set.
pub(crate) const fn free(name: &'static str, of: Type, read: Read, write: Write) -> Column {
    Column { name, of, source: Source::Code { read, write: Some(write) } }
}

pub(crate) const STRING: Type = Type::new(Kind::String, Shape::One);
pub(crate) const STRING_OR_NONE: Type = Type::new(Kind::String, Shape::Optional);
pub(crate) const STRINGS: Type = Type::new(Kind::String, Shape::Map);
pub(crate) const STRING_SET: Type = Type::new(Kind::String, Shape::Set);
pub(crate) const UUID: Type = Type::new(Kind::Uuid, Shape::One);
pub(crate) const UUIDS: Type = Type::new(Kind::Uuid, Shape::Set);
pub(crate) const BOOL: Type = Type::new(Kind::Bool, Shape::One);

pub(crate) fn uuid_of(table: &str, name: &str) -> Value {
    Value::One(Atom::uuid(identity::of(table, name)))
}

pub(crate) fn words(value: &Value) -> impl Iterator<Item = String> + use<> {
    value.atoms().into_iter().map(|atom| atom.bare())
}

/// The integers of a value; its column's range has been checked.
pub(crate) fn integers<T: TryFrom<i64>>(value: &Value) -> impl Iterator<Item = T> + use<T> {
    value.atoms().into_iter().filter_map(|atom| match atom {
        Atom::Integer(number) => number.try_into().ok(),
        _ => None,
    })
}

pub(crate) fn rules_of(rules: &[Rule]) -> Value {
    Value::Set(rules.iter().map(|rule| Atom::string(rule.to_string())).collect())
}

pub(crate) fn rules(value: &Value) -> Result<Vec<Rule>, Failure> {
    let rules = words(value).map(|text| parse_rule(&text));
    Ok(rules.collect::<Result<_, _>>()?)
}

pub(crate) fn edit_port(
    draft: &mut Draft,
    name: &str,
    edit: impl FnOnce(&mut Port),
) -> Result<(), Failure> {
    draft.port_mut(name).map(edit).ok_or_else(|| draft.no_port(name))
}

pub(crate) fn external_ids(view: View<'_>, name: &str) -> Value {
    Value::strings(view.draft.port(name).into_iter().flat_map(|port| &port.external_ids))
}

pub(crate) fn set_external_ids(draft: &mut Draft, name: &str, value: Value) -> Result<(), Failure> {
    edit_port(draft, name, |port| port.external_ids = string_map(value))
}
