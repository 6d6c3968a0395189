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
    let output = Output::new(place, link_level);
    capture(daemon, &request, output).map(|end| end.tell(program))
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
    match broken {
        Some(error) if !output.has_begun() => {
            Err(format!("cannot write {}: {error}", output.place()).into())
        }
        broken => Ok(Ended { output, broken }),
    }
}

impl Ended {
    /// Returns why it ended, unless its reader has seen enough.
    pub(crate) fn fault(self) -> Option<String> {
        match self.broken {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Some(error) => Some(format!("cannot write {}: {error}", self.output.place())),
            None => (!self.output.ends.is_empty()).then(|| self.output.ends.join("; ")),
        }
    }

    /// Says on standard error how it went; returns the exit status.
    fn tell(&self, program: &str) -> u8 {
        let (mut exit, place) = (0, self.output.place());
        match &self.broken {
            // The reader of a pipe has seen enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
            Some(error) => {
                tell!("{program}: cannot write {place}: {error}; it ends with a whole frame");
                exit = 1;
            }
            None => {}
        }
        for end in &self.output.ends {
            tell!("{program}: {end}");
            exit = 1;
        }
        let Output { captured, missed, .. } = self.output;
        let why = if missed > 0 { " (queue full)" } else { "" };
        tell!("{captured} frames captured, {missed} missed{why}");
        exit
    }
}
