//! Names that records have within one transaction: `--id=@q create QoS ...` and `qos=@q`.
//!
//! A name may be used before the command that gives it to a record. So its UUID is chosen at its
//! first use, and a record that is created under the name gets that UUID.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::failure::Failure;
use super::identity;
use crate::value_type::{DELIMITERS, Kind, Type};

/// The option that gives a record a name.
pub(super) const ID: &str = "--id";

/// The names of a transaction.
pub(super) struct Symbols {
    /// Distinguishes the UUIDs of this transaction from those of all others.
    salt: u64,
    by_name: BTreeMap<String, Symbol>,
    /// How many UUIDs have been chosen.
    chosen: u64,
}

struct Symbol {
    uuid: String,
    /// Whether a record has the name.
    is_given: bool,
}

impl Symbols {
    pub(super) fn new(salt: u64) -> Symbols {
        Symbols { salt, by_name: BTreeMap::new(), chosen: 0 }
    }

    /// A UUID for a new record, which is given `name` if there is one.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub(super) fn create(&mut self, name: Option<&str>) -> Result<String, Failure> {
        let Some(name) = name else { return Ok(self.new_uuid()) };
        self.check(name)?;
        let uuid = self.uuid(name);
        self.give(name, &uuid);
        Ok(uuid)
    }

    /// Gives `name` to a record that exists.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub(super) fn name(&mut self, name: &str, uuid: &str) -> Result<(), Failure> {
        self.check(name)?;
        if self.by_name.contains_key(name) {
            let message =
                format!("row id \"{name}\" is used before \"--id={name} get\"; put the get first");
            return Err(message.into());
        }
        self.give(name, uuid);
        Ok(())
    }

    /// The text with UUIDs in the place of names, if it is of a column of UUIDs.
    pub(super) fn resolve<'a>(&mut self, of: &Type, text: &'a str) -> Cow<'a, str> {
        if of.kind != Kind::Uuid || !text.contains('@') {
            return Cow::Borrowed(text);
        }
        let mut resolved = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('@') {
            let (before, name) = rest.split_at(at);
            let end = name.find(|c| DELIMITERS.contains(c)).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            resolved.push_str(before);
            resolved.push_str(&self.uuid(name));
            rest = after;
        }
        Cow::Owned(resolved + rest)
    }

    /// Whether each name that was used belongs to a record.
    ///
    /// # Errors
    /// One does not.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        match self.by_name.iter().find(|(_, symbol)| !symbol.is_given) {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "row id \"{name}\" is referenced but never created (e.g. with \"-- --id={name} \
                 create ...\")"
            )
            .into()),
        }
    }

    /// A failure with names in the place of the UUIDs that were chosen for them: a user has seen
    /// the names alone.
    pub(super) fn name_in(&self, mut failure: Failure) -> Failure {
        for (name, symbol) in &self.by_name {
            failure.message = failure.message.replace(&symbol.uuid, name);
        }
        failure
    }

    fn check(&self, name: &str) -> Result<(), Failure> {
        if !name.starts_with('@') {
            return Err(format!("row id \"{name}\" does not begin with \"@\"").into());
        }
        match self.by_name.get(name) {
            Some(Symbol { is_given: true, .. }) => {
                Err(format!("row id \"{name}\" may only be specified on one --id option").into())
            }
            _ => Ok(()),
        }
    }

    fn uuid(&mut self, name: &str) -> String {
        if let Some(symbol) = self.by_name.get(name) {
            return symbol.uuid.clone();
        }
        let uuid = self.new_uuid();
        let symbol = Symbol { uuid: uuid.clone(), is_given: false };
        self.by_name.insert(name.to_owned(), symbol);
        uuid
    }

    fn give(&mut self, name: &str, uuid: &str) {
        let symbol = Symbol { uuid: uuid.to_owned(), is_given: true };
        self.by_name.insert(name.to_owned(), symbol);
    }

    fn new_uuid(&mut self) -> String {
        self.chosen += 1;
        identity::of("new", &format!("{}/{}", self.salt, self.chosen))
    }
}
