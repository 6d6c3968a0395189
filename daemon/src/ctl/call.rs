//! A command as typed: options, name and arguments, checked against the table of commands.

use trama_api::commands::{COMMANDS, Command, find};

use trama_api::nearest::nearest;

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
        return Err(no_command());
    }
    commands.iter().map(|words| parse_one(words)).collect()
}

fn no_command() -> Failure {
    Failure::from("missing command name (use --help for help)".to_owned())
}

fn parse_one(words: &[String]) -> Result<Call, Failure> {
    let is_option = |word: &&String| word.starts_with("--");
    // An option may take the next word as its value, so options are read up to the name.
    let mut rest = words.iter();
    let mut given: Vec<(&str, Option<&str>)> = Vec::new();
    let name = loop {
        let word = rest.next().ok_or_else(no_command)?;
        if !is_option(&word) {
            break word;
        }
        match word.split_once('=') {
            Some((option, value)) => given.push((option, Some(value))),
            None if takes_value(word) => {
                let value = rest.next().map(String::as_str);
                given.push((word, Some(value.ok_or_else(|| needs_value(word))?)));
            }
            None => given.push((word, None)),
        }
    };
    let command = find(name).ok_or_else(|| unknown_command(name))?;
    let args: Vec<String> = rest.cloned().collect();
    check_arity(command, &args)?;
    let options = given
        .into_iter()
        .map(|(option, value)| check_option(command, option, value))
        .collect::<Result<_, _>>()?;
    Ok(Call { command, args, options })
}

fn unknown_command(name: &str) -> Failure {
    let known: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    match nearest(name, &known) {
        Some(near) => format!("unknown command '{name}'; did you mean {near}?"),
        None => format!("unknown command '{name}'; use --help for help"),
    }
    .into()
}

/// Whether some command has this option with a value (`--columns=`).
fn takes_value(option: &str) -> bool {
    COMMANDS
        .iter()
        .flat_map(|command| command.options)
        .any(|known| known.name == option && known.value.is_some())
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
