//! Commands on records of the tables: `list`, `find`, `get`, `set`, `add`, `remove`, `clear`.

use trama_api::transaction::{Form, Output};
use trama_api::value::Value;

use super::assign::{set_one, write};
use super::call::Call;
use super::column_ref::ColumnRef;
use super::condition::Condition;
use super::context::{Context, View};
use super::failure::Failure;
use super::lookup::{find_column, find_record, find_table};
use super::schema::column::{Column, Table};
use super::schema::{BRIDGE, INTERFACE};
use super::symbols::ID;
use crate::config::openvswitch::MTU_REQUEST;
use crate::value_type::{Shape, Type};

pub(super) fn list(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let columns = stated_columns(table, call)?;
    let mut names = Vec::new();
    for record in call.args_from(1) {
        names.extend(find_record(context, table, record, call)?);
    }
    if call.args.len() == 1 {
        names = table.records(&context.draft);
    }
    Ok(tabulate(context, table, columns, &names))
}

pub(super) fn find(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let columns = stated_columns(table, call)?;
    let conditions = call.args_from(1).iter().map(|text| Condition::parse(table, text));
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    let mut names = table.records(&context.draft);
    let view = context.view();
    names.retain(|name| conditions.iter().all(|condition| condition.holds(view, name)));
    Ok(tabulate(context, table, columns, &names))
}

pub(super) fn get(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    if call.has("--if-exists") && call.option(ID).is_some() {
        return Err("--if-exists and --id may not be specified together".to_owned().into());
    }
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    if let Some(id) = call.option(ID) {
        context.symbols.name(id, &table.uuid(&record))?;
    }
    let mut lines = Vec::new();
    for text in call.args_from(2) {
        let (place, rest) = ColumnRef::split(text);
        let column = find_column(table, place.column)?;
        if !rest.is_empty() {
            return Err(format!("{text}: trailing garbage \"{rest}\" in argument").into());
        }
        let value = column.read(context.view(), &record);
        let Some(key) = place.key()? else {
            lines.push(value.to_string());
            continue;
        };
        if column.of.shape != Shape::Map {
            let name = column.name;
            return Err(format!("cannot specify key to get for non-map column {name}").into());
        }
        match column.at(&value, &column.of.parse_key(&key)?) {
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

pub(super) fn set(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    if is_of_bridge(context, table, call.arg(1)) {
        return set_of_bridge(context, call);
    }
    if let Some(record) = find_record(context, table, call.arg(1), call)? {
        for setting in call.args_from(2) {
            set_one(context, table, &record, setting)?;
        }
    }
    Ok(Output::none())
}

/// Whether the record is the interface that a bridge of Open vSwitch has itself.
fn is_of_bridge(context: &Context<'_>, table: &Table, record: &str) -> bool {
    let is_interface = std::ptr::eq(table, &*INTERFACE);
    is_interface && !table.has(&context.draft, record) && context.draft.network(record).is_some()
}

/// Sets the bridge's MTU, for which software written for Open vSwitch asks its interface.
fn set_of_bridge(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = call.arg(1);
    for setting in call.args_from(2) {
        let (place, rest) = ColumnRef::split(setting);
        let column = find_column(&INTERFACE, place.column)?;
        if column.name != MTU_REQUEST {
            let message = format!(
                "bridge {bridge} has no interface of its own: of its columns, only {MTU_REQUEST} \
                 can be set, which is mtu of Bridge"
            );
            return Err(message.into());
        }
        set_one(context, &BRIDGE, bridge, &format!("mtu{rest}"))?;
    }
    Ok(Output::none())
}

pub(super) fn add(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    change(context, call, |column, have, text| {
        let many = column.parse_many(text)?;
        Ok(match have {
            Value::Map(_) => {
                let mut pairs = have.pairs();
                pairs.extend(many.pairs());
                Value::Map(pairs.into())
            }
            other => {
                let mut atoms = other.atoms();
                atoms.extend(many.atoms());
                Value::Set(atoms)
            }
        })
    })
}

pub(super) fn remove(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    change(context, call, |column, have, text| {
        Ok(match have {
            Value::Map(_) => {
                let mut pairs = have.pairs();
                match column.of.parse(text) {
                    // A pair is removed only if both key and value match.
                    Ok(gone) => {
                        for (key, value) in gone.pairs() {
                            if column.at(&have, &key) == Some(value) {
                                column.remove(&mut pairs, &key);
                            }
                        }
                    }
                    Err(_) => {
                        let keys = Type::new(column.of.keys, Shape::Set).parse(text)?;
                        for key in keys.atoms() {
                            column.remove(&mut pairs, &key);
                        }
                    }
                }
                Value::Map(pairs.into())
            }
            other => {
                let gone = column.parse_many(text)?.atoms();
                Value::Set(other.atoms().difference(&gone).cloned().collect())
            }
        })
    })
}

pub(super) fn clear(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    for name in call.args_from(2) {
        let column = find_column(table, name)?;
        let empty = match column.of.shape {
            Shape::Map => Value::Map(Default::default()),
            Shape::Set | Shape::Optional => Value::NOTHING,
            Shape::One if !column.is_free() => Value::NOTHING,
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

/// The common part of `add` and `remove`: each argument turns the value of the column into another.
fn change(
    context: &mut Context<'_>,
    call: &Call,
    edit: impl Fn(&Column, Value, &str) -> Result<Value, Failure>,
) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let Some(record) = find_record(context, table, call.arg(1), call)? else {
        return Ok(Output::none());
    };
    let column = find_column(table, call.arg(2))?;
    let mut value = column.read(context.view(), &record);
    for text in call.args_from(3) {
        let text = context.symbols.resolve(&column.of, text);
        value = edit(column, value, &text)?;
    }
    if !matches!(value, Value::Map(_)) && column.is_free() {
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

fn tabulate(
    context: &Context<'_>,
    table: &'static Table,
    stated: Option<Vec<&'static Column>>,
    names: &[String],
) -> Output {
    let view = context.view();
    let columns = stated.unwrap_or_else(|| telling_columns(table, view, names));
    let row = |name: &String| columns.iter().map(|column| column.read(view, name)).collect();
    Output::Table {
        headings: columns.iter().map(|column| column.name.to_owned()).collect(),
        rows: names.iter().map(row).collect(),
        form: Form::List,
    }
}

/// All columns, except kept ones that have their default in each of the records.
fn telling_columns(
    table: &'static Table,
    view: View<'_>,
    names: &[String],
) -> Vec<&'static Column> {
    // Most records keep none of twenty columns, and there may be thousands of records.
    let keeps = |name: &&String| table.keeps(view.draft, name);
    let keeping: Vec<&String> = names.iter().filter(keeps).collect();
    let is_default = |column: &Column| keeping.iter().all(|name| column.is_default(view, name));
    table.columns.iter().filter(|column| !column.is_kept() || !is_default(column)).collect()
}

/// The columns of `--columns`.
fn stated_columns(
    table: &'static Table,
    call: &Call,
) -> Result<Option<Vec<&'static Column>>, Failure> {
    let Some(wanted) = call.option("--columns") else { return Ok(None) };
    let names = wanted.split([',', ' ']).filter(|name| !name.is_empty());
    let columns = names.map(|name| find_column(table, name)).collect::<Result<Vec<_>, _>>()?;
    if columns.is_empty() {
        return Err("must specify at least one column name".to_owned().into());
    }
    Ok(Some(columns))
}
