//! DNS over TCP (RFC 7766). The TCP connection of a guest is a flow; its far end is a socket pair
//! instead of a server's socket, and the other socket of the pair is here. So it has the limits of
//! a flow, and a guest that does not read its answers cannot send more queries.
//!
//! Queries go to the same [forwarder](super::forwarder) as those in datagrams.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use foldhash::fast::RandomState;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::framing::{framed, take_message};
use super::shares::FairShares;
use crate::drop_reason::DropReason;
use crate::io::Client;

/// Most streams, as far as an eighth of the process's descriptors suffices: each has two.
const MAX_STREAMS: usize = 1024;
const DESCRIPTOR_PART: usize = 16;
/// Pending queries of a stream, beyond which it is not read.
const MAX_WAITING: usize = 64;
/// How long a stream may be idle.
const IDLE: Duration = Duration::from_secs(10);
const READ: usize = 4096;

/// The connection of a guest.
struct Stream {
    client: Client,
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    waiting: usize,
    peer_closed: bool,
    used: Duration,
}

/// All streams of a network.
pub(crate) struct Streams {
    streams: HashMap<u32, Stream, RandomState>,
    shares: FairShares,
    next: u32,
    /// Streams that can be read or written.
    ready: Vec<u32>,
    questions: Vec<(Client, Vec<u8>)>,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams {
            streams: HashMap::default(),
            shares: FairShares::new(MAX_STREAMS, DESCRIPTOR_PART),
            next: 0,
            ready: Vec::new(),
            questions: Vec::new(),
        }
    }
}

impl Streams {
    /// Adds a stream for a client. Its events are registered under `token` of its number.
    ///
    /// # Errors
    ///
    /// The switch port has its share, or the registration failed.
    pub fn open(
        &mut self,
        now: Duration,
        registry: &Registry,
        token: impl Fn(u32) -> Token,
        (client, mut socket): (Client, UnixStream),
    ) -> Result<(), DropReason> {
        // A late answer must not reach another stream with the same number: numbers are reused as
        // late as possible.
        while self.streams.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        registry
            .register(&mut socket, token(number), Interest::READABLE | Interest::WRITABLE)
            .map_err(|_| DropReason::FileLimit)?;
        if !self.shares.acquire(client.port) {
            return Err(DropReason::DnsLimit);
        }
        let client = Client { stream: Some(number), room: u16::MAX.into(), ..client };
        let (input, output) = (Vec::new(), Vec::new());
        let stream =
            Stream { client, socket, input, output, waiting: 0, peer_closed: false, used: now };
        self.streams.insert(number, stream);
        Ok(())
    }

    /// A stream can be read or written.
    pub fn ready(&mut self, number: u32) {
        self.ready.push(number);
    }

    /// Sends an answer on a stream; without one, closes the stream.
    pub fn answer(&mut self, number: u32, message: Option<&[u8]>) {
        match (self.streams.get_mut(&number), message) {
            (Some(stream), Some(message)) => {
                stream.output.extend(framed(message));
                stream.waiting = stream.waiting.saturating_sub(1);
                self.ready.push(number);
            }
            (Some(_), None) => self.close(number),
            (None, _) => {}
        }
    }

    /// Reads and writes what is possible, and closes idle streams.
    pub fn poll(&mut self, now: Duration) {
        for number in std::mem::take(&mut self.ready) {
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            if stream.progress(now, &mut self.questions).is_err() {
                self.close(number);
            }
        }
        let shares = &mut self.shares;
        self.streams.retain(|_, stream| {
            let stays = stream.idle_deadline().is_none_or(|end| end > now);
            if !stays {
                shares.release(stream.client.port);
            }
            stays
        });
    }

    fn close(&mut self, number: u32) {
        if let Some(stream) = self.streams.remove(&number) {
            self.shares.release(stream.client.port);
        }
    }

    /// Takes the queries received.
    pub fn take_questions(&mut self) -> Vec<(Client, Vec<u8>)> {
        std::mem::take(&mut self.questions)
    }

    /// When [`Streams::poll`] has to be called next.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.streams.values().filter_map(Stream::idle_deadline).min()
    }
}

impl Stream {
    /// When the stream is closed unless it is used.
    fn idle_deadline(&self) -> Option<Duration> {
        (self.waiting == 0).then_some(self.used + IDLE)
    }

    /// Writes answers; once all are written, reads queries. An error ends the stream.
    fn progress(
        &mut self,
        now: Duration,
        questions: &mut Vec<(Client, Vec<u8>)>,
    ) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(sent) => {
                    self.output.drain(..sent);
                    self.used = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        while self.waiting < MAX_WAITING {
            if let Some(message) = take_message(&mut self.input) {
                questions.push((self.client, message));
                self.waiting += 1;
                self.used = now;
                continue;
            }
            let mut room = [0; READ];
            match self.socket.read(&mut room) {
                Ok(0) => {
                    self.peer_closed = true;
                    break;
                }
                Ok(length) => self.input.extend_from_slice(&room[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match self.peer_closed && self.waiting == 0 {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::testing::client;

    const T0: Duration = Duration::ZERO;

    struct Lab {
        streams: Streams,
        poll: Poll,
        guest: UnixStream,
    }

    impl Lab {
        fn new() -> Lab {
            let (poll, (guest, ours)) = (Poll::new().unwrap(), UnixStream::pair().unwrap());
            let mut streams = Streams::default();
            let token = |number: u32| Token(number as usize);
            streams.open(T0, poll.registry(), token, (client(1), ours)).unwrap();
            Lab { streams, poll, guest }
        }

        /// The queries in what the guest writes.
        fn write(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
            self.guest.write_all(bytes).unwrap();
            self.turn()
        }

        fn turn(&mut self) -> Vec<Vec<u8>> {
            self.streams.ready(0);
            self.streams.poll(T0);
            self.streams.take_questions().into_iter().map(|(_, message)| message).collect()
        }

        /// What the guest reads; `None` if the stream is closed.
        fn read(&mut self) -> Option<Vec<u8>> {
            let mut all = Vec::new();
            let mut room = [0; 65_536];
            loop {
                match self.guest.read(&mut room) {
                    Ok(0) => return None,
                    Ok(length) => all.extend_from_slice(&room[..length]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        return Some(all);
                    }
                }
            }
        }
    }

    #[test]
    fn queries_are_split_and_pipelined() {
        let mut lab = Lab::new();
        assert_eq!(lab.write(b"\0"), [b""; 0]);
        assert_eq!(lab.write(b"\x03on"), [b""; 0]);
        assert_eq!(lab.write(b"e\0\x03two\0\0\0"), [&b"one"[..], b"two", b""]);
        lab.streams.answer(0, Some(b"second"));
        lab.streams.answer(0, Some(b"first"));
        lab.streams.poll(T0);
        assert_eq!(lab.read().unwrap(), b"\0\x06second\0\x05first");
        // The guest closes, and still receives the answer that it waits for.
        lab.guest.shutdown(std::net::Shutdown::Write).unwrap();
        lab.turn();
        lab.streams.answer(0, Some(b"third"));
        lab.streams.poll(T0);
        assert_eq!(lab.streams.streams.len(), 0);
        let mut room = [0; 20];
        assert_eq!(lab.guest.read(&mut room).unwrap(), 7);
        assert_eq!(lab.read(), None);
    }

    #[test]
    fn a_guest_that_does_not_read_cannot_send_more_queries() {
        let mut lab = Lab::new();
        assert_eq!(lab.write(&b"\0\x01?".repeat(200)).len(), MAX_WAITING);
        assert_eq!(lab.turn().len(), 0, "none is answered");
        lab.streams.answer(0, Some(b"!"));
        assert_eq!(lab.turn().len(), 1);
        let (long, mut asked) = (vec![7; 65_535], 0);
        for _ in 0..20 {
            lab.streams.answer(0, Some(&long));
            asked += lab.turn().len();
        }
        assert!(asked < 11, "the guest has room for all of it");
        assert!(lab.read().unwrap().len() > 65_535);
        lab.streams.answer(0, None);
        assert_eq!(lab.read(), None, "it is closed");
        lab.streams.answer(0, Some(b"late"));
    }

    #[test]
    fn streams_are_limited_and_end_when_they_are_idle() {
        let mut lab = Lab::new();
        lab.streams.shares = FairShares::new(8, 1);
        let mut others = Vec::new();
        let mut open = |lab: &mut Lab, port| {
            let (other, ours) = UnixStream::pair().unwrap();
            others.push(other);
            let token = |number: u32| Token(number as usize);
            lab.streams.open(T0, lab.poll.registry(), token, (client(port), ours))
        };
        for port in [1, 1, 1, 1, 2, 2] {
            assert_eq!(open(&mut lab, port), Ok(()));
        }
        assert_eq!(open(&mut lab, 1), Err(DropReason::DnsLimit));
        assert_eq!(open(&mut lab, 3), Ok(()), "another port may have some");
        // A stream with a pending query is not idle.
        lab.write(b"\0\x01?");
        assert_eq!(lab.streams.deadline(), Some(IDLE));
        lab.streams.poll(IDLE);
        assert_eq!((lab.streams.streams.len(), lab.streams.deadline()), (1, None));
        assert_eq!(open(&mut lab, 1), Ok(()), "they have made room");
    }
}
