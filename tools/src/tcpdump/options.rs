//! The words of the command.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, value_parser};
use trama_api::capture::{Direction, Request};
use trama_api::transaction::VERSION;

use super::Place;
use crate::cli;

/// What is captured, and what becomes of it.
#[derive(Debug)]
pub(super) struct Options {
    pub request: Request,
    pub place: Place,
    pub link_level: bool,
}

/// The options, as clap reads them.
fn command() -> Command {
    let option = |short: char, value: &'static str| Arg::new(value).short(short).value_name(value);
    Command::new("tcpdump")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(option('w', "FILE"))
        .arg(option('c', "COUNT").value_parser(value_parser!(u64).range(1..)))
        .arg(option('s', "SNAPLEN").value_parser(value_parser!(u32)))
        .arg(
            option('Q', "DIRECTION")
                .value_parser(PossibleValuesParser::new(["in", "out", "inout"])),
        )
        .arg(
            Arg::new("drops")
                .long("drops")
                .value_name("REASON")
                .num_args(0..)
                .require_equals(true)
                .value_delimiter(','),
        )
        .arg(Arg::new("last").long("last").value_name("TIME"))
        .arg(Arg::new("no-frames").long("no-frames").action(ArgAction::SetTrue))
        .arg(Arg::new("link-level").short('e').action(ArgAction::SetTrue))
        // Addresses are numbers in any case.
        .arg(Arg::new("numbers").short('n').action(ArgAction::Count))
        .arg(Arg::new("words").num_args(0..))
}

pub(super) fn read(words: &[String]) -> Result<Options, String> {
    let matches = command().try_get_matches_from(words).map_err(|error| cli::mistake(&error))?;
    let list = |id: &str| matches.get_many::<String>(id).into_iter().flatten().cloned().collect();
    let direction = matches.get_one::<String>("DIRECTION").map(|word| match word.as_str() {
        "in" => Direction::In,
        "out" => Direction::Out,
        _ => Direction::InOut,
    });
    let has_drops = matches.contains_id("drops");
    Ok(Options {
        request: Request {
            version: VERSION,
            words: list("words"),
            direction,
            frames: !matches.get_flag("no-frames"),
            drops: has_drops.then(|| list("drops")),
            snaplen: matches.get_one("SNAPLEN").copied().unwrap_or(0),
            count: matches.get_one("COUNT").copied(),
            last: matches.get_one("last").cloned(),
        },
        place: match matches.get_one::<String>("FILE").map(String::as_str) {
            None => Place::Lines,
            Some("-") => Place::StandardOutput,
            Some(path) => Place::File(path.into()),
        },
        link_level: matches.get_flag("link-level"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Options, String> {
        read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_those_of_tcpdump() {
        let Options { request, place, link_level } =
            read_line("vm1 -nne -c5 -w out -s 100 -Q in --last 30s tcp port 80").unwrap();
        assert_eq!(request.words, ["vm1", "tcp", "port", "80"]);
        assert_eq!((request.count, request.snaplen), (Some(5), 100));
        assert_eq!((request.direction, request.drops), (Some(Direction::In), None));
        assert_eq!(request.last.as_deref(), Some("30s"));
        assert!(link_level && request.frames && matches!(place, Place::File(_)));
    }

    #[test]
    fn drops_may_have_reasons() {
        let drops = |line: &str| read_line(line).unwrap().request.drops;
        assert_eq!(drops("vm1 --drops"), Some(vec![]));
        assert_eq!(drops("--drops vm1"), Some(vec![]), "a name is no reason");
        let reasons = ["runt", "giant"].map(str::to_owned).to_vec();
        assert_eq!(drops("--drops=runt,giant --no-frames vm1"), Some(reasons));
    }

    #[test]
    fn mistakes_are_one_line() {
        for line in ["-c 0", "-Q sideways", "--frames", "-w", "--last"] {
            let message = read_line(line).unwrap_err();
            assert!(!message.contains('\n') && message.contains(';'), "{line}: {message}");
        }
    }
}
