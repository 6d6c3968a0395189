//! The words of the command.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, value_parser};
use trama_api::event::Query;

use crate::cli;

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// What is observed, and how it is printed.
#[derive(Debug)]
pub(super) struct Options {
    pub query: Query,
    pub form: Form,
}

/// The options, as clap reads them.
fn command() -> Command {
    let option =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("observe")
        .no_binary_name(true)
        .disable_help_flag(true)
        .args_override_self(true)
        .arg(Arg::new("follow").short('f').long("follow").action(ArgAction::SetTrue))
        .arg(option("since", "TIME"))
        .arg(option("type", "TYPE,..."))
        .arg(option("port", "PORT"))
        .arg(option("network", "NETWORK"))
        .arg(option("to", "CIDR|NAME"))
        .arg(Arg::new("last").short('n').value_name("COUNT").value_parser(value_parser!(u64)))
        .arg(
            Arg::new("output")
                .short('o')
                .value_name("FORM")
                .value_parser(PossibleValuesParser::new(["text", "json"])),
        )
}

/// Reads the words. What the daemon must know to judge it, it judges.
pub(super) fn read(words: &[String]) -> Result<Options, String> {
    let matches = command().try_get_matches_from(words).map_err(|error| cli::mistake(&error))?;
    let word = |name: &str| matches.get_one::<String>(name).cloned();
    let query = Query {
        types: word("type"),
        port: word("port"),
        network: word("network"),
        to: word("to"),
        since: word("since"),
        last: matches.get_one("last").copied(),
        follow: Some(matches.get_flag("follow")),
    };
    let form = if word("output").as_deref() == Some("json") { Form::Json } else { Form::Text };
    Ok(Options { query, form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Options, String> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_become_the_query() {
        let Options { query, form } =
            read_line("-f --since 5m --type flow,drop --port vm1 --to 10.0.0.0/8 -n 3 -o json")
                .unwrap();
        let wanted = Query {
            types: Some("flow,drop".to_owned()),
            port: Some("vm1".to_owned()),
            network: None,
            to: Some("10.0.0.0/8".to_owned()),
            since: Some("5m".to_owned()),
            last: Some(3),
            follow: Some(true),
        };
        assert_eq!((query, form), (wanted, Form::Json));
        let Options { query, form } = read_line("").unwrap();
        assert_eq!((query.follow, form), (Some(false), Form::Text));
    }

    #[test]
    fn mistakes_are_one_line() {
        for line in ["-n many", "-o yaml", "--tagg 5m", "vm1"] {
            let message = read_line(line).unwrap_err();
            assert!(!message.contains('\n') && message.contains(';'), "{line}: {message}");
        }
    }
}
