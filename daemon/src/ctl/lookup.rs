//! Looks up tables, columns and records by name or abbreviation.

use trama_api::nearest::suggestion;

use super::call::Call;
use super::context::Context;
use super::failure::Failure;
use super::schema::TABLES;
use super::schema::column::{Column, Table};

/// Shortest prefix that is taken for a UUID.
const UUID_PREFIX: usize = 4;

/// The table that `text` names.
pub(super) fn find_table(text: &str) -> Result<&'static Table, Failure> {
    let found = find_by_name(&TABLES, text, |table| table.name);
    let found = found.map_err(|matching| match matching.as_slice() {
        [] => {
            let known: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
            match suggestion(text, &known) {
                near if near.is_empty() => {
                    format!("unknown table \"{text}\"; there are {}", known.join(", "))
                }
                near => format!("unknown table \"{text}\"{near}"),
            }
        }
        several => format!("multiple tables match \"{text}\": {}", several.join(", ")),
    });
    Ok(found?)
}

/// The column that `text` names.
pub(super) fn find_column(table: &'static Table, text: &str) -> Result<&'static Column, Failure> {
    let found = find_by_name(&table.columns, text, |column| column.name);
    let found = found.map_err(|matching| match matching.as_slice() {
        [] => {
            let known: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            let near = suggestion(text, &known);
            format!("{} does not contain a column whose name matches \"{text}\"{near}", table.name)
        }
        several => format!(
            "{} contains more than one column whose name matches \"{text}\": {}",
            table.name,
            several.join(", ")
        ),
    });
    Ok(found?)
}

/// The name of the record that `text` gives by name, UUID or prefix of its UUID. `None` = the
/// record does not exist, and `--if-exists` permits that.
pub(super) fn find_record(
    context: &Context<'_>,
    table: &Table,
    text: &str,
    call: &Call,
) -> Result<Option<String>, Failure> {
    if let Some(record) = find_record_if_any(context, table, text)? {
        return Ok(Some(record));
    }
    if call.has("--if-exists") {
        return Ok(None);
    }
    if text.starts_with("--") {
        return Err(format!(
            "no row \"{text}\" in table {} (note that options must precede command names)",
            table.name
        )
        .into());
    }
    let known = table.records(&context.draft);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = suggestion(text, &known);
    Err(format!("no row \"{text}\" in table {}{near}", table.name).into())
}

/// As [`find_record`], where it may be that there is no such record.
pub(super) fn find_record_if_any(
    context: &Context<'_>,
    table: &Table,
    text: &str,
) -> Result<Option<String>, Failure> {
    if table.has(&context.draft, text) {
        return Ok(Some(text.to_owned()));
    }
    let mut names = table.records(&context.draft);
    names.retain(|name| text.len() >= UUID_PREFIX && table.uuid(name).starts_with(text));
    match names.as_slice() {
        [name] => Ok(Some(name.clone())),
        [] => match table.records_known_by(&context.draft, text).as_slice() {
            [name] => Ok(Some(name.clone())),
            _ => Ok(None),
        },
        _ => {
            Err(format!("\"{text}\" begins the _uuid of several rows in table {}", table.name)
                .into())
        }
    }
}

/// The item of this name or, if there is only one, with this prefix. Upper and lower case are
/// equal, and so are `-` and `_`. Error: the names with this prefix.
fn find_by_name<T>(
    items: &'static [T],
    text: &str,
    name: impl Fn(&T) -> &'static str,
) -> Result<&'static T, Vec<&'static str>> {
    let folded = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wanted = folded(text);
    if let Some(exact) = items.iter().find(|item| folded(name(item)) == wanted) {
        return Ok(exact);
    }
    let begins = |item: &&T| !wanted.is_empty() && folded(name(item)).starts_with(&wanted);
    match items.iter().filter(begins).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        several => Err(several.iter().map(|item| name(item)).collect()),
    }
}
