//! Commands on records of the tables: `list`, `find`, `get`, `set`, `add`, `remove`, `clear`.

use super::condition::Condition;
use super::schema::{Column, TABLES, Table, View};
use super::types::{Shape, Type};
use super::value::Value;
use super::{Call, Context, Failure, identity};
use crate::api::types::{Form, Output};

/// Characters that end a column's name or a key that is not quoted.
const DELIMITERS: &str = ":=, []{}!<>";
/// Shorter beginnings of an identity are not taken for one.
const UUID_PREFIX: usize = 4;

pub fn list(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let columns = shown_columns(table, call)?;
    let mut names = Vec::new();
    for record in call.args_from(1) {
        names.extend(find_record(context, table, record, call)?);
    }
    if call.args.len() == 1 {
        names = (table.records)(&context.draft);
    }
    Ok(tabulate(context, &columns, &names))
}

pub fn find(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let columns = shown_columns(table, call)?;
    let conditions = call.args_from(1).iter().map(|text| Condition::parse(table, text));
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    let mut names = (table.records)(&context.draft);
    let view = view(context);
    names.retain(|name| conditions.iter().all(|condition| condition.holds(view, name)));
    Ok(tabulate(context, &columns, &names))
}

pub fn get(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    let mut lines = Vec::new();
    for text in call.args_from(2) {
        let (place, rest) = Place::split(text);
        let column = find_column(table, place.column)?;
        if !rest.is_empty() {
            return Err(format!("{text}: trailing garbage \"{rest}\" in argument").into());
        }
        let value = (column.read)(view(context), &record);
        let Some(key) = place.key()? else {
            lines.push(value.to_string());
            continue;
        };
        if column.of.shape != Shape::Map {
            let name = column.name;
            return Err(format!("cannot specify key to get for non-map column {name}").into());
        }
        match value.pairs().get(&key) {
            Some(atom) => lines.push(atom.to_string()),
            None if call.has("--if-exists") => lines.push(String::new()),
            None => {
                return Err(format!(
                    "no key \"{key}\" in {} record \"{record}\" column {}",
                    table.name, column.name
                )
                .into());
            }
        }
    }
    Ok(Output::Text { lines })
}

pub fn set(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    if let Some(record) = find_record(context, table, call.arg(1), call)? {
        for setting in call.args_from(2) {
            set_one(context, table, &record, setting)?;
        }
    }
    Ok(Output::none())
}

/// Carries out one `COLUMN[:KEY]=VALUE` on a record that exists.
pub fn set_one(
    context: &mut Context<'_>,
    table: &'static Table,
    record: &str,
    setting: &str,
) -> Result<(), Failure> {
    let (place, rest) = Place::split(setting);
    let column = find_column(table, place.column)?;
    let Some(text) = rest.strip_prefix('=').filter(|text| !text.is_empty()) else {
        return Err(
            format!("{setting}: argument does not end in \"=\" followed by a value.").into()
        );
    };
    let value = match place.key()? {
        None => column.of.parse(text)?,
        Some(_) if column.of.shape != Shape::Map => {
            let name = column.name;
            return Err(format!("cannot specify key to set for non-map column {name}").into());
        }
        Some(key) => {
            let mut pairs = (column.read)(view(context), record).pairs();
            pairs.insert(key, column.of.parse_atom(text)?);
            Value::Map(pairs)
        }
    };
    write(context, table, column, record, value)
}

pub fn add(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    change(context, call, |column, have, text| {
        let many = many(column).parse(text)?;
        Ok(match have {
            Value::Map(mut pairs) => {
                pairs.extend(many.pairs());
                Value::Map(pairs)
            }
            other => {
                let mut atoms = other.atoms();
                atoms.extend(many.atoms());
                Value::Set(atoms)
            }
        })
    })
}

pub fn remove(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    change(context, call, |column, have, text| {
        Ok(match have {
            Value::Map(mut pairs) => {
                match column.of.parse(text) {
                    // Pairs go only where key and value are both right.
                    Ok(gone) => {
                        let gone = gone.pairs();
                        pairs.retain(|key, value| gone.get(key) != Some(value));
                    }
                    Err(_) => {
                        let keys = Type::new(super::types::Kind::String, Shape::Set).parse(text)?;
                        for key in keys.atoms() {
                            pairs.remove(&key.bare());
                        }
                    }
                }
                Value::Map(pairs)
            }
            other => {
                let gone = many(column).parse(text)?.atoms();
                Value::Set(other.atoms().difference(&gone).cloned().collect())
            }
        })
    })
}

pub fn clear(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    for name in call.args_from(2) {
        let column = find_column(table, name)?;
        let empty = match column.of.shape {
            Shape::Map => Value::Map(Default::default()),
            Shape::Set | Shape::Optional => Value::NOTHING,
            Shape::One if column.write.is_none() => Value::NOTHING,
            Shape::One => {
                return Err(format!(
                    "\"clear\" operation cannot be applied to column {} of table {}, which is not \
                     allowed to be empty",
                    column.name, table.name
                )
                .into());
            }
        };
        write(context, table, column, &record, empty)?;
    }
    Ok(Output::none())
}

/// What `add` and `remove` have in common: each argument turns the column's value into another.
fn change(
    context: &mut Context<'_>,
    call: &Call,
    edit: impl Fn(&Column, Value, &str) -> Result<Value, String>,
) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    let column = find_column(table, call.arg(2))?;
    let mut value = (column.read)(view(context), &record);
    for text in call.args_from(3) {
        value = edit(column, value, text)?;
    }
    if !matches!(value, Value::Map(_)) && column.write.is_some() {
        value = column.of.shaped(value.atoms()).map_err(|count| {
            let (bound, limit) = if count == 0 { ("minimum", 1) } else { ("maximum", 1) };
            format!(
                "\"{}\" operation would put {count} values in column {} of table {} but the \
                 {bound} number is {limit}",
                call.command.name, column.name, table.name
            )
        })?;
    }
    write(context, table, column, &record, value)?;
    Ok(Output::none())
}

fn write(
    context: &mut Context<'_>,
    table: &Table,
    column: &Column,
    record: &str,
    value: Value,
) -> Result<(), Failure> {
    match column.write {
        Some(write) => Ok(write(&mut context.draft, record, value)?),
        None => {
            Err(format!("cannot modify read-only column {} in table {}", column.name, table.name)
                .into())
        }
    }
}

/// The column's type with room for several values, so that too many are found at the end.
fn many(column: &Column) -> Type {
    let shape = if column.of.shape == Shape::Map { Shape::Map } else { Shape::Set };
    Type::new(column.of.kind, shape)
}

fn view<'a>(context: &'a Context<'_>) -> View<'a> {
    View { draft: &context.draft, snapshot: context.snapshot }
}

fn tabulate(context: &Context<'_>, columns: &[&'static Column], names: &[String]) -> Output {
    let view = view(context);
    let row = |name: &String| columns.iter().map(|column| (column.read)(view, name)).collect();
    Output::Table {
        headings: columns.iter().map(|column| column.name.to_owned()).collect(),
        rows: names.iter().map(row).collect(),
        form: Form::List,
    }
}

fn shown_columns(table: &'static Table, call: &Call) -> Result<Vec<&'static Column>, String> {
    let Some(wanted) = call.option("--columns") else {
        return Ok(table.columns.iter().collect());
    };
    let names = wanted.split([',', ' ']).filter(|name| !name.is_empty());
    let columns = names.map(|name| find_column(table, name)).collect::<Result<Vec<_>, _>>()?;
    if columns.is_empty() {
        return Err("must specify at least one column name".into());
    }
    Ok(columns)
}

/// The name of the record that `text` means: by name, or by identity or its beginning. `None`: it
/// does not exist and need not (`--if-exists`).
fn find_record(
    context: &Context<'_>,
    table: &Table,
    text: &str,
    call: &Call,
) -> Result<Option<String>, Failure> {
    let mut names = (table.records)(&context.draft);
    if names.iter().any(|name| name == text) {
        return Ok(Some(text.to_owned()));
    }
    names.retain(|name| {
        text.len() >= UUID_PREFIX && identity::of(table.name, name).starts_with(text)
    });
    match names.as_slice() {
        [name] => Ok(Some(name.clone())),
        [] if call.has("--if-exists") => Ok(None),
        [] if text.starts_with("--") => Err(format!(
            "no row \"{text}\" in table {} (note that options must precede command names)",
            table.name
        )
        .into()),
        [] => Err(format!("no row \"{text}\" in table {}", table.name).into()),
        _ => {
            Err(format!("\"{text}\" begins the _uuid of several rows in table {}", table.name)
                .into())
        }
    }
}

fn find_table(text: &str) -> Result<&'static Table, String> {
    find_by_name(&TABLES, text, |table| table.name).map_err(|matching| match matching.as_slice() {
        [] => format!("unknown table \"{text}\"; there are Bridge, Port, Interface"),
        several => format!("multiple tables match \"{text}\": {}", several.join(", ")),
    })
}

/// The column that `text` means.
pub fn find_column(table: &'static Table, text: &str) -> Result<&'static Column, String> {
    find_by_name(table.columns, text, |column| column.name).map_err(|matching| {
        match matching.as_slice() {
            [] => {
                format!("{} does not contain a column whose name matches \"{text}\"", table.name)
            }
            several => format!(
                "{} contains more than one column whose name matches \"{text}\": {}",
                table.name,
                several.join(", ")
            ),
        }
    })
}

/// The item of this name or, if there is just one, whose name begins so; upper case counts as
/// lower case, and `-` as `_`. Error: the names that begin so.
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

/// `COLUMN[:KEY]` as it stands at the beginning of an argument.
pub struct Place<'a> {
    /// The column's name as typed.
    pub column: &'a str,
    key: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// Parts a place from what follows it.
    pub fn split(text: &'a str) -> (Place<'a>, &'a str) {
        let (column, rest) = word(text);
        match rest.strip_prefix(':') {
            Some(after) => {
                let (key, rest) = word(after);
                (Place { column, key: Some(key) }, rest)
            }
            None => (Place { column, key: None }, rest),
        }
    }

    /// The key, without its quotes.
    ///
    /// # Errors
    /// It is empty, or the quotes are not closed.
    pub fn key(&self) -> Result<Option<String>, String> {
        match self.key {
            None => Ok(None),
            Some("") => Err(format!("{}: missing key after \":\"", self.column)),
            Some(quoted) if quoted.starts_with('"') => {
                serde_json::from_str(quoted).map(Some).map_err(|error| format!("{quoted}: {error}"))
            }
            Some(plain) => Ok(Some(plain.to_owned())),
        }
    }
}

/// A word or a JSON string (with its quotes) at the beginning of `text`, and the rest.
fn word(text: &str) -> (&str, &str) {
    let end = if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        match strings.next() {
            Some(Ok(_)) => strings.byte_offset(),
            _ => text.len(),
        }
    } else {
        text.find(|c| DELIMITERS.contains(c)).unwrap_or(text.len())
    };
    text.split_at(end)
}
