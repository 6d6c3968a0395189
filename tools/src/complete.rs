//! Completions: what may follow the words that a user has typed.
//!
//! The scripts of the shells call `tramactl complete WORD...`; the last word is the one to
//! complete. clap knows commands and options. What it does not know, names of networks, ports,
//! records and columns, is asked of the daemon, which is given a second.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};
use trama_api::commands::COMMANDS;
use trama_api::tables::{self, ROOT, TABLES};
use trama_api::transaction::Output;
use trama_api::value::{Atom, Value};
use trama_api::values;
use trama_client::Daemon;

use crate::cli;
use crate::help::LOCAL;
use crate::vmm::Vmm;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shells, and the script of each.
pub(crate) const SHELLS: [(&str, &str); 3] = [
    ("bash", include_str!("complete/tramactl.bash")),
    ("fish", include_str!("complete/tramactl.fish")),
    ("zsh", include_str!("complete/tramactl.zsh")),
];

/// The commands that write columns.
const WRITING: [&str; 7] = ["add", "add-port", "attach", "clear", "create", "remove", "set"];

/// What an argument stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Bridge,
    Port,
    Table,
    /// A record of the table that precedes it.
    Record,
    /// A column of the table that is the first argument, or else of ports; whether a value follows.
    Column {
        has_value: bool,
    },
    Command,
    Words(Vec<String>),
    Other,
}

impl Kind {
    /// Reads one of the alternatives of a placeholder, such as `COLUMN[:KEY]=VALUE`.
    fn of(word: &str) -> Kind {
        let name = word.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or("");
        match name {
            "BRIDGE" | "NETWORK" => Kind::Bridge,
            "PORT" | "INTERFACE" => Kind::Port,
            "TABLE" => Kind::Table,
            "RECORD" => Kind::Record,
            "COLUMN" => Kind::Column { has_value: word.contains("=VALUE") },
            "COMMAND" => Kind::Command,
            "SHELL" => Kind::Words(SHELLS.map(|(name, _)| name.to_owned()).into()),
            _ if !word.is_empty()
                && word.chars().all(|letter| letter.is_lowercase() || letter == '-') =>
            {
                Kind::Words(vec![word.to_owned()])
            }
            _ => Kind::Other,
        }
    }
}

/// Reads a placeholder of a usage, such as `[COLUMN[:KEY]=VALUE]...`.
fn kinds(placeholder: &str) -> impl Iterator<Item = Kind> {
    placeholder.trim_matches(['[', ']', '.']).split('|').map(Kind::of)
}

/// What may stand at each place after a command's name, and whether the last place repeats.
fn places(arguments: &str) -> (Vec<Vec<Kind>>, bool) {
    let mut places: Vec<Vec<Kind>> = Vec::new();
    for usage in arguments.split(" | ") {
        let words: Vec<&str> = usage.split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            if places.len() == index {
                places.push(Vec::new());
            }
            places[index].extend(kinds(word));
            // What may be left out may be what follows it.
            if word.starts_with('[') && word.ends_with(']') {
                places[index].extend(words.get(index + 1).into_iter().flat_map(|it| kinds(it)));
            }
        }
    }
    (places, arguments.ends_with("..."))
}

/// Prints what may stand in place of the last word: a candidate and its summary on each line.
pub(crate) fn print(words: &[OsString]) -> String {
    // Of several commands, the last one.
    let start = words.iter().rposition(|word| word == "--").map_or(0, |at| at + 1);
    let current = words.get(start..).unwrap_or_default();
    let names = Names::new(words, current);
    let mut arguments = vec![OsString::from("tramactl")];
    arguments.extend_from_slice(current);
    if current.is_empty() {
        arguments.push(OsString::new());
    }
    let last = arguments.len() - 1;
    let found = complete(&mut documented(&names), arguments, last, None).unwrap_or_default();
    let is_option = current.last().is_some_and(|word| word.to_string_lossy().starts_with('-'));
    let lines = found.iter().filter_map(|candidate| {
        let value = candidate.get_value().to_str()?;
        // Options are many, and wanted only by who types a dash.
        let help = candidate.get_help().map(|help| help.to_string().replace('\n', " "));
        (is_option || !value.starts_with('-'))
            .then(|| format!("{value}\t{}\n", help.unwrap_or_default()))
    });
    lines.collect()
}

/// The command line with every command as a subcommand.
fn documented(names: &Names) -> Command {
    let of_daemon = COMMANDS.iter().map(|it| (it.name, it.summary, it.arguments));
    let local = LOCAL.iter().map(|it| (it.name, it.summary, it.arguments));
    let mut all = cli::base();
    for (name, summary, arguments) in of_daemon.chain(local) {
        let (places, repeats) = places(arguments);
        let mut command = Command::new(name).about(summary).disable_help_flag(true);
        let count = places.len();
        for (index, kinds) in places.into_iter().enumerate() {
            let names = names.clone();
            let candidates = move || kinds.iter().flat_map(|kind| names.of(kind)).collect();
            let arg = Arg::new(format!("{index}")).add(ArgValueCandidates::new(candidates));
            let many = repeats && index + 1 == count;
            command = command.arg(if many { arg.num_args(0..) } else { arg });
        }
        all = all.subcommand(command);
    }
    all
}

/// Finds the names that the daemon has.
#[derive(Clone)]
struct Names {
    /// The daemon; `None` if the words do not say which it is.
    daemon: Option<Daemon>,
    /// The name of the command.
    command: String,
    /// The arguments of the command; the last one is the word to complete.
    arguments: Vec<String>,
}

impl Names {
    /// `words` is the whole command line, `current` its last command.
    fn new(words: &[OsString], current: &[OsString]) -> Names {
        let typed = words.split_last().map_or(words, |(_, before)| before);
        let program = std::iter::once(OsString::from("tramactl"));
        let read = cli::parse(program.chain(typed.iter().cloned()).collect());
        let is_name = |word: &&OsString| {
            let is = |name: &str| OsStr::new(name) == word.as_os_str();
            COMMANDS.iter().any(|it| is(it.name)) || LOCAL.iter().any(|it| is(it.name))
        };
        let name = current.iter().position(|word| is_name(&word));
        let words = current[name.unwrap_or(current.len())..].iter();
        let mut words = words.map(|word| word.to_string_lossy().into_owned());
        Names {
            daemon: read.ok().map(|read| Daemon { timeout: PATIENCE, ..read.daemon }),
            command: words.next().unwrap_or_default(),
            arguments: words.collect(),
        }
    }

    /// The word to complete.
    fn word(&self) -> &str {
        self.arguments.last().map_or("", String::as_str)
    }

    fn of(&self, kind: &Kind) -> Vec<CompletionCandidate> {
        let named = |names: Vec<String>| names.into_iter().map(CompletionCandidate::new).collect();
        let table = self.arguments.first().map(String::as_str);
        match kind {
            Kind::Bridge if self.command == "add-br" => Vec::new(),
            Kind::Bridge => named(self.records("Bridge")),
            Kind::Port => named(self.ports()),
            Kind::Table => TABLES.map(CompletionCandidate::new).into(),
            Kind::Record => named(table.map(|name| self.records(name)).unwrap_or_default()),
            Kind::Column { has_value } => {
                let table = table.and_then(tables::find).unwrap_or("Port");
                if let (true, Some((column, _))) = (*has_value, self.word().split_once('=')) {
                    let values = self.values(table, column).into_iter();
                    return named(values.map(|value| format!("{column}={value}")).collect());
                }
                let end = if *has_value { "=" } else { "" };
                named(self.columns(table).into_iter().map(|name| name + end).collect())
            }
            Kind::Command => {
                let of_daemon = COMMANDS.iter().map(|it| (it.name, it.summary));
                let all = of_daemon.chain(LOCAL.iter().map(|it| (it.name, it.summary)));
                all.map(|(name, text)| CompletionCandidate::new(name).help(Some(text.into())))
                    .collect()
            }
            Kind::Words(words) => named(words.clone()),
            Kind::Other => Vec::new(),
        }
    }

    /// The ports that the command may mean: of the bridge that precedes, and of a type that a VMM
    /// can use.
    fn ports(&self) -> Vec<String> {
        if let Some(vmm) = Vmm::of_command(&self.command) {
            let condition = format!("type{{in}}{}", vmm.types());
            return self.names(&["--columns=name", "find", "Interface", &condition]);
        }
        let bridge = self.arguments.first().filter(|_| self.arguments.len() > 1);
        match (self.command.as_str(), bridge) {
            // Its port is a new one.
            ("add-port", _) => Vec::new(),
            ("del-port", Some(bridge)) => match self.ask(&["list-ports", bridge]) {
                Some(Output::Text { lines }) => lines,
                _ => Vec::new(),
            },
            _ => self.records("Port"),
        }
    }

    /// The values that a column may be given, as far as they are a choice.
    fn values(&self, table: &str, column: &str) -> Vec<String> {
        let types = ["get", "Open_vSwitch", ".", "iface_types"];
        match (table, column) {
            ("Interface", "type") => match self.ask(&types) {
                Some(Output::Text { lines }) => {
                    let line = lines.concat();
                    let words = line.trim_matches(['[', ']']).split(", ");
                    words.map(|word| word.trim_matches('"').to_owned()).collect()
                }
                _ => Vec::new(),
            },
            ("Port", "network") => self.records("Bridge"),
            _ => values::of_column(column).iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// The names of the records of a table, or their UUIDs if they have no names.
    fn records(&self, table: &str) -> Vec<String> {
        if tables::find(table) == Some("Open_vSwitch") {
            return vec![ROOT.to_owned()];
        }
        match self.names(&["--columns=name", "list", table]) {
            names if names.is_empty() => self.names(&["--columns=_uuid", "list", table]),
            names => names,
        }
    }

    /// The texts that a command with one column answers.
    fn names(&self, words: &[&str]) -> Vec<String> {
        let Some(Output::Table { rows, .. }) = self.ask(words) else { return Vec::new() };
        let name = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::One(atom @ (Atom::String(_) | Atom::Uuid(_)))) => Some(atom.bare()),
            _ => None,
        };
        rows.into_iter().filter_map(name).collect()
    }

    /// The columns of a table that the command may mean.
    fn columns(&self, table: &str) -> Vec<String> {
        let Some(Output::Table { mut headings, .. }) = self.ask(&["list", table]) else {
            return Vec::new();
        };
        if WRITING.contains(&self.command.as_str()) {
            headings.retain(|column| !tables::is_read_only(table, column));
        }
        headings
    }

    /// The daemon's answer; `None` if there is none in time.
    fn ask(&self, words: &[&str]) -> Option<Output> {
        self.daemon.as_ref()?.run(words.iter().copied()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(line: &str) -> Vec<String> {
        let line = format!("--socket /nonexistent {line}");
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        print(&words).lines().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())).collect()
    }

    #[test]
    fn commands_options_and_fixed_words_are_known_without_a_daemon() {
        assert_eq!(candidates("add-p"), ["add-port"]);
        assert_eq!(candidates("add-br lab -- add-p"), ["add-port"], "of the last command");
        assert_eq!(candidates("--may"), ["--may-exist"]);
        assert_eq!(candidates("link vm1 "), ["up", "down"]);
        assert_eq!(candidates("list I"), ["IPFIX", "Interface"]);
        assert_eq!(candidates("list M"), ["Manager", "Mirror"]);
        assert_eq!(candidates("get Open_vSwitch "), ["."]);
        assert_eq!(candidates("set Port vm1 vlan_mode=n").len(), 2);
        assert_eq!(candidates("add-port lab vm1 vlan_mode=tr"), ["vlan_mode=trunk"]);
        assert_eq!(candidates("set Bridge lab mode=host"), ["mode=host-only"]);
        assert_eq!(candidates("help fdb/f"), ["fdb/flush"]);
        assert_eq!(candidates("completions "), ["bash", "fish", "zsh"]);
        assert!(candidates("").len() >= COMMANDS.len());
        assert!(candidates("").iter().all(|word| !word.starts_with('-')));
        assert_eq!(candidates("del-br "), [""; 0], "there is no daemon");
    }

    #[test]
    fn each_placeholder_of_a_name_is_understood() {
        let read = |arguments| places(arguments).0;
        let word = |word: &str| Kind::Words(vec![word.to_owned()]);
        assert_eq!(read("[BRIDGE] PORT"), [vec![Kind::Bridge, Kind::Port], vec![Kind::Port]]);
        assert_eq!(
            read("TABLE RECORD COLUMN[:KEY]=VALUE..."),
            [vec![Kind::Table], vec![Kind::Record], vec![Kind::Column { has_value: true }]]
        );
        assert_eq!(read("PORT up|down")[1], [word("up"), word("down")]);
        let forward = read("add NETWORK|PORT RULE | list [PORT]");
        assert_eq!(forward[0], [word("add"), word("list")]);
        assert_eq!(forward[1], [Kind::Bridge, Kind::Port, Kind::Port]);
        let others = ["KEY", "VALUE", "TARGET", "PRIVATE-KEY", "CERTIFICATE", "CA-CERTIFICATE"];
        let others = [&others[..], &["NAME", "RULE", "WORD", "BOND"]].concat();
        for command in &COMMANDS {
            let words = command.arguments.split_whitespace().filter(|word| *word != "|");
            for part in words.flat_map(|word| word.trim_matches(['[', ']', '.']).split('|')) {
                let is_pair = part.starts_with("KEY");
                let is_other = is_pair || others.contains(&part);
                assert!(Kind::of(part) != Kind::Other || is_other, "{}: {part}", command.name);
            }
        }
    }
}
