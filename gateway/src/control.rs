//! The channel between a daemon and its gateway process: one JSON value per line, over a pair of
//! Unix sockets. The process gets its end by its lifeline ([`crate::lifeline`]).

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::event::Event;
use crate::link::Layout;
use crate::question::{Answer, Question};
use crate::report::Status;

/// The version of the messages here and of the lifeline's. Another version's gateway is replaced.
pub const PROTOCOL: u32 = 3;

/// Longest line, which bounds the memory that a faulty peer can use. The settings of a network with
/// 4096 ports that each have a forward and a few long names fit.
const MAX_LINE: usize = 8 << 20;

/// The files in which the host's resolvers are stated; empty where there is none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResolverFiles {
    /// `resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// The file in which systemd-resolved lists its servers.
    pub stub_upstream: Vec<u8>,
}

/// A message from the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// The first command of a process's first channel.
    Start {
        /// The layout of the rings in the shared memory.
        layout: Layout,
        /// The gateway's settings.
        config: Config,
    },
    /// New settings.
    Configure(Config),
    /// A question, whose answer comes in parts with the same `id`.
    Ask {
        /// Identifies the answer.
        id: u64,
        /// The table that is queried.
        question: Question,
    },
    /// Whether the gateway's loop runs; it answers with [`Report::Pong`].
    Ping,
    /// The answer to [`Report::ReadResolvers`].
    Resolvers(ResolverFiles),
}

/// A message from the gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The services are ready.
    Ready {
        /// The parts of the sandbox that are not in force, each with the reason.
        missing: Vec<String>,
    },
    /// The counters have changed; at most one a second.
    Status(Box<Status>),
    /// The answer to [`Command::Ping`].
    Pong,
    /// The process may not read where the host's resolvers are stated.
    ReadResolvers,
    /// A line for the log.
    Warning(String),
    /// What has happened since the last report of events.
    Events {
        /// The events, in order.
        events: Vec<Event>,
        /// Others that found no room.
        lost: u64,
    },
    /// A part of an answer; its rows follow those of the previous part.
    Answer {
        /// The `id` of the question.
        id: u64,
        /// Rows of the table.
        part: Answer,
        /// Whether this is the last part.
        last: bool,
    },
}

/// One end of the channel. Never blocks.
pub struct Channel {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Channel {
    /// Takes over a stream.
    ///
    /// # Errors
    ///
    /// It cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel { stream, input: Vec::new(), output: Vec::new() })
    }

    /// Queues a message and sends what the socket takes; [`Channel::flush`] sends the rest. A
    /// message is dropped if the other end has not read what [`Channel::is_full`] allows.
    ///
    /// # Errors
    ///
    /// The other end is closed.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        if !self.is_full() {
            serde_json::to_writer(&mut self.output, message)?;
            self.output.push(b'\n');
        }
        self.flush()
    }

    /// Sends queued messages, as far as the socket takes them.
    ///
    /// # Errors
    ///
    /// The other end is closed.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match (&self.stream).write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether messages are queued that the socket did not take.
    pub fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether so much is queued, 8 MiB, that further messages are dropped.
    pub fn is_full(&self) -> bool {
        self.output.len() >= MAX_LINE
    }

    /// Receives messages, at most 8 MiB at a time; `None` if the other end is closed.
    ///
    /// # Errors
    ///
    /// A message is not valid.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<T>>> {
        let mut open = true;
        let mut room = [0; 4096];
        while self.input.len() < MAX_LINE {
            match (&self.stream).read(&mut room) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => self.input.extend_from_slice(&room[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    open = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let complete = self.input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if complete == 0 && self.input.len() >= MAX_LINE {
            return Err(io::Error::other("a message is longer than 8 MiB"));
        }
        let lines: Vec<u8> = self.input.drain(..complete).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let messages: Vec<T> = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        Ok((open || !messages.is_empty()).then_some(messages))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;
    use trama_nat::Station;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn with_mtu(mtu: u16) -> Config {
        Config { station: Station { mtu, ..lab().station }, ..lab() }
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (daemon, gateway) = pair();
        let (mut daemon, mut gateway) =
            (Channel::new(daemon).unwrap(), Channel::new(gateway).unwrap());
        assert_eq!(gateway.receive::<Command>().unwrap(), Some(vec![]));
        let sent: Vec<Command> = (0..2000).map(|mtu| Command::Configure(with_mtu(mtu))).collect();
        let mut received = Vec::new();
        for message in &sent {
            daemon.send(message).unwrap();
            if daemon.is_behind() {
                received.extend(gateway.receive::<Command>().unwrap().unwrap());
            }
        }
        while daemon.is_behind() || received.len() < sent.len() {
            daemon.flush().unwrap();
            received.extend(gateway.receive::<Command>().unwrap().unwrap());
        }
        assert_eq!(received, sent);
        drop(daemon);
        assert_eq!(gateway.receive::<Command>().unwrap(), None);
    }

    #[test]
    fn garbage_and_endless_lines_are_errors() {
        let (mut wild, gateway) = pair();
        let mut gateway = Channel::new(gateway).unwrap();
        wild.write_all(b"{\"fly\":1}\n").unwrap();
        assert!(gateway.receive::<Command>().is_err());
        wild.set_nonblocking(true).unwrap();
        let refused = (0..10_000).any(|_| {
            let _ = wild.write(&[b'x'; 4096]);
            gateway.receive::<Command>().is_err()
        });
        assert!(refused);
    }
}
