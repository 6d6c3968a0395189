//! The one table of commands: name, arity, options, usage, summary and code.
//!
//! `tramactl` derives its help, man page and completions from it, and `tramad` its behaviour.

use super::{Call, Context, Failure, bridges, forward, live, records, show};
use crate::api::types::Output;

/// A command of `tramactl` that the daemon carries out.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments.
    pub max: usize,
    /// The options it takes.
    pub options: &'static [CommandOption],
    /// Its arguments, for people.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Carries it out.
    pub(super) run: fn(&mut Context<'_>, &Call) -> Result<Output, Failure>,
}

/// An option of a command; it stands before the command's name.
pub struct CommandOption {
    /// With the two dashes.
    pub name: &'static str,
    /// What its value is called; `None` = it takes none.
    pub value: Option<&'static str>,
    /// What it does, in one line.
    pub summary: &'static str,
}

impl Command {
    /// Options, name and arguments, as they are typed.
    pub fn usage(&self) -> String {
        let options = self.options.iter().map(|option| match option.value {
            Some(value) => format!("[{}={value}] ", option.name),
            None => format!("[{}] ", option.name),
        });
        format!("{}{} {}", options.collect::<String>(), self.name, self.arguments)
            .trim_end()
            .to_owned()
    }
}

const MAY_EXIST: CommandOption =
    CommandOption { name: "--may-exist", value: None, summary: "It is no error if it exists" };
const IF_EXISTS: CommandOption =
    CommandOption { name: "--if-exists", value: None, summary: "It is no error if it is missing" };
const COLUMNS: CommandOption = CommandOption {
    name: "--columns",
    value: Some("COLUMN,..."),
    summary: "Show these columns, in this order",
};
const NAMES: CommandOption =
    CommandOption { name: "--names", value: None, summary: "Show names of ports, not numbers" };

/// The name of the command that reads the configuration file again; it stands alone.
pub const RELOAD: &str = "reload";

/// The name of the command that shows learnt MAC addresses.
pub const FDB_SHOW: &str = "fdb/show";

/// The name of the command that shows DHCP leases.
pub const LEASES: &str = "leases";
/// The name of the command that shows and changes forwards.
pub const FORWARD: &str = "forward";

/// The name of the command that shows flows.
pub const FLOWS: &str = "flows";

const ANY: usize = usize::MAX;

macro_rules! command {
    ($name:expr, $min:expr, $max:expr, [$($option:expr),*], $arguments:expr, $run:expr, $summary:expr) => {
        Command {
            name: $name,
            min: $min,
            max: $max,
            options: &[$($option),*],
            arguments: $arguments,
            summary: $summary,
            run: $run,
        }
    };
}

/// Every command, in the order in which help shows them.
pub static COMMANDS: [Command; 27] = [
    command!("show", 0, 0, [], "", show::show, "Print an overview"),
    command!("add-br", 1, 3, [MAY_EXIST], "BRIDGE", bridges::add_br, "Add a network"),
    command!(
        "del-br",
        1,
        1,
        [IF_EXISTS],
        "BRIDGE",
        bridges::del_br,
        "Remove a network with its ports"
    ),
    command!("list-br", 0, 0, [], "", bridges::list_br, "Print the names of all networks"),
    command!(
        "br-exists",
        1,
        1,
        [],
        "BRIDGE",
        bridges::br_exists,
        "Exit 2 if there is no such network"
    ),
    command!(
        "add-port",
        2,
        ANY,
        [MAY_EXIST],
        "BRIDGE PORT [COLUMN[:KEY]=VALUE]...",
        bridges::add_port,
        "Add a port to a network: a TAP of its name until its Interface is given a type"
    ),
    command!("del-port", 1, 2, [IF_EXISTS], "[BRIDGE] PORT", bridges::del_port, "Remove a port"),
    command!(
        "list-ports",
        1,
        1,
        [],
        "BRIDGE",
        bridges::list_ports,
        "Print the names of a network's ports"
    ),
    command!(
        "port-to-br",
        1,
        1,
        [],
        "PORT",
        bridges::port_to_br,
        "Print the network that a port is on"
    ),
    command!(
        "list-ifaces",
        1,
        1,
        [],
        "BRIDGE",
        bridges::list_ports,
        "Print the names of a network's interfaces"
    ),
    command!(
        "iface-to-br",
        1,
        1,
        [],
        "INTERFACE",
        bridges::iface_to_br,
        "Print the network that an interface is on"
    ),
    command!("link", 2, 2, [], "PORT up|down", bridges::link, "Plug a port's cable in, or pull it"),
    command!(
        "list",
        1,
        ANY,
        [IF_EXISTS, COLUMNS],
        "TABLE [RECORD]...",
        records::list,
        "Print records"
    ),
    command!(
        "find",
        1,
        ANY,
        [COLUMNS],
        "TABLE [COLUMN[:KEY]=VALUE]...",
        records::find,
        "Print the records that fulfil all conditions"
    ),
    command!(
        "get",
        2,
        ANY,
        [IF_EXISTS],
        "TABLE RECORD [COLUMN[:KEY]]...",
        records::get,
        "Print values of a record"
    ),
    command!(
        "set",
        3,
        ANY,
        [IF_EXISTS],
        "TABLE RECORD COLUMN[:KEY]=VALUE...",
        records::set,
        "Set values of a record"
    ),
    command!(
        "add",
        4,
        ANY,
        [IF_EXISTS],
        "TABLE RECORD COLUMN [KEY=]VALUE...",
        records::add,
        "Add values to a set or map"
    ),
    command!(
        "remove",
        4,
        ANY,
        [IF_EXISTS],
        "TABLE RECORD COLUMN KEY|VALUE|KEY=VALUE...",
        records::remove,
        "Remove values from a set or map"
    ),
    command!(
        "clear",
        3,
        ANY,
        [IF_EXISTS],
        "TABLE RECORD COLUMN...",
        records::clear,
        "Empty columns"
    ),
    command!(FDB_SHOW, 0, 1, [NAMES], "[BRIDGE]", live::fdb_show, "Print learnt MAC addresses"),
    command!("fdb/flush", 0, 1, [], "[BRIDGE]", live::fdb_flush, "Forget learnt MAC addresses"),
    command!(
        LEASES,
        0,
        1,
        [],
        "[BRIDGE]",
        live::leases,
        "Print the addresses that DHCP clients have, had or are offered"
    ),
    command!(
        FORWARD,
        1,
        3,
        [],
        "add NETWORK|PORT RULE | del NETWORK|PORT NAME | list [NETWORK|PORT]",
        forward::forward,
        "Add, remove or print ports of the host that lead to machines"
    ),
    command!(FLOWS, 0, 1, [], "[BRIDGE]", forward::flows, "Print what passes the gateways' NAT"),
    command!(
        "counters",
        0,
        1,
        [],
        "[PORT]",
        live::counters,
        "Print frames, bytes and drops by reason"
    ),
    command!(
        RELOAD,
        0,
        0,
        [],
        "",
        live::reload,
        "Apply what has changed in the configuration file, and print it"
    ),
    command!("version", 0, 0, [], "", live::version, "Print the daemon's version"),
];
