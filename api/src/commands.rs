//! The table of commands: name, arity, options, usage, summary.
//!
//! `tramactl` derives its help, manual page and completions from it; `tramad` checks commands
//! against it and runs the one that [`CommandId`] names.

mod help;
mod missing;
mod table;
mod words;

pub use help::{Group, Help};
pub use table::COMMANDS;
pub use words::{Words, WordsError};

use crate::nearest::nearest;

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
    /// `detach`.
    Detach,
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
    /// `create`.
    Create,
    /// `destroy`.
    Destroy,
    /// `wait-until`.
    WaitUntil,
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
    /// `upgrade`.
    Upgrade,
    /// `version`.
    Version,
    /// `br-to-vlan`.
    BrToVlan,
    /// `br-to-parent`.
    BrToParent,
    /// `br-set-external-id`.
    BrSetExternalId,
    /// `br-get-external-id`.
    BrGetExternalId,
    /// `get-controller`.
    GetController,
    /// `del-controller`.
    DelController,
    /// `set-controller`.
    SetController,
    /// `get-manager`.
    GetManager,
    /// `del-manager`.
    DelManager,
    /// `set-manager`.
    SetManager,
    /// `get-ssl`.
    GetSsl,
    /// `del-ssl`.
    DelSsl,
    /// `set-ssl`.
    SetSsl,
    /// `init`.
    Init,
    /// `comment`.
    Comment,
    /// `emer-reset`.
    EmerReset,
    /// `get-fail-mode`.
    GetFailMode,
    /// `set-fail-mode`.
    SetFailMode,
    /// `del-fail-mode`.
    DelFailMode,
    /// `add-bond`.
    AddBond,
    /// `add-bond-iface`.
    AddBondIface,
    /// `del-bond-iface`.
    DelBondIface,
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

/// The message about a command that does not exist; `others` are the client's own commands.
pub fn unknown(name: &str, others: &[&str]) -> String {
    if let Some(why) = missing::reason(name) {
        return format!("trama has no '{name}': {why}");
    }
    let own = COMMANDS.iter().map(|command| command.name);
    let known: Vec<&str> = own.chain(others.iter().copied()).collect();
    match nearest(name, &known) {
        Some(near) => format!("unknown command '{name}'; did you mean {near}?"),
        None => format!("unknown command '{name}'; use --help for help"),
    }
}

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

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
        let zones = unknown("add-zone-tp", &[]);
        assert!(zones.starts_with("trama has no 'add-zone-tp': there are no zones"), "{zones}");
        assert_eq!(unknown("add-prot", &[]), "unknown command 'add-prot'; did you mean add-port?");
    }

    #[test]
    fn usage_has_the_options_first() {
        let usage = |name| find(name).map(Command::usage).unwrap_or_default();
        assert_eq!(usage("show"), "show");
        assert_eq!(usage("list"), "[--if-exists] [--columns=COLUMN,...] list TABLE [RECORD]...");
    }
}
