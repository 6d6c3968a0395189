//! The command line: global options, options of the first command, commands separated by `--`.
//!
//! As with `ovs-vsctl`, options of a command precede its name, so those of the first command are
//! among the global ones. clap reads up to the first command; from there the words are split at
//! each `--` and sent to the daemon. The help comes from the daemon's table of commands.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use trama_api::commands::{COMMANDS, CommandOption};
use trama_api::folders::control_sockets;
use trama_api::transaction::{Request, VERSION};
use trama_client::Daemon;

use crate::help;
use crate::render::{Data, Format, People, Style};

/// Whether an option has a value.
#[derive(Clone, Copy)]
enum Value {
    None,
    Needed,
    Optional,
}

/// Options of `ovs-vsctl` that are taken and mean nothing here: where its database is, how it waits
/// for the switch, and how it logs.
/// A time that does not end: that of a clock would overflow.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

const IGNORED: [(&str, Value); 8] = [
    ("db", Value::Needed),
    ("log-file", Value::Optional),
    ("no-syslog", Value::None),
    ("no-wait", Value::None),
    ("retry", Value::None),
    ("syslog-method", Value::Needed),
    ("syslog-target", Value::Needed),
    ("verbose", Value::Optional),
];

/// The command line as read.
#[derive(Clone)]
pub(crate) struct Invocation {
    /// Where the daemon is, and how long to wait for an answer.
    pub daemon: Daemon,
    /// The form of the output.
    pub style: Style,
    /// Whether to print the steps without taking them.
    pub dry_run: bool,
    /// Whether to leave the configuration file unchanged.
    pub no_save: bool,
    /// The commands, each with its options first.
    pub commands: Vec<Vec<String>>,
}

impl Invocation {
    /// The transaction of the commands.
    pub(crate) fn request(&self) -> Request {
        let Invocation { commands, dry_run, no_save, .. } = self.clone();
        Request { version: VERSION, commands, dry_run, no_save }
    }
}

/// Reads the command line.
///
/// # Errors
/// It is invalid, or asks for help.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Invocation, clap::Error> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let (first, rest) = args.split_at(end);
    let first = first.iter().filter(|arg| !is_log_level(arg));
    let matches = base()
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(value_parser!(String))
        .try_get_matches_from(first)?;
    let mut commands = vec![first_command(&matches)];
    for word in rest {
        // Only `--` separates commands.
        if word == "--" {
            commands.push(Vec::new());
        } else if let Some(last) = commands.last_mut() {
            let word = word.to_str().ok_or_else(|| {
                clap::Error::raw(ErrorKind::InvalidUtf8, "an argument is not valid UTF-8\n")
            })?;
            last.push(word.to_owned());
        }
    }
    join_leading_options(&mut commands, &matches);
    commands.retain(|words| !words.is_empty());
    Ok(Invocation {
        daemon: Daemon {
            sockets: control_sockets(matches.get_one("socket").cloned()),
            timeout: match matches.get_one("timeout").copied().unwrap_or(30) {
                // As Open vSwitch has it: no limit.
                0 => FOREVER,
                seconds => Duration::from_secs(seconds),
            },
        },
        style: style(&matches),
        dry_run: matches.get_flag("dry-run"),
        no_save: matches.get_flag("no-save"),
        commands,
    })
}

/// What is wrong with a command line, in one line: clap's message and tip, without the usage.
pub(crate) fn mistake(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let rest: Vec<&str> = lines.map(|line| line.trim_start_matches("tip: ")).collect();
    let tells = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
    let rest: Vec<&str> = rest.into_iter().filter(tells).collect();
    match rest.as_slice() {
        [] => format!("{message}; tramactl --help lists the options"),
        rest => format!("{message}; {}", rest.join("; ")),
    }
}

/// Whether it is `-vMODULE:LEVEL`, which `ovs-vsctl` takes for its log.
fn is_log_level(arg: &OsString) -> bool {
    arg.to_str().is_some_and(|arg| arg.starts_with("-v") && arg.len() > 2)
}

fn style(matches: &ArgMatches) -> Style {
    let bare = matches.get_flag("bare");
    let word = |id: &str| matches.get_one::<String>(id).map(String::as_str);
    Style {
        format: match word("format") {
            Some("table") => Some(Format::Table),
            Some("json") => Some(Format::Json),
            Some("csv") => Some(Format::Csv),
            Some("list") => Some(Format::List),
            _ if bare => Some(Format::List),
            _ => None,
        },
        data: match word("data") {
            Some("bare") => Data::Bare,
            Some("json") => Data::Json,
            Some("string") => Data::Text,
            _ if bare => Data::Bare,
            _ => Data::Text,
        },
        headings: !bare && !matches.get_flag("no-headings"),
        oneline: matches.get_flag("oneline"),
        people: people(matches),
    }
}

/// The form for people: on a terminal, unless another one is asked for.
fn people(matches: &ArgMatches) -> Option<People> {
    let units = matches.get_flag("human");
    let asks_otherwise =
        matches.contains_id("data") || matches.get_flag("bare") || matches.get_flag("oneline");
    let is_wanted = units || (std::io::stdout().is_terminal() && !asks_otherwise);
    is_wanted.then_some(People { units })
}

/// The words of the command that clap stopped at.
fn first_command(matches: &ArgMatches) -> Vec<String> {
    let Some((name, arguments)) = matches.subcommand() else { return Vec::new() };
    let arguments = arguments.get_many::<String>("").into_iter().flatten();
    std::iter::once(name.to_owned()).chain(arguments.cloned()).collect()
}

/// Moves the options of the first command from the global ones to the command.
fn join_leading_options(commands: &mut Vec<Vec<String>>, matches: &ArgMatches) {
    let mut words = Vec::new();
    for option in command_options() {
        let id = option.name.trim_start_matches('-');
        if option.value.is_some() {
            let value = matches.get_one::<String>(id);
            words.extend(value.map(|value| format!("{}={value}", option.name)));
        } else if matches.get_flag(id) {
            words.push(option.name.to_owned());
        }
    }
    if words.is_empty() {
        return;
    }
    match commands.iter_mut().find(|command| !command.is_empty()) {
        Some(command) => {
            command.splice(0..0, words);
        }
        None => commands.push(words),
    }
}

/// The options of all commands, each once.
fn command_options() -> Vec<&'static CommandOption> {
    let mut options: Vec<&CommandOption> = Vec::new();
    for option in COMMANDS.iter().flat_map(|command| command.options) {
        if options.iter().all(|known| known.name != option.name) {
            options.push(option);
        }
    }
    options
}

/// The command line as clap reads it; its help includes the table of commands.
pub(crate) fn base() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let mut command = Command::new("tramactl")
        .about("Shows and changes the virtual networks of a running tramad")
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage("tramactl [OPTIONS] COMMAND [ARGUMENT]... [-- COMMAND [ARGUMENT]...]...")
        .after_help(help::overview())
        .disable_help_subcommand(true)
        .infer_long_args(true)
        .args_override_self(true)
        .arg(
            option(
                "socket",
                "PATH",
                "Control socket of tramad [env: TRAMA_SOCKET] [default: trama/control.sock in \
                 $XDG_RUNTIME_DIR if it exists, else in /run]",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            option("format", "FORMAT", "Format of tables [default: depends on the command]")
                .short('f')
                .value_parser(PossibleValuesParser::new(["table", "json", "list", "csv"])),
        )
        .arg(
            option("data", "FORM", "Format of values in tables and lists [default: string]")
                .short('d')
                .value_parser(PossibleValuesParser::new(["string", "bare", "json"])),
        )
        .arg(
            flag("human", "Print for people, as on a terminal, and counts and bytes with units")
                .short('H'),
        )
        .arg(flag("no-headings", "Omit column headings"))
        .arg(flag("bare", "Same as --format=list --data=bare --no-headings, for scripts"))
        .arg(flag(
            "oneline",
            "Print the output of each command on one line, with \\n for line ends",
        ))
        .arg(flag(
            "dry-run",
            "Change nothing; print the steps that would be taken on standard error",
        ))
        .arg(flag(
            "no-save",
            "Do not save to the configuration file; the change lasts until the daemon ends",
        ))
        .arg(
            option(
                "timeout",
                "SECONDS",
                "Time to wait for the daemon's answer, 0 = no limit [default: 30]",
            )
            .short('t')
            .value_parser(value_parser!(u64).range(..=86_400)),
        );
    for (name, value) in IGNORED {
        let arg = Arg::new(name).long(name).hide(true);
        let arg = if name == "verbose" { arg.short('v') } else { arg };
        command = command.arg(match value {
            Value::None => arg.action(ArgAction::SetTrue),
            Value::Needed => arg.num_args(1),
            Value::Optional => arg.num_args(0..=1).require_equals(true).default_missing_value(""),
        });
    }
    for option in command_options() {
        let id = option.name.trim_start_matches('-');
        let takers: Vec<_> = COMMANDS
            .iter()
            .filter(|command| command.options.iter().any(|known| known.name == option.name))
            .map(|command| command.name)
            .collect();
        let mut arg = Arg::new(id)
            .long(id)
            .help(format!("{} ({})", option.summary, takers.join(", ")))
            .help_heading("Options of commands, before the command's name");
        arg = match option.value {
            Some(value) => arg.value_name(value),
            None => arg.action(ArgAction::SetTrue),
        };
        command = command.arg(arg);
    }
    command
}
