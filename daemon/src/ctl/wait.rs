//! `wait-until`: the client sends the transaction again until the conditions hold.

use trama_api::transaction::{NOT_YET, Output};

use super::call::Call;
use super::condition::Condition;
use super::context::Context;
use super::failure::Failure;
use super::lookup::{find_record_if_any, find_table};

pub(super) fn wait_until(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let table = find_table(call.arg(0))?;
    let conditions = call.args_from(2).iter().map(|text| Condition::parse(table, text));
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    let record = find_record_if_any(context, table, call.arg(1))?;
    let view = context.view();
    let holds = |record: &String| conditions.iter().all(|it| it.holds(view, record));
    if record.as_ref().is_some_and(holds) {
        return Ok(Output::none());
    }
    let message = format!("{} {} is not as wanted yet", table.name, call.args_from(1).join(" "));
    Err(Failure { message, exit: NOT_YET })
}
