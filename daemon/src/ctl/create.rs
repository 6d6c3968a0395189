//! `create` and `destroy`, for tables with records of their own.

use trama_api::transaction::Output;

use super::assign::set_one;
use super::call::Call;
use super::context::Context;
use super::failure::Failure;
use super::lookup::{find_record, find_table};
use super::schema::column::{Made, Table};
use super::symbols::ID;
use crate::config::model::openvswitch::{Record, RecordTable};

pub(super) fn create(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let made = table.made().ok_or_else(|| made_otherwise(table, "add-br", "add-port"))?;
    let uuid = context.symbols.create(call.option(ID))?;
    match made {
        Made::Record(table) => {
            let record = Record { name: uuid.clone(), table, columns: Default::default() };
            context.draft.add_record(record);
        }
        Made::Mirror => context.draft.add_mirror(uuid.clone()),
    }
    if !matches!(made, Made::Record(kind) if RecordTable::LASTING.contains(&kind)) {
        context.created.push((uuid.clone(), no_effect(table, call.option(ID))));
    }
    for setting in call.args_from(1) {
        set_one(context, table, &uuid, setting)?;
    }
    Ok(Output::line(uuid))
}

pub(super) fn destroy(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    const ALL: &str = "--all";
    let table = find_table(call.arg(0))?;
    if call.has(ALL) && call.args.len() > 1 {
        return Err("--all and records argument should not be specified together"
            .to_owned()
            .into());
    }
    if call.has(ALL) && call.has("--if-exists") {
        return Err("--all and --if-exists should not be specified together".to_owned().into());
    }
    let mut records = Vec::new();
    if call.has(ALL) {
        records = table.records(&context.draft);
    }
    for record in call.args_from(1) {
        records.extend(find_record(context, table, record, call)?);
    }
    let made = table.made();
    if made.is_none() && !records.is_empty() {
        return Err(made_otherwise(table, "del-br", "del-port"));
    }
    for record in &records {
        match made {
            Some(Made::Mirror) => context.draft.remove_mirror(record),
            _ => context.draft.remove_record(record),
        }
    }
    Ok(Output::none())
}

/// A record to which nothing refers, in Open vSwitch's words.
fn no_effect(table: &Table, id: Option<&str>) -> String {
    match id {
        Some(id) => format!(
            "row id \"{id}\" was created but no reference to it was inserted, so it will not \
             actually appear in the database"
        ),
        None => format!(
            "applying \"create\" command to table {} without --id option will have no effect",
            table.name
        ),
    }
}

fn made_otherwise(table: &Table, of_bridge: &str, of_port: &str) -> Failure {
    let name = table.name;
    match name {
        "Bridge" => format!("records of Bridge come and go with {of_bridge}"),
        "Port" | "Interface" => format!(
            "records of {name} come and go with {of_port}: a port and its interface have one name"
        ),
        _ => format!("{name} has one record, \".\", which stays"),
    }
    .into()
}
