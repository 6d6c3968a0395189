//! `tcpdump`: frames of ports, as lines or as a pcapng file.

mod options;
mod output;

use std::io;
use std::ops::ControlFlow;

use trama_api::capture::Request;
use trama_client::{Daemon, Failed};

use options::Options;
pub(crate) use output::{Output, Place};

/// Captures frames until the user, the number of frames or the daemon ends it; returns the exit
/// status.
///
/// # Errors
/// The words are not understood, or the daemon refuses.
pub(crate) fn run(program: &str, daemon: &Daemon, words: &[String]) -> Result<u8, Failed> {
    let Options { request, place, link_level } = options::read(words)?;
    let cannot = |error: io::Error| format!("cannot write {place}: {error}");
    let output = Output::open(&place, link_level).map_err(cannot)?;
    capture(daemon, &request, output).map(|end| end.tell(program, &place))
}

/// How a capture went.
pub(crate) struct Ended {
    output: Output,
    /// Why it ended, if its output or what the daemon sent is the cause.
    broken: Option<io::Error>,
}

/// Captures into an output until something ends it.
pub(crate) fn capture(
    daemon: &Daemon,
    request: &Request,
    mut output: Output,
) -> Result<Ended, Failed> {
    let mut broken = None;
    daemon.capture(request, |bytes| match output.take(bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    })?;
    Ok(Ended { output, broken })
}

impl Ended {
    /// Returns why the output failed, unless its reader has seen enough.
    pub(crate) fn broken_by_other_than_reader(self) -> Option<io::Error> {
        self.broken.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }

    /// Says on standard error how it went; returns the exit status.
    fn tell(&self, program: &str, place: &Place) -> u8 {
        let mut exit = 0;
        match &self.broken {
            // The reader of a pipe has seen enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
            Some(error) => {
                eprintln!("{program}: cannot write {place}: {error}; it ends with a whole frame");
                exit = 1;
            }
            None => {}
        }
        for end in &self.output.ends {
            eprintln!("{program}: {end}");
            exit = 1;
        }
        let Output { captured, missed, .. } = self.output;
        let why = if missed > 0 { " (queue full)" } else { "" };
        eprintln!("{captured} frames captured, {missed} missed{why}");
        exit
    }
}
