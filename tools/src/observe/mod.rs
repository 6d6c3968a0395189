//! `observe`: what happens on the networks, as lines or as JSON.

mod options;

use std::io::{self, Write};
use std::ops::ControlFlow;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use trama_api::event::{Event, Kind, Line, line};
use trama_client::{Daemon, Failed, Observed};

use options::{Form, Options};

/// Prints events until all are printed, the user ends it, or its reader goes away.
///
/// # Errors
/// The words are not understood, there is no daemon, or it refuses.
pub(crate) fn run(program: &str, daemon: &Daemon, words: &[String]) -> Result<(), Failed> {
    let Options { query, form } = options::read(words)?;
    let mut out = AutoStream::auto(io::stdout());
    let mut broken = None;
    daemon.observe(&query, |observed| {
        let written = match observed {
            Observed::Event(event) => print(&mut out, form, &event),
            Observed::Gone(reason) => {
                tell!("{program}: tramad has gone ({reason}); waits for it");
                Ok(())
            }
            Observed::Back => {
                tell!("{program}: tramad is there again");
                Ok(())
            }
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match broken {
        // The reader of a pipe has seen enough.
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Writes an event; a line of text ends with the colours that it began with.
fn print(out: &mut impl Write, form: Form, event: &Event) -> io::Result<()> {
    match form {
        Form::Json => writeln!(out, "{}", serde_json::to_string(event)?)?,
        Form::Text => {
            let Line { head, kind, what } = line(event);
            let style = style(event);
            writeln!(out, "{head} {style}{kind:<6}{style:#} {what}")?;
        }
    }
    out.flush()
}

/// The colour of a type: red for what failed, yellow for what was lost.
fn style(event: &Event) -> Style {
    let failed = matches!(event.facts.verdict.as_deref(), Some("failed" | "refused" | "down"));
    let colour = match event.kind {
        Kind::Drop | Kind::Policy => AnsiColor::Red,
        Kind::Lost => AnsiColor::Yellow,
        _ if failed => AnsiColor::Red,
        Kind::Flow | Kind::Dns => AnsiColor::Cyan,
        Kind::Dhcp | Kind::Link => AnsiColor::Green,
        Kind::Config => AnsiColor::Blue,
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use trama_api::event::{Facts, Moment};

    use super::*;

    #[test]
    fn without_its_colours_a_line_is_that_of_the_api() {
        let facts = Facts { verdict: Some("down".into()), ..Facts::default() };
        let event = Event { id: 1, time: Moment(0), kind: Kind::Link, facts };
        let mut out = Vec::new();
        print(&mut out, Form::Text, &event).unwrap();
        let coloured = String::from_utf8(out).unwrap();
        assert!(coloured.contains("\u{1b}[31mlink"), "{coloured:?}");
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(plain, format!("{}\n", line(&event)));
    }
}
