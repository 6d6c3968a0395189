//! A command as typed: options, name and arguments, checked against the table of commands.

use trama_api::commands::{Command, Words, WordsError, find, unknown};

use super::failure::Failure;

/// A command with its options and arguments.
pub struct Call {
    /// Its entry in the table.
    pub command: &'static Command,
    /// Its arguments; their number is checked.
    pub args: Vec<String>,
    options: Vec<(&'static str, String)>,
}

impl Call {
    /// Whether an option without a value was given.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == option)
    }

    /// The value of an option; the last one is in effect.
    pub fn option(&self, option: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| *name == option).map(|(_, value)| value.as_str())
    }

    /// The argument at this position; empty if absent.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// The arguments from this position on.
    pub fn args_from(&self, index: usize) -> &[String] {
        self.args.get(index..).unwrap_or_default()
    }
}

/// Looks up every command of a transaction.
///
/// # Errors
/// The first command that does not exist, or has options or arguments that it does not take.
pub fn parse(commands: &[Vec<String>]) -> Result<Vec<Call>, Failure> {
    if commands.is_empty() {
        return Err(not_a_command(WordsError::NoName));
    }
    commands.iter().map(|words| parse_one(words)).collect()
}

fn not_a_command(error: WordsError<'_>) -> Failure {
    match error {
        WordsError::NoName => "missing command name (use --help for help)".to_owned().into(),
        WordsError::NoValue(option) => needs_value(option),
    }
}

fn parse_one(words: &[String]) -> Result<Call, Failure> {
    let Words { options, name, arguments } = Words::of(words).map_err(not_a_command)?;
    let command = find(name).ok_or_else(|| unknown(name, &[]))?;
    let args = arguments.to_vec();
    check_place(command, &args)?;
    check_arity(command, &args)?;
    check_global(command, &args)?;
    let options = options
        .into_iter()
        .map(|(option, value)| check_option(command, option, value))
        .collect::<Result<_, _>>()?;
    Ok(Call { command, args, options })
}

fn needs_value(option: &str) -> Failure {
    format!("option '{option}' needs a value").into()
}

fn check_option(
    command: &'static Command,
    option: &str,
    value: Option<&str>,
) -> Result<(&'static str, String), Failure> {
    let Some(known) = command.options.iter().find(|known| known.name == option) else {
        return Err(format!("'{}' command has no '{option}' option", command.name).into());
    };
    match (known.value, value) {
        (Some(_), Some(value)) => Ok((known.name, value.to_owned())),
        (Some(_), None) => Err(needs_value(option)),
        (None, None) => Ok((known.name, String::new())),
        (None, Some(_)) => Err(format!("option '{option}' takes no value").into()),
    }
}

/// Options of `tramactl` itself, which no argument is.
const GLOBAL: &[&str] = &[
    "--bare",
    "--data",
    "--dry-run",
    "--format",
    "--human",
    "--no-headings",
    "--no-save",
    "--oneline",
    "--timeout",
    "-H",
    "-d",
    "-f",
    "-t",
];

/// Whether no option of the command stands behind its name.
fn check_place(command: &Command, args: &[String]) -> Result<(), Failure> {
    let is_option = |arg: &&String| {
        let name = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
        command.options.iter().any(|known| known.name == name)
    };
    args.iter().find(is_option).map_or(Ok(()), |option| Err(misplaced(command, option)))
}

/// Whether no option of `tramactl` itself is taken for an argument.
fn check_global(command: &Command, args: &[String]) -> Result<(), Failure> {
    let is_option = |arg: &&String| GLOBAL.contains(&arg.split('=').next().unwrap_or_default());
    args.iter().find(is_option).map_or(Ok(()), |option| Err(misplaced(command, option)))
}

fn misplaced(command: &Command, option: &str) -> Failure {
    let name = command.name;
    format!("'{name}': options stand before the command's name: {option} {name} ...").into()
}

fn check_arity(command: &Command, args: &[String]) -> Result<(), Failure> {
    let Command { name, min, max, .. } = command;
    if args.len() < *min {
        return Err(format!(
            "'{name}' command requires at least {min} arguments: {}",
            command.usage()
        )
        .into());
    }
    if args.len() > *max {
        let note = if args.iter().any(|arg| arg.starts_with("--")) {
            " (note that options must precede command names and follow a \"--\" argument)"
        } else {
            ""
        };
        return Err(format!("'{name}' command takes at most {max} arguments{note}").into());
    }
    Ok(())
}
