//! The conditions of `find`: `tag=10`, `trunks{>=}5`, `external_ids:owner!=me`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use trama_api::value::{Atom, Value};

use super::column_ref::ColumnRef;
use super::context::View;
use super::failure::Failure;
use super::lookup::find_column;
use super::schema::column::{Column, Table};
use crate::value_type::{Shape, Type};

/// The operators. A longer spelling comes before its prefixes.
const OPERATORS: [(&str, Operator); 14] = [
    ("{<=}", Operator::Set(Relation::Subset)),
    ("{>=}", Operator::Set(Relation::Superset)),
    ("{!=}", Operator::Set(Relation::Differs)),
    ("{=}", Operator::Set(Relation::Equals)),
    ("{<}", Operator::Set(Relation::ProperSubset)),
    ("{>}", Operator::Set(Relation::ProperSuperset)),
    ("{in}", Operator::Set(Relation::Subset)),
    ("{not-in}", Operator::Set(Relation::Disjoint)),
    ("!=", Operator::Order(|order| order != Ordering::Equal)),
    ("<=", Operator::Order(|order| order != Ordering::Greater)),
    (">=", Operator::Order(|order| order != Ordering::Less)),
    ("=", Operator::Order(|order| order == Ordering::Equal)),
    ("<", Operator::Order(|order| order == Ordering::Less)),
    (">", Operator::Order(|order| order == Ordering::Greater)),
];

#[derive(Clone, Copy)]
enum Operator {
    Order(fn(Ordering) -> bool),
    Set(Relation),
}

#[derive(Clone, Copy)]
enum Relation {
    Subset,
    ProperSubset,
    Superset,
    ProperSuperset,
    Equals,
    Differs,
    Disjoint,
}

/// A condition.
pub(super) struct Condition {
    column: &'static Column,
    key: Option<Atom>,
    operator: Operator,
    wanted: Value,
}

impl Condition {
    /// Reads `COLUMN[:KEY]OPERATOR VALUE` for a table.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(table: &'static Table, text: &str) -> Result<Condition, Failure> {
        let (place, rest) = ColumnRef::split(text);
        let column = find_column(table, place.column)?;
        let found = OPERATORS.iter().find_map(|(spelling, operator)| {
            Some((operator, rest.strip_prefix(spelling).filter(|value| !value.is_empty())?))
        });
        let Some((operator, value)) = found else {
            return Err(format!(
                "{text}: argument does not end in \"=\", \"!=\", \"<\", \">\", \"<=\", \">=\", \
                 \"{{=}}\", \"{{!=}}\", \"{{<}}\", \"{{>}}\", \"{{<=}}\", \"{{>=}}\", \"{{in}}\", \
                 or \"{{not-in}}\" followed by a value."
            )
            .into());
        };
        let key = place.key()?;
        if key.is_some() && column.of.shape != Shape::Map {
            return Err(
                format!("cannot specify key to check for non-map column {}", column.name).into()
            );
        }
        let wanted = match operator {
            Operator::Order(_) if key.is_some() => Value::One(column.of.parse_atom(value)?),
            Operator::Order(_) => column.parse(value)?,
            // These operators compare sets, even on a column that holds one value.
            Operator::Set(_) if key.is_none() && column.of.shape == Shape::Map => {
                column.of.parse(value)?
            }
            Operator::Set(_) => Type::new(column.of.kind, Shape::Set).parse(value)?,
        };
        let key = key.map(|key| column.of.parse_key(&key)).transpose()?;
        Ok(Condition { column, key, operator: *operator, wanted })
    }

    /// Whether the record of this name meets the condition.
    pub(super) fn holds(&self, view: View<'_>, record: &str) -> bool {
        let have = match &self.key {
            None => self.column.read(view, record),
            Some(key) => Value::optional(self.at(key, view, record)),
        };
        match self.operator {
            // An absent key is neither equal nor unequal to a value.
            Operator::Order(_) if self.key.is_some() && have.is_empty() => false,
            Operator::Order(accept) => accept(compare(&have, &self.wanted)),
            Operator::Set(relation) => relate(relation, &elements(&have), &elements(&self.wanted)),
        }
    }

    /// The value of a key. The path of a socket is absolute if it is compared with one that is.
    fn at(&self, key: &Atom, view: View<'_>, record: &str) -> Option<Atom> {
        let is_absolute = |atom: Atom| atom.bare().starts_with('/');
        if self.column.is_socket_path(key) && self.wanted.atoms().into_iter().any(is_absolute) {
            let path = view.draft.socket_file(record)?;
            return Some(Atom::string(path.to_string_lossy()));
        }
        self.column.at(&self.column.read(view, record), key)
    }
}

/// The order of Open vSwitch: by number of elements first, then element by element.
fn compare(a: &Value, b: &Value) -> Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.atoms().cmp(&b.atoms()))
        .then_with(|| a.pairs().into_keys().cmp(b.pairs().into_keys()))
        .then_with(|| a.pairs().into_values().cmp(b.pairs().into_values()))
}

fn relate(
    relation: Relation,
    have: &BTreeSet<(Option<Atom>, Atom)>,
    wanted: &BTreeSet<(Option<Atom>, Atom)>,
) -> bool {
    match relation {
        Relation::Subset => have.is_subset(wanted),
        Relation::ProperSubset => have.is_subset(wanted) && have != wanted,
        Relation::Superset => have.is_superset(wanted),
        Relation::ProperSuperset => have.is_superset(wanted) && have != wanted,
        Relation::Equals => have == wanted,
        Relation::Differs => have != wanted,
        Relation::Disjoint => have.is_disjoint(wanted),
    }
}

/// The atoms of a set, or the pairs of a map.
fn elements(value: &Value) -> BTreeSet<(Option<Atom>, Atom)> {
    let pairs = value.pairs();
    let atoms = value.atoms().into_iter().map(|atom| (None, atom));
    atoms.chain(pairs.into_iter().map(|(key, atom)| (Some(key), atom))).collect()
}
