//! The words of the command.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, value_parser};

use crate::cli;

/// What the rows are sorted by: the largest first, or by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Rx,
    Tx,
    Drops,
    Name,
}

impl Sort {
    const ALL: [(Sort, &str); 4] =
        [(Sort::Rx, "rx"), (Sort::Tx, "tx"), (Sort::Drops, "drops"), (Sort::Name, "name")];

    /// Returns its word.
    pub(super) fn word(self) -> &'static str {
        Sort::ALL[self as usize].1
    }

    /// Returns the one after it.
    pub(super) fn next(self) -> Sort {
        Sort::ALL[(self as usize + 1) % Sort::ALL.len()].0
    }
}

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct Options {
    /// Time between two tables.
    pub interval: Duration,
    /// Whether tables are printed as text.
    pub batch: bool,
    /// The number of tables; no end if `None`.
    pub count: Option<u64>,
    pub sort: Sort,
    /// The network; all if `None`.
    pub network: Option<String>,
}

fn command() -> Command {
    Command::new("top")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(Arg::new("interval").short('d').value_name("SECONDS").value_parser(seconds))
        .arg(Arg::new("batch").short('b').action(ArgAction::SetTrue))
        .arg(
            Arg::new("count")
                .short('n')
                .value_name("COUNT")
                .requires("batch")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(
            Arg::new("sort")
                .short('s')
                .value_name("BY")
                .value_parser(PossibleValuesParser::new(Sort::ALL.map(|(_, word)| word))),
        )
        .arg(Arg::new("network").value_name("BRIDGE"))
}

fn seconds(word: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "use 0.1 to 3600".to_owned())
}

pub(super) fn read(words: &[String]) -> Result<Options, String> {
    let matches = command().try_get_matches_from(words).map_err(|error| cli::mistake(&error))?;
    let word = matches.get_one::<String>("sort");
    let sort = Sort::ALL.into_iter().find(|(_, name)| word.is_some_and(|word| word == name));
    Ok(Options {
        interval: matches.get_one("interval").copied().unwrap_or(Duration::from_secs(1)),
        batch: matches.get_flag("batch"),
        count: matches.get_one("count").copied(),
        sort: sort.map_or(Sort::Rx, |(sort, _)| sort),
        network: matches.get_one("network").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Options, String> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_stand_on_both_sides_of_the_bridge() {
        let options = read_line("-d 0.5 lab -b -n 2 -s drops").unwrap();
        assert_eq!((options.interval, options.batch), (Duration::from_millis(500), true));
        assert_eq!((options.count, options.sort), (Some(2), Sort::Drops));
        assert_eq!(options.network.as_deref(), Some("lab"));
        let options = read_line("").unwrap();
        assert_eq!((options.interval, options.sort), (Duration::from_secs(1), Sort::Rx));
        assert!(!options.batch && options.count.is_none() && options.network.is_none());
    }

    #[test]
    fn each_order_has_its_word_and_the_last_leads_to_the_first() {
        for (place, (sort, word)) in Sort::ALL.into_iter().enumerate() {
            assert_eq!((sort as usize, sort.word()), (place, word));
        }
        assert_eq!(Sort::Name.next(), Sort::Rx);
    }

    #[test]
    fn mistakes_are_one_line() {
        for line in ["-d 0", "-d x", "-b -n 0", "-n 2", "-s size", "a b", "--help"] {
            let message = read_line(line).unwrap_err();
            assert!(!message.contains('\n') && message.contains(';'), "{line}: {message}");
        }
    }
}
