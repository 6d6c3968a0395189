//! Runs the code of each command of the table.

use trama_api::commands::CommandId;
use trama_api::transaction::Output;

use super::call::Call;
use super::context::Context;
use super::failure::Failure;
use super::{bridges, compat, create, forward, live, records, show, wait};

/// Runs a command.
///
/// # Errors
/// The command refuses.
pub(super) fn run(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let run = match call.command.id {
        CommandId::Show => show::show,
        CommandId::AddBr => bridges::add_br,
        CommandId::DelBr => bridges::del_br,
        CommandId::ListBr => bridges::list_br,
        CommandId::BrExists => bridges::br_exists,
        CommandId::AddPort => bridges::add_port,
        CommandId::DelPort => bridges::del_port,
        CommandId::Detach => bridges::detach,
        CommandId::ListPorts => bridges::list_ports,
        CommandId::PortToBr => bridges::port_to_br,
        CommandId::ListIfaces => bridges::list_ports,
        CommandId::IfaceToBr => bridges::iface_to_br,
        CommandId::Link => bridges::link,
        CommandId::List => records::list,
        CommandId::Find => records::find,
        CommandId::Get => records::get,
        CommandId::Set => records::set,
        CommandId::Add => records::add,
        CommandId::Remove => records::remove,
        CommandId::Clear => records::clear,
        CommandId::Create => create::create,
        CommandId::Destroy => create::destroy,
        CommandId::WaitUntil => wait::wait_until,
        CommandId::FdbShow => live::fdb_show,
        CommandId::FdbFlush => live::fdb_flush,
        CommandId::Leases => live::leases,
        CommandId::Forward => forward::forward,
        CommandId::Flows => forward::flows,
        CommandId::Counters => live::counters,
        CommandId::Reload => live::reload,
        CommandId::Upgrade => live::upgrade,
        CommandId::Version => live::version,
        CommandId::BrToVlan => compat::br_to_vlan,
        CommandId::BrToParent => compat::br_to_parent,
        CommandId::BrSetExternalId => compat::br_set_external_id,
        CommandId::BrGetExternalId => compat::br_get_external_id,
        CommandId::GetController | CommandId::DelController => compat::nothing_of_bridge,
        CommandId::GetFailMode => compat::get_fail_mode,
        CommandId::SetFailMode => compat::set_fail_mode,
        CommandId::DelFailMode => compat::del_fail_mode,
        CommandId::EmerReset => compat::emer_reset,
        CommandId::AddBond | CommandId::AddBondIface | CommandId::DelBondIface => compat::bond,
        CommandId::SetController | CommandId::SetManager | CommandId::SetSsl => compat::refused,
        CommandId::GetManager
        | CommandId::DelManager
        | CommandId::GetSsl
        | CommandId::DelSsl
        | CommandId::Init
        | CommandId::Comment => compat::nothing,
    };
    run(context, call)
}
