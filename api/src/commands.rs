//! The table of commands: name, arity, options, usage, summary.
//!
//! `tramactl` derives its help, manual page and completions from it; `tramad` checks commands
//! against it and runs the one that [`CommandId`] names.

/// Identifies a command of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandId {
    /// `show`.
    Show,
    /// `add-br`.
    AddBr,
    /// `del-br`.
    DelBr,
    /// `list-br`.
    ListBr,
    /// `br-exists`.
    BrExists,
    /// `add-port`.
    AddPort,
    /// `del-port`.
    DelPort,
    /// `list-ports`.
    ListPorts,
    /// `port-to-br`.
    PortToBr,
    /// `list-ifaces`.
    ListIfaces,
    /// `iface-to-br`.
    IfaceToBr,
    /// `link`.
    Link,
    /// `list`.
    List,
    /// `find`.
    Find,
    /// `get`.
    Get,
    /// `set`.
    Set,
    /// `add`.
    Add,
    /// `remove`.
    Remove,
    /// `clear`.
    Clear,
    /// `fdb/show`.
    FdbShow,
    /// `fdb/flush`.
    FdbFlush,
    /// `leases`.
    Leases,
    /// `forward`.
    Forward,
    /// `flows`.
    Flows,
    /// `counters`.
    Counters,
    /// `reload`.
    Reload,
    /// `version`.
    Version,
}

/// A command that `tramad` carries out.
pub struct Command {
    /// Its identifier.
    pub id: CommandId,
    /// Its name.
    pub name: &'static str,
    /// Minimum number of arguments.
    pub min: usize,
    /// Maximum number of arguments.
    pub max: usize,
    /// The options it takes.
    pub options: &'static [CommandOption],
    /// Its arguments, as shown in help.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// An option of a command; it precedes the command's name.
pub struct CommandOption {
    /// Its name, with the two dashes.
    pub name: &'static str,
    /// The placeholder of its value; `None` = it takes no value.
    pub value: Option<&'static str>,
    /// What it does, in one line.
    pub summary: &'static str,
}

impl Command {
    /// Options, name and arguments, as typed.
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

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

const MAY_EXIST: CommandOption =
    CommandOption { name: "--may-exist", value: None, summary: "Do not fail if it exists" };
const IF_EXISTS: CommandOption =
    CommandOption { name: "--if-exists", value: None, summary: "Do not fail if it is missing" };
const COLUMNS: CommandOption = CommandOption {
    name: "--columns",
    value: Some("COLUMN,..."),
    summary: "Show these columns, in this order",
};
const NAMES: CommandOption =
    CommandOption { name: "--names", value: None, summary: "Show names of ports, not numbers" };

const ANY: usize = usize::MAX;

const fn command(
    id: CommandId,
    name: &'static str,
    min: usize,
    max: usize,
    options: &'static [CommandOption],
    arguments: &'static str,
    summary: &'static str,
) -> Command {
    Command { id, name, min, max, options, arguments, summary }
}

/// All commands, in the order of the help.
pub static COMMANDS: [Command; 27] = [
    command(CommandId::Show, "show", 0, 0, &[], "", "Print an overview"),
    command(CommandId::AddBr, "add-br", 1, 3, &[MAY_EXIST], "BRIDGE", "Add a network"),
    command(
        CommandId::DelBr,
        "del-br",
        1,
        1,
        &[IF_EXISTS],
        "BRIDGE",
        "Remove a network with its ports",
    ),
    command(CommandId::ListBr, "list-br", 0, 0, &[], "", "Print the names of all networks"),
    command(
        CommandId::BrExists,
        "br-exists",
        1,
        1,
        &[],
        "BRIDGE",
        "Exit 2 if there is no such network",
    ),
    command(
        CommandId::AddPort,
        "add-port",
        2,
        ANY,
        &[MAY_EXIST],
        "BRIDGE PORT [COLUMN[:KEY]=VALUE]...",
        "Add a port to a network: a TAP of its name until its Interface is given a type",
    ),
    command(CommandId::DelPort, "del-port", 1, 2, &[IF_EXISTS], "[BRIDGE] PORT", "Remove a port"),
    command(
        CommandId::ListPorts,
        "list-ports",
        1,
        1,
        &[],
        "BRIDGE",
        "Print the names of a network's ports",
    ),
    command(
        CommandId::PortToBr,
        "port-to-br",
        1,
        1,
        &[],
        "PORT",
        "Print the network that a port is on",
    ),
    command(
        CommandId::ListIfaces,
        "list-ifaces",
        1,
        1,
        &[],
        "BRIDGE",
        "Print the names of a network's interfaces",
    ),
    command(
        CommandId::IfaceToBr,
        "iface-to-br",
        1,
        1,
        &[],
        "INTERFACE",
        "Print the network that an interface is on",
    ),
    command(
        CommandId::Link,
        "link",
        2,
        2,
        &[],
        "PORT up|down",
        "Connect or disconnect a port's cable",
    ),
    command(
        CommandId::List,
        "list",
        1,
        ANY,
        &[IF_EXISTS, COLUMNS],
        "TABLE [RECORD]...",
        "Print records",
    ),
    command(
        CommandId::Find,
        "find",
        1,
        ANY,
        &[COLUMNS],
        "TABLE [COLUMN[:KEY]=VALUE]...",
        "Print the records that meet all conditions",
    ),
    command(
        CommandId::Get,
        "get",
        2,
        ANY,
        &[IF_EXISTS],
        "TABLE RECORD [COLUMN[:KEY]]...",
        "Print values of a record",
    ),
    command(
        CommandId::Set,
        "set",
        3,
        ANY,
        &[IF_EXISTS],
        "TABLE RECORD COLUMN[:KEY]=VALUE...",
        "Set values of a record",
    ),
    command(
        CommandId::Add,
        "add",
        4,
        ANY,
        &[IF_EXISTS],
        "TABLE RECORD COLUMN [KEY=]VALUE...",
        "Add values to a set or map",
    ),
    command(
        CommandId::Remove,
        "remove",
        4,
        ANY,
        &[IF_EXISTS],
        "TABLE RECORD COLUMN KEY|VALUE|KEY=VALUE...",
        "Remove values from a set or map",
    ),
    command(
        CommandId::Clear,
        "clear",
        3,
        ANY,
        &[IF_EXISTS],
        "TABLE RECORD COLUMN...",
        "Empty columns",
    ),
    command(
        CommandId::FdbShow,
        "fdb/show",
        0,
        1,
        &[NAMES],
        "[BRIDGE]",
        "Print learnt MAC addresses",
    ),
    command(CommandId::FdbFlush, "fdb/flush", 0, 1, &[], "[BRIDGE]", "Forget learnt MAC addresses"),
    command(
        CommandId::Leases,
        "leases",
        0,
        1,
        &[],
        "[BRIDGE]",
        "Print DHCP leases: current, offered and past ones",
    ),
    command(
        CommandId::Forward,
        "forward",
        1,
        3,
        &[],
        "add NETWORK|PORT RULE | del NETWORK|PORT NAME | list [NETWORK|PORT]",
        "Add, remove or print port forwards to guests",
    ),
    command(
        CommandId::Flows,
        "flows",
        0,
        1,
        &[],
        "[BRIDGE]",
        "Print the flows through the gateways' NAT",
    ),
    command(
        CommandId::Counters,
        "counters",
        0,
        1,
        &[],
        "[PORT]",
        "Print frames, bytes and drops by reason",
    ),
    command(
        CommandId::Reload,
        "reload",
        0,
        0,
        &[],
        "",
        "Apply the changes of the configuration file, and print the steps",
    ),
    command(CommandId::Version, "version", 0, 0, &[], "", "Print the daemon's version"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_name_and_an_id_of_its_own() {
        for (index, command) in COMMANDS.iter().enumerate() {
            let before = &COMMANDS[..index];
            assert!(before.iter().all(|other| other.name != command.name), "{}", command.name);
            assert!(before.iter().all(|other| other.id != command.id), "{}", command.name);
            assert!(command.min <= command.max && !command.summary.is_empty(), "{}", command.name);
        }
        assert_eq!(find("reload").map(|command| command.id), Some(CommandId::Reload));
        assert!(find("dance").is_none());
    }

    #[test]
    fn usage_has_the_options_first() {
        let usage = |name| find(name).map(Command::usage).unwrap_or_default();
        assert_eq!(usage("show"), "show");
        assert_eq!(usage("list"), "[--if-exists] [--columns=COLUMN,...] list TABLE [RECORD]...");
    }
}
