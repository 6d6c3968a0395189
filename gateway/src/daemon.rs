//! The daemon as its gateway sees it: a channel, while a daemon has one with it.
//!
//! Between two daemons there is none. Reports are then dropped, since the next daemon is told the
//! whole state first; warnings wait for it, as far as there is room.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::answers::Questions;
use crate::control::{Channel, Command, Report};
use crate::question::{Answer, Question};

/// Warnings that wait for the next daemon.
const WAITING: usize = 64;

/// The channel to the daemon, or that there is none.
pub(crate) struct Daemon {
    token: Token,
    channel: Option<Channel>,
    questions: Questions,
    warnings: Vec<String>,
}

impl Daemon {
    /// There is a daemon at the other end of this channel, whose events have this token.
    pub(crate) fn new(channel: Channel, registry: &Registry, token: Token) -> io::Result<Daemon> {
        let questions = Questions::default();
        let mut daemon = Daemon { token, channel: None, questions, warnings: Vec::new() };
        daemon.listen(channel, registry)?;
        Ok(daemon)
    }

    fn listen(&mut self, channel: Channel, registry: &Registry) -> io::Result<()> {
        let wanted = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&channel.as_fd().as_raw_fd()), self.token, wanted)?;
        self.channel = Some(channel);
        Ok(())
    }

    /// Another daemon goes on at the other end of this stream. What is left of the channel before
    /// is dropped.
    pub(crate) fn replace(&mut self, stream: UnixStream, registry: &Registry) -> io::Result<()> {
        self.hang_up();
        self.listen(Channel::new(stream)?, registry)
    }

    /// Drops the channel, with the questions that came on it.
    fn hang_up(&mut self) {
        self.channel = None;
        self.questions = Questions::default();
    }

    /// Whether there is a daemon.
    pub(crate) fn is_there(&self) -> bool {
        self.channel.is_some()
    }

    /// Whether a report would be sent at once.
    pub(crate) fn is_free(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_behind())
    }

    /// Sends a report, if there is a daemon.
    pub(crate) fn send(&mut self, report: &Report) {
        if self.channel.as_mut().is_some_and(|channel| channel.send(report).is_err()) {
            self.hang_up();
        }
    }

    /// Sends a line for the log, now or to the next daemon.
    pub(crate) fn warn(&mut self, text: String) {
        if self.is_there() {
            self.send(&Report::Warning(text));
        } else if self.warnings.len() < WAITING {
            self.warnings.push(text);
        }
    }

    /// Sends the lines that have waited for a daemon.
    pub(crate) fn send_waiting(&mut self) {
        for text in std::mem::take(&mut self.warnings) {
            self.warn(text);
        }
    }

    /// Receives commands and sends what the channel did not take; returns none if there is none.
    ///
    /// # Errors
    ///
    /// A command is not valid.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Command>> {
        let Some(channel) = &mut self.channel else { return Ok(Vec::new()) };
        let is_open = channel.flush().is_ok();
        match channel.receive()? {
            Some(commands) if is_open || !commands.is_empty() => Ok(commands),
            _ => {
                self.hang_up();
                Ok(Vec::new())
            }
        }
    }

    /// The daemon has asked a question.
    pub(crate) fn ask(&mut self, id: u64, question: Question) {
        self.questions.ask(id, question);
    }

    /// Answers the daemon's questions. Returns whether there is more to answer.
    pub(crate) fn answer(&mut self, look_up: impl FnOnce(Question) -> Answer) -> bool {
        let Daemon { channel: Some(channel), questions, .. } = self else { return false };
        let asked = questions.send(channel, look_up);
        if asked.is_err() {
            self.hang_up();
        }
        asked.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    fn daemon() -> (mio::Poll, Daemon, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let poll = mio::Poll::new().unwrap();
        let channel = Channel::new(theirs).unwrap();
        let daemon = Daemon::new(channel, poll.registry(), Token(1)).unwrap();
        (poll, daemon, ours)
    }

    #[test]
    fn warnings_wait_for_the_next_daemon_and_nothing_else_of_the_last_one_does() {
        let (poll, mut daemon, first) = daemon();
        let mut first = Channel::new(first).unwrap();
        daemon.warn("one".into());
        assert_eq!(first.receive().unwrap(), Some(vec![Report::Warning("one".into())]));
        first.send(&Command::Ask { id: 7, question: Question::Leases }).unwrap();
        for command in daemon.receive().unwrap() {
            let Command::Ask { id, question } = command else { panic!("{command:?}") };
            daemon.ask(id, question);
        }
        drop(first);
        assert!(daemon.receive().unwrap().is_empty() && !daemon.is_there());
        daemon.send(&Report::Pong);
        for number in 0..2 * WAITING {
            daemon.warn(number.to_string());
        }

        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut second = Channel::new(ours).unwrap();
        daemon.replace(theirs, poll.registry()).unwrap();
        assert!(!daemon.answer(|_| panic!("the last one asked")));
        daemon.send_waiting();
        let waited = (0..WAITING).map(|number| Report::Warning(number.to_string()));
        assert_eq!(second.receive().unwrap(), Some(waited.collect()));
        daemon.send_waiting();
        assert_eq!(second.receive::<Report>().unwrap(), Some(vec![]), "each is sent once");
    }

    #[test]
    fn a_command_that_was_cut_off_ends_with_its_channel() {
        use std::io::Write;
        let (poll, mut daemon, mut first) = daemon();
        first.write_all(b"{\"configure\":{\"stat").unwrap();
        assert!(daemon.receive().unwrap().is_empty() && daemon.is_there());
        let (ours, theirs) = UnixStream::pair().unwrap();
        daemon.replace(theirs, poll.registry()).unwrap();
        let mut second = Channel::new(ours.try_clone().unwrap()).unwrap();
        second.send(&Command::Configure(lab())).unwrap();
        assert_eq!(daemon.receive().unwrap(), [Command::Configure(lab())]);
        assert!(first.write_all(b"x").is_err(), "the first one is closed");
        (&ours).write_all(b"{\"fly\":1}\n").unwrap();
        assert!(daemon.receive().is_err());
    }
}
