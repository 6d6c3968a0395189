//! Sets columns of records.

use trama_api::value::Value;

use super::column_ref::ColumnRef;
use super::context::Context;
use super::failure::Failure;
use super::lookup::find_column;
use super::options_reader::ROLE;
use super::schema::column::{Column, OPTIONS, Table};
use crate::value_type::Shape;

/// Carries out `COLUMN[:KEY]=VALUE` on a record that exists.
pub(super) fn set_one(
    context: &mut Context<'_>,
    table: &'static Table,
    record: &str,
    setting: &str,
) -> Result<(), Failure> {
    let (place, rest) = ColumnRef::split(setting);
    let column = find_column(table, place.column)?;
    let Some(text) = rest.strip_prefix('=').filter(|text| !text.is_empty()) else {
        return Err(
            format!("{setting}: argument does not end in \"=\" followed by a value.").into()
        );
    };
    let text = &*context.symbols.resolve(&column.of, text);
    let key = place.key()?;
    let value = match &key {
        None => column.parse(text)?,
        Some(_) if column.of.shape != Shape::Map => {
            let name = column.name;
            return Err(format!("cannot specify key to set for non-map column {name}").into());
        }
        Some(key) => {
            let mut pairs = column.read(context.view(), record).pairs();
            pairs.insert(column.of.parse_key(key)?, column.of.parse_atom(text)?);
            Value::Map(pairs.into())
        }
    };
    let states_role = key.map_or_else(|| value.at(ROLE).is_some(), |key| key == ROLE);
    if column.name == OPTIONS && states_role {
        context.draft.state_role(record);
    }
    write(context, table, column, record, value)
}

/// Writes a value into a column, unless it is read-only.
pub(super) fn write(
    context: &mut Context<'_>,
    table: &Table,
    column: &Column,
    record: &str,
    value: Value,
) -> Result<(), Failure> {
    if column.is_free() {
        return column.write(&mut context.draft, record, value);
    }
    Err(format!("cannot modify read-only column {} in table {}", column.name, table.name).into())
}
