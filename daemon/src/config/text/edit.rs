//! Writes the difference of two configurations into a text, which keeps everything else.
//!
//! The text stays as its author wrote it: comments, order, blank lines and the spelling of values
//! that do not change. Only keys whose values differ between `from` and `to` are touched, so the
//! text may also contain changes that neither side has. A removed table takes the comment directly
//! above it along; an added table goes below the last one of its kind.

use std::collections::{HashMap, HashSet};

use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, TomlError, Value,
};

use super::field::Field;
use super::{daemon, mirror, network, port, record, rule};
use crate::Fault;
use crate::config::model::openvswitch::Record;
use crate::config::model::{Config, Mirror, Network, Port};

/// `text` with the differences between `from` and `to` carried over.
///
/// # Errors
/// The text is not TOML, or its tables are not where a configuration has them.
pub fn edit(text: &str, from: &Config, to: &Config) -> Result<String, Fault> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: TomlError| Fault::plain(error.to_string()))?;
    let changes = changes(&daemon::fields(&from.daemon), &daemon::fields(&to.daemon));
    if !changes.is_empty() {
        let item = document.as_table_mut().entry("daemon").or_insert(toml_edit::table());
        let table = item.as_table_like_mut();
        write_fields(table.ok_or_else(|| Fault::plain("daemon is not a table"))?, &changes);
    }
    let networks: Tables<Network> = Tables {
        kind: "network",
        name: |it| &it.name,
        fields: network::fields,
        is_written: |_| true,
    };
    networks.edit(&mut document, &from.networks, &to.networks)?;
    let ports: Tables<Port> = Tables {
        kind: "port",
        name: |it| &it.name,
        fields: port::fields,
        is_written: |port| !port.is_ephemeral(),
    };
    ports.edit(&mut document, &from.ports, &to.ports)?;
    let mirrors: Tables<Mirror> = Tables {
        kind: "mirror",
        name: |it| &it.name,
        fields: mirror::fields,
        is_written: |_| true,
    };
    mirrors.edit(&mut document, &from.mirrors, &to.mirrors)?;
    let records: Tables<Record> = Tables {
        kind: "openvswitch",
        name: |it| &it.name,
        fields: record::fields,
        is_written: |_| true,
    };
    records.edit(&mut document, &from.records, &to.records)?;
    Ok(tidy(text, document.to_string()))
}

/// The tables of a kind, as values.
struct Tables<T> {
    kind: &'static str,
    name: fn(&T) -> &str,
    fields: fn(&T) -> Vec<Field>,
    /// Whether the file has it.
    is_written: fn(&T) -> bool,
}

impl<T: PartialEq> Tables<T> {
    /// Carries over what differs. What is the same on both sides is not looked at further: there
    /// may be thousands of it.
    fn edit(&self, document: &mut DocumentMut, before: &[T], after: &[T]) -> Result<(), Fault> {
        let known = self.by_name(before);
        let wanted = self.by_name(after);
        let written = before.iter().filter(|it| (self.is_written)(it)).map(self.name);
        for old in written.filter(|name| !wanted.contains_key(name)) {
            remove_table(document, self.kind, old)?;
        }
        let differs = |new: &&T| known.get((self.name)(new)).copied() != Some(*new);
        let written = after.iter().filter(|it| (self.is_written)(it));
        let changed: Vec<&T> = written.filter(differs).collect();
        if changed.is_empty() {
            return Ok(());
        }
        // Others may have written a table of the same name.
        let there = names(document, self.kind)?;
        for new in changed {
            let name = (self.name)(new);
            self.change(document, known.get(name).copied(), new, there.contains(name))?;
        }
        Ok(())
    }

    fn by_name<'a>(&self, list: &'a [T]) -> HashMap<&'a str, &'a T> {
        let written = list.iter().filter(|it| (self.is_written)(it));
        written.map(|it| ((self.name)(it), it)).collect()
    }

    fn change(
        &self,
        document: &mut DocumentMut,
        old: Option<&T>,
        new: &T,
        is_there: bool,
    ) -> Result<(), Fault> {
        let fields = (self.fields)(new);
        let changed = match old {
            Some(old) => changes(&(self.fields)(old), &fields),
            None => fields.clone(),
        };
        if changed.is_empty() {
            return Ok(());
        }
        let name = (self.name)(new);
        let table = if is_there { table_named(document, self.kind, name)? } else { None };
        match table {
            Some(table) => write_fields(table, &changed),
            None => {
                let mut table = Table::new();
                write_fields(&mut table, &fields);
                list_or_new(document, self.kind)?.push(table);
            }
        }
        Ok(())
    }
}

/// The array of tables of a kind, if the document has one.
fn list_of<'d>(
    document: &'d mut DocumentMut,
    kind: &str,
) -> Result<Option<&'d mut ArrayOfTables>, Fault> {
    if document.contains_key(kind) { list_or_new(document, kind).map(Some) } else { Ok(None) }
}

/// The array of tables of a kind, added if there is none; one written inline is turned into
/// `[[kind]]` tables.
fn list_or_new<'d>(
    document: &'d mut DocumentMut,
    kind: &str,
) -> Result<&'d mut ArrayOfTables, Fault> {
    let root = document.as_table_mut();
    let item = root.entry(kind).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if item.is_value() {
        let inline = std::mem::take(item);
        *item = match inline.into_array_of_tables() {
            Ok(tables) => Item::ArrayOfTables(tables),
            Err(other) => other,
        };
    }
    let list = item.as_array_of_tables_mut();
    list.ok_or_else(|| Fault::plain(format!("{kind} is not a list of tables")))
}

/// The names of the tables of a kind.
fn names(document: &mut DocumentMut, kind: &str) -> Result<HashSet<String>, Fault> {
    let list = list_of(document, kind)?.into_iter().flat_map(|list| list.iter());
    let names = list.filter_map(|table| table.get("name").and_then(Item::as_str));
    Ok(names.map(str::to_owned).collect())
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn table_named<'d>(
    document: &'d mut DocumentMut,
    kind: &str,
    name: &str,
) -> Result<Option<&'d mut dyn TableLike>, Fault> {
    let Some(list) = list_of(document, kind)? else { return Ok(None) };
    let table = list.iter_mut().find(|table| is_named(table, name));
    Ok(table.map(|table| table as &mut dyn TableLike))
}

/// The fields of `to` that differ from those of `from`; those that `to` lacks are returned as
/// absent.
fn changes(from: &[Field], to: &[Field]) -> Vec<Field> {
    let value = |list: &[Field], key: &str| {
        list.iter().find(|field| field.key == key).and_then(|field| field.value.clone())
    };
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    let mut changed: Vec<Field> = to
        .iter()
        .filter(|field| text(value(from, field.key)) != text(field.value.clone()))
        .cloned()
        .collect();
    let gone = from.iter().filter(|field| !to.iter().any(|other| other.key == field.key));
    changed.extend(gone.map(|field| Field::absent(field.key)));
    changed
}

/// Sets the fields that have a value and removes the others. A default value is written only if the
/// key exists.
fn write_fields(table: &mut dyn TableLike, fields: &[Field]) {
    // A key may have another kind of value in a table of another type.
    let is_other_type = fields.iter().any(|field| field.key == "type");
    for field in fields {
        if is_other_type && field.key != "type" {
            table.remove(field.key);
        }
        let Some(value) = &field.value else {
            table.remove(field.key);
            continue;
        };
        match (table.get_mut(field.key), value) {
            (Some(item), Value::InlineTable(wanted)) if item.is_table_like() => {
                write_map(item, wanted);
            }
            (Some(item), Value::Array(wanted)) if item.is_array() => write_list(item, wanted),
            (Some(item), _) => write_value(item, value),
            (None, _) if field.is_default => {}
            (None, _) => {
                table.insert(field.key, Item::Value(value.clone()));
            }
        }
    }
}

/// Replaces a value and keeps the comment behind it. A one-element list stays a list.
fn write_value(item: &mut Item, value: &Value) {
    let decor = item.as_value().map(|old| old.decor().clone());
    let mut value = match (item.is_array(), value) {
        (true, Value::String(text)) => Value::Array(Array::from_iter([text.value().as_str()])),
        _ => value.clone(),
    };
    if let Some(decor) = decor {
        *value.decor_mut() = decor;
    }
    *item = Item::Value(value);
}

/// Makes a list equal to `wanted`. Items that are already there stay as they are written.
fn write_list(item: &mut Item, wanted: &Array) {
    let Some(list) = item.as_array_mut() else { return };
    let meaning = |value: &Value| match value.as_str() {
        Some(text) => rule::parse(text).map_or(text.to_owned(), |rule| rule.to_string()),
        None => value.to_string().trim().to_owned(),
    };
    let wanted: Vec<(String, &Value)> = wanted.iter().map(|it| (meaning(it), it)).collect();
    let count = wanted.len();
    list.retain(|old| wanted.iter().any(|(text, _)| *text == meaning(old)));
    for (index, (text, value)) in wanted.into_iter().enumerate() {
        let found = list.iter().skip(index).position(|old| meaning(old) == text);
        match found {
            Some(0) => {}
            Some(later) => {
                let moved = list.remove(index + later);
                list.insert_formatted(index, moved);
            }
            None => list.insert(index, value.clone()),
        }
    }
    // Duplicates.
    while list.len() > count {
        list.remove(count);
    }
}

/// Makes a table of strings equal to `wanted`, entry by entry.
fn write_map(item: &mut Item, wanted: &InlineTable) {
    let Some(table) = item.as_table_like_mut() else { return };
    let stale: Vec<String> = table
        .iter()
        .map(|(key, _)| key.to_owned())
        .filter(|key| !wanted.contains_key(key))
        .collect();
    for key in stale {
        table.remove(&key);
    }
    for (key, value) in wanted {
        match table.get_mut(key) {
            Some(old) if old.to_string().trim() == value.to_string().trim() => {}
            Some(old) => write_value(old, value),
            None => {
                table.insert(key, Item::Value(value.clone()));
            }
        }
    }
}

/// Removes a table and the comment directly above it; comments further above, set off by a
/// blank line, move to the table that follows.
fn remove_table(document: &mut DocumentMut, kind: &str, name: &str) -> Result<(), Fault> {
    let Some(list) = list_of(document, kind)? else { return Ok(()) };
    let Some(index) = list.iter().position(|table| is_named(table, name)) else { return Ok(()) };
    let removed = list.remove(index);
    let prefix = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let kept = detached_comments(prefix);
    if kept.is_empty() {
        return Ok(());
    }
    let is_empty = positions(document.as_table()).is_empty();
    match removed.position().and_then(|position| table_after(document.as_table_mut(), position)) {
        Some(next) => {
            let old = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or("\n");
            let joined = join_comments(&kept, old);
            next.decor_mut().set_prefix(joined);
        }
        // No table of the file is left: the comments stay at the top, above new tables.
        None if is_empty => {
            let root = document.as_table_mut().decor_mut();
            let old = root.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
            let joined = format!("{old}{kept}\n");
            root.set_prefix(joined);
        }
        None => {
            let old = document.trailing().as_str().unwrap_or_default();
            let joined = join_comments(&kept, old);
            document.set_trailing(joined);
        }
    }
    Ok(())
}

/// The comments above a table that a blank line separates from it.
fn detached_comments(prefix: &str) -> String {
    let lines: Vec<&str> = prefix.split_inclusive('\n').collect();
    let blank = lines.iter().rposition(|line| line.trim().is_empty()).unwrap_or(0);
    let kept = lines[..blank].concat();
    if kept.contains('#') { kept } else { String::new() }
}

fn join_comments(kept: &str, below: &str) -> String {
    let starts_blank = below.is_empty() || below.starts_with(['\n', '\r']);
    format!("{kept}{}{below}", if starts_blank { "" } else { "\n" })
}

/// The first table with a header of its own after a position in the document.
fn table_after(root: &mut Table, position: isize) -> Option<&mut Table> {
    let next = positions(root).into_iter().filter(|other| *other > position).min()?;
    at_position(root, next)
}

fn positions(table: &Table) -> Vec<isize> {
    let mut found = Vec::new();
    for (_, item) in table.iter() {
        match item {
            Item::Table(child) => {
                if !child.is_implicit() && !child.is_dotted() {
                    found.extend(child.position());
                }
                found.extend(positions(child));
            }
            Item::ArrayOfTables(children) => {
                for child in children {
                    found.extend(child.position());
                    found.extend(positions(child));
                }
            }
            _ => {}
        }
    }
    found
}

fn at_position(table: &mut Table, position: isize) -> Option<&mut Table> {
    for (_, item) in table.iter_mut() {
        let children: Vec<&mut Table> = match item {
            Item::Table(child) => vec![child],
            Item::ArrayOfTables(children) => children.iter_mut().collect(),
            _ => continue,
        };
        for child in children {
            let visible = !child.is_implicit() && !child.is_dotted();
            if visible && child.position() == Some(position) {
                return Some(child);
            }
            if let Some(found) = at_position(child, position) {
                return Some(found);
            }
        }
    }
    None
}

/// Keeps the text's line endings, and adds no blank lines at the top.
fn tidy(before: &str, after: String) -> String {
    let after =
        if before.starts_with(['\n', '\r']) { &after } else { after.trim_start_matches('\n') };
    if before.contains("\r\n") {
        after.replace("\r\n", "\n").replace('\n', "\r\n")
    } else {
        after.to_owned()
    }
}
