//! The agent in a guest (`scripts/guest-init`), which runs commands that come by a port of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::host::CommandResult;

/// The other end of the port.
pub(crate) struct Agent(Mutex<Line>);

struct Line {
    to: Box<dyn Write + Send>,
    from: Receiver<String>,
    next: u32,
}

/// Why there is no answer.
pub(crate) enum Silence {
    /// Not within the limit; what the command has printed so far.
    TooLate(String),
    /// The guest has ended.
    Ended,
}

impl From<RecvTimeoutError> for Silence {
    fn from(error: RecvTimeoutError) -> Silence {
        match error {
            RecvTimeoutError::Timeout => Silence::TooLate(String::new()),
            RecvTimeoutError::Disconnected => Silence::Ended,
        }
    }
}

impl Agent {
    /// The agent at a port, of which these are both directions.
    pub(crate) fn at(to: impl Write + Send + 'static, from: impl Read + Send + 'static) -> Agent {
        Agent(Mutex::new(Line { to: Box::new(to), from: read_lines(from), next: 0 }))
    }

    /// Waits until it says that it is ready, after the start or a reset.
    pub(crate) fn wait_until_ready(&self, limit: Duration) -> Result<(), Silence> {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + limit;
        // The answer to a command that a reset cut off may come first.
        while !line.next_before(deadline)?.ends_with("!ready") {}
        Ok(())
    }

    /// Runs one line of shell.
    pub(crate) fn run(&self, command: &str, limit: Duration) -> Result<CommandResult, Silence> {
        assert!(!command.contains('\n'), "the agent takes one line");
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.next += 1;
        let end = format!("={} ", line.next);
        let request = format!("{} {command}\n", line.next);
        line.to.write_all(request.as_bytes()).map_err(|_| Silence::Ended)?;
        let deadline = Instant::now() + limit;
        let mut text = String::new();
        loop {
            let answer = match line.next_before(deadline) {
                Err(RecvTimeoutError::Timeout) => return Err(Silence::TooLate(text)),
                answer => answer?,
            };
            if let Some(status) = answer.strip_prefix(&end) {
                let status = status.trim().parse().unwrap_or(-1);
                return Ok(CommandResult { status, text });
            }
            // Another line is of a command that had timed out.
            if let Some(output) = answer.strip_prefix('|') {
                text.push_str(output);
                text.push('\n');
            }
        }
    }
}

impl Line {
    fn next_before(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        self.from.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }
}

/// Reads lines on a thread, so that waiting for a line can have a deadline.
fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}
