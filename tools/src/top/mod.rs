//! `top`: what passes each port now, drawn again and again.
//!
//! The daemon gives numbers that only grow ([`trama_api::top`]). Two answers make a [`Table`],
//! which is printed as lines of text, or shown on the terminal.

mod options;
mod rates;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::thread;

use trama_client::{Daemon, Failed};

use options::Options;
use rates::Rates;
use table::Table;

/// Shows tables until the user or their number ends it; returns the exit status.
///
/// # Errors
/// The words are not understood, no daemon answers at first, or there is no such bridge.
pub(crate) fn run(program: &str, daemon: &Daemon, words: &[String]) -> Result<u8, Failed> {
    let mut options = options::read(words)?;
    options.batch |= !io::stdout().is_terminal();
    // A mistake is told before the terminal is taken.
    let first = Rates::from(daemon.numbers(options.network.as_deref())?);
    if options.batch {
        return match print(program, daemon, &options, first) {
            Ok(()) => Ok(0),
            // The reader of a pipe has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            Err(error) => Err(format!("standard output: {error}").into()),
        };
    }
    screen::run(daemon, options, first)
        .map_err(|error| format!("the terminal: {error}; use top -b").into())
}

/// Prints tables, each after its interval.
fn print(program: &str, daemon: &Daemon, options: &Options, mut rates: Rates) -> io::Result<()> {
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        thread::sleep(options.interval);
        match daemon.numbers(options.network.as_deref()) {
            Err(failed) => tell!("{program}: {failed}"),
            Ok(numbers) => {
                rates = rates.then(numbers);
                if let Some(news) = rates.news() {
                    tell!("{program}: {news}");
                }
                let table = Table::of(&rates, options.sort);
                let mut text =
                    [vec![table.heading], table.rows, vec![table.last]].concat().join("\n");
                text.push('\n');
                // Tables are parted by a blank line.
                left -= 1;
                if left > 0 {
                    text.push('\n');
                }
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
        }
    }
    Ok(())
}
