//! Typed access to TOML tables that notes every fault instead of stopping at the first.
//!
//! A [`Report`] collects faults by byte offset and remembers the offset of each key's value, so
//! that validation's problems can be located too. A [`Reader`] reads one table: each accessor
//! returns `None` for a missing key and, after noting the fault, for a wrong value.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trama_api::nearest::nearest;

use super::diagnostic::Diagnostic;
use super::units::{parse_duration, parse_size};
use crate::Fault;
use crate::config::rules::{Place, Problem};

/// Keys of a network whose rules depend on its subnet.
const SUBNET_USERS: [&str; 5] = ["dhcp", "hosts", "tftp", "forward", "loopback"];

/// The faults found so far in one text.
pub(super) struct Report<'t> {
    text: &'t str,
    file: &'t str,
    found: Vec<(usize, Diagnostic)>,
    /// Offsets of values.
    values: HashMap<(Place, &'static str), usize>,
    /// Offsets of tables.
    tables: HashMap<Place, usize>,
    /// Keys that have a fault already; validation would judge the default in their place.
    broken: HashSet<(Place, &'static str)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, file: &'t str) -> Self {
        Self {
            text,
            file,
            found: Vec::new(),
            values: HashMap::new(),
            tables: HashMap::new(),
            broken: HashSet::new(),
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes a fault at a byte offset of the text.
    pub(super) fn add(&mut self, offset: usize, key: impl Into<String>, fault: Fault) {
        let (line, column) = line_and_column(self.text, offset);
        let (file, key) = (self.file.to_owned(), key.into());
        self.found.push((offset, Diagnostic { file, line, column, key, fault }));
    }

    /// Adds validation's problems, except for keys whose values could not be read.
    pub(super) fn add_problems(&mut self, problems: Vec<Problem>) {
        let networks_known = !self.broken.iter().any(|(place, key)| {
            matches!(place, Place::Network(_)) && ["name", "mode"].contains(key)
        });
        for problem in problems {
            let at = (problem.place, problem.key);
            let follows = matches!(problem.place, Place::Port(_))
                && ["network", "forward"].contains(&problem.key);
            let needs_subnet = match problem.place {
                Place::Network(index) if SUBNET_USERS.contains(&problem.key) => Some(index),
                Place::Dhcp(index)
                | Place::Sflow(index)
                | Place::Ipfix(index)
                | Place::Reservation(index, _) => Some(index),
                _ => None,
            };
            let lacks_subnet = needs_subnet
                .is_some_and(|index| self.broken.contains(&(Place::Network(index), "subnet")));
            if self.broken.contains(&at) || (follows && !networks_known) || lacks_subnet {
                continue;
            }
            let table = self.tables.get(&problem.place).copied().unwrap_or_default();
            let offset = self.values.get(&at).copied().unwrap_or(table);
            self.add(offset, problem.path, problem.fault);
        }
    }

    /// Ignores validation's problems with a key.
    pub(super) fn mark_broken(&mut self, place: Place, key: &'static str) {
        self.broken.insert((place, key));
    }

    /// All faults in the order of the text.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}

/// Line and column, both from 1, the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// One table of the file.
pub(super) struct Reader<'r, 't, 'd> {
    report: &'r mut Report<'t>,
    table: &'d DeTable<'d>,
    place: Place,
    path: String,
}

/// What [`Reader::switch_or_table`] finds.
pub(super) enum SwitchOrTable<'r, 't, 'd> {
    Switch(bool),
    Table(Reader<'r, 't, 'd>),
}

impl<'r, 't, 'd> Reader<'r, 't, 'd> {
    pub(super) fn new(
        report: &'r mut Report<'t>,
        table: &'d DeTable<'d>,
        offset: usize,
        place: Place,
        path: String,
    ) -> Self {
        report.tables.insert(place, offset);
        Self { report, table, place, path }
    }

    /// Notes every key that is not among `known`. `why_not` explains keys known elsewhere.
    pub(super) fn refuse_unknown(
        &mut self,
        known: &[&str],
        why_not: impl Fn(&str) -> Option<Fault>,
    ) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let fault = why_not(name).unwrap_or_else(|| {
                let remedy = match nearest(name, known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("remove it; known here: {}", known.join(", ")),
                };
                Fault::new("unknown key", remedy)
            });
            self.report.add(key.span().start, format!("{}.{name}", self.path), fault);
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => self.wrong_type(key, value.span().start, other, "a string"),
        }
    }

    /// A string, or a whole number in its place.
    pub(super) fn text_or_number(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Integer(_) => self.as_integer(key, value).map(|id: u32| id.to_string()),
            _ => self.string(key),
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => self.wrong_type(key, value.span().start, other, "true or false"),
        }
    }

    /// An integer from 0 to the type's limit; validation checks the range.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let value = self.get(key)?;
        self.as_integer(key, value)
    }

    /// An integer, or a string of a number and a unit.
    pub(super) fn size<T: TryFrom<u64> + TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let value = self.get(key)?;
        let DeValue::String(text) = value.get_ref() else { return self.as_integer(key, value) };
        let size = parse_size(text).and_then(|size: u64| T::try_from(size).ok());
        if size.is_none() {
            let remedy = r#"use a number such as 8192 or "8Ki""#;
            self.fault(
                key,
                value.span().start,
                Fault::new(format!("{text:?} is not a size"), remedy),
            );
        }
        size
    }

    pub(super) fn integers(&mut self, key: &'static str) -> Option<Vec<u16>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return self.wrong_type(key, value.span().start, value.get_ref(), "a list of integers");
        };
        let items: &'d [Spanned<DeValue<'d>>] = items;
        let numbers: Vec<_> = items.iter().map(|item| self.as_integer(key, item)).collect();
        numbers.into_iter().collect()
    }

    /// One string or a list of strings, each with its offset.
    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<(usize, String)>> {
        let value = self.get(key)?;
        let mut texts = Vec::new();
        let items: Vec<&'d Spanned<DeValue<'d>>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push((item.span().start, text.clone().into_owned()));
                }
                other => self.wrong_type(key, item.span().start, other, "a string")?,
            }
        }
        Some(texts)
    }

    /// A string that is a number with a unit of time.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        self.converted(key, parse_duration(&text), || {
            let remedy = r#"use a whole number and a unit: "20us", "300s", "12h""#;
            Fault::new(format!("{text:?} is not a time"), remedy)
        })
    }

    /// A string that is one of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.converted(key, found, || {
            let remedy = match nearest(&text, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("use one of: {}", known.join(", ")),
            };
            Fault::new(format!("unknown value {text:?}"), remedy)
        })
    }

    /// A table of strings.
    pub(super) fn map(&mut self, key: &'static str) -> Option<Vec<(String, String)>> {
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            return self.wrong_type(key, value.span().start, value.get_ref(), "a table of strings");
        };
        let mut pairs = Vec::new();
        for (name, item) in table {
            match item.get_ref() {
                DeValue::String(text) => {
                    pairs.push((name.get_ref().to_string(), text.clone().into_owned()));
                }
                other => self.wrong_type(key, item.span().start, other, "a string")?,
            }
        }
        Some(pairs)
    }

    pub(super) fn is_string(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::String(_)))
    }

    /// A table within this one.
    pub(super) fn table(&mut self, key: &'static str, place: Place) -> Option<Reader<'_, 't, 'd>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                let path = format!("{}.{key}", self.path);
                Some(Reader::new(self.report, table, value.span().start, place, path))
            }
            other => self.wrong_type(key, value.span().start, other, "a table"),
        }
    }

    /// A table within this one, or a boolean in its place.
    pub(super) fn switch_or_table(
        &mut self,
        key: &'static str,
        place: Place,
    ) -> Option<SwitchOrTable<'_, 't, 'd>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(value) => Some(SwitchOrTable::Switch(*value)),
            DeValue::Table(table) => {
                let path = format!("{}.{key}", self.path);
                let start = value.span().start;
                let table = Reader::new(self.report, table, start, place, path);
                Some(SwitchOrTable::Table(table))
            }
            other => self.wrong_type(key, value.span().start, other, "true, false or a table"),
        }
    }

    /// The results of `read` for each of a list of tables.
    pub(super) fn each_table<T>(
        &mut self,
        key: &'static str,
        place: impl Fn(usize) -> Place,
        read: impl Fn(&mut Reader<'_, 't, 'd>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let start = value.span().start;
            self.wrong_type::<()>(key, start, value.get_ref(), "a list of tables");
            return Vec::new();
        };
        let items: &'d [Spanned<DeValue<'d>>] = items;
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let start = item.span().start;
            let DeValue::Table(table) = item.get_ref() else {
                self.wrong_type::<()>(key, start, item.get_ref(), "a table");
                continue;
            };
            let path = format!("{}.{key}[{index}]", self.path);
            let mut reader = Reader::new(self.report, table, start, place(index), path);
            found.extend(read(&mut reader));
        }
        found
    }

    /// Returns `value`; if it is `None`, notes the fault at the key's value.
    pub(super) fn converted<T>(
        &mut self,
        key: &'static str,
        value: Option<T>,
        fault: impl FnOnce() -> Fault,
    ) -> Option<T> {
        if value.is_none() {
            let table = self.report.tables.get(&self.place).copied().unwrap_or_default();
            let offset = self.report.values.get(&(self.place, key)).copied().unwrap_or(table);
            self.fault(key, offset, fault());
        }
        value
    }

    /// Notes a fault of a key's value and ignores validation's problems with it.
    pub(super) fn fault(&mut self, key: &'static str, offset: usize, fault: Fault) {
        self.report.mark_broken(self.place, key);
        self.report.add(offset, format!("{}.{key}", self.path), fault);
    }

    /// Ignores validation's problems with a key.
    pub(super) fn mark_broken(&mut self, key: &'static str) {
        self.report.mark_broken(self.place, key);
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        let value = self.table.get(key)?;
        self.report.values.insert((self.place, key), value.span().start);
        Some(value)
    }

    fn as_integer<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let offset = value.span().start;
        let DeValue::Integer(integer) = value.get_ref() else {
            return self.wrong_type(key, offset, value.get_ref(), "an integer");
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let message = format!("{integer} is out of range");
            self.fault(key, offset, Fault::new(message, range_remedy(key)));
        }
        number
    }

    fn wrong_type<T>(
        &mut self,
        key: &'static str,
        offset: usize,
        found: &DeValue<'_>,
        wanted: &str,
    ) -> Option<T> {
        let message = format!("is {}, not {wanted}", type_name(found));
        self.fault(key, offset, Fault::new(message, format!("write {wanted}")));
        None
    }
}

/// The remedy for a number that is out of its type's range.
fn range_remedy(key: &str) -> &'static str {
    match key {
        "tag" | "trunks" => "use 0 to 4095",
        "events" => "use 1 to 65536, or 0 for none",
        _ => "use a number in the range that docs/configuration.md gives",
    }
}

/// A value's type with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
