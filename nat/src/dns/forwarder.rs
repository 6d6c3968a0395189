//! Which question goes to which server, and whose an answer is. No socket, no clock.
//!
//! A question [waits](Waiting) while its servers are asked. Each is sent it under a random id,
//! through a socket of its own (and so from a random port); only a message from the server asked,
//! with that id and the same question, is its answer. A question that its client repeats is the
//! same question: both get one answer.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::message::{BAD_VERSION, FORMAT_ERROR, Message, NOT_IMPLEMENTED, SERVER_FAILURE};
use super::names::Names;
use super::shares::Shares;
use super::waiting::{Heard, Means, RETRY, SERVERS, Waiting};
use crate::config::Config;
use crate::dhcp::Leases;
use crate::drop_reason::DropReason;
use crate::io::{Client, PortMark, Random, Replies, Upstream};

/// Questions that may wait at once, as far as an eighth of the process's descriptors suffices: each
/// has up to [`SERVERS`].
const MOST: usize = 2048;
const PART_OF_FILES: usize = 8;
/// Questions for whole zones (RFC 1995, RFC 5936), which have many messages for an answer.
const TRANSFERS: [u16; 2] = [251, 252];

/// A question that is not served: why, and what its client is told, if anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub reason: DropReason,
    pub reply: Option<Vec<u8>>,
}

/// What tells questions of clients apart: switch port, address and UDP port, id.
type Key = (PortMark, (IpAddr, u16), u16);

/// Forwards questions to servers.
pub(crate) struct Forwarder {
    names: Names,
    servers: Vec<SocketAddr>,
    /// By their first slot, divided by [`SERVERS`].
    waiting: Vec<Option<Box<Waiting>>>,
    free: Vec<usize>,
    /// Those that came in datagrams, which may be repeated.
    known: HashMap<Key, usize, RandomState>,
    /// When to look at them again.
    due: BTreeSet<(Duration, usize)>,
    shares: Shares,
}

impl Forwarder {
    pub fn new(config: &Config) -> Forwarder {
        Forwarder {
            names: Names::new(config),
            servers: Vec::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            known: HashMap::default(),
            due: BTreeSet::new(),
            shares: Shares::new(MOST, PART_OF_FILES),
        }
    }

    pub fn reconfigure(&mut self, config: &Config) {
        self.names = Names::new(config);
    }

    /// The servers to ask from now on, of which the first [`SERVERS`] count. Questions under way go
    /// on to these.
    pub fn set_servers(&mut self, mut servers: Vec<SocketAddr>) {
        servers.truncate(SERVERS);
        self.servers = servers;
    }

    /// Takes a client's question. `None`: it waits for its answer.
    pub fn query(
        &mut self,
        now: Duration,
        known: (&Config, Option<&Leases>),
        random: &mut Random,
        (client, bytes): (Client, &[u8]),
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let question = read(bytes)?;
        if let Some(code) = not_done(&question) {
            return Ok(Some(question.reply(code)));
        }
        if let Some(answer) = self.names.answer(known, &question) {
            return Ok(Some(question.passed_on(answer, room(&client, &question))));
        }
        if self.servers.is_empty() {
            return Ok(Some(question.reply(SERVER_FAILURE)));
        }
        let key = (client.port, client.remote, question.id);
        if self.is_repeated(now, &key, (client, bytes)) {
            return Ok(None);
        }
        if !self.shares.take(client.port) {
            let reply = Some(question.reply(SERVER_FAILURE));
            return Err(Refusal { reason: DropReason::DnsLimit, reply });
        }
        let number = self.insert(now, key, (client, bytes));
        self.ask_next(now, number, random, upstream);
        Ok(None)
    }

    /// Whether the question is under way already; it then goes on for longer.
    fn is_repeated(&mut self, now: Duration, key: &Key, question: (Client, &[u8])) -> bool {
        let waiting = self.known.get(key).and_then(|number| self.waiting[*number].as_mut());
        let same = waiting.filter(|it| (it.client, &it.query[..]) == question);
        // What comes by a stream is not repeated, but asked twice.
        same.filter(|it| it.client.stream.is_none()).map(|it| it.repeat(now)).is_some()
    }

    fn insert(&mut self, now: Duration, key: Key, question: (Client, &[u8])) -> usize {
        let number = self.free.pop().unwrap_or(self.waiting.len());
        if number == self.waiting.len() {
            self.waiting.push(None);
        }
        self.waiting[number] = Some(Box::new(Waiting::new(now, question, number * SERVERS)));
        self.known.insert(key, number);
        number
    }

    /// Asks the next server, and looks at the question again once that had its time.
    fn ask_next(
        &mut self,
        now: Duration,
        number: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) {
        let Some(waiting) = &mut self.waiting[number] else { return };
        waiting.ask_next(&mut Means { servers: &self.servers, random, upstream });
        self.due.remove(&(waiting.due, number));
        waiting.due = (now + RETRY).min(waiting.until);
        self.due.insert((waiting.due, number));
    }

    /// Takes a message that a server sent to a slot's socket.
    pub fn answer(
        &mut self,
        now: Duration,
        slot: usize,
        bytes: &[u8],
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<(Client, Vec<u8>)>, DropReason> {
        let (number, n) = (slot / SERVERS, slot % SERVERS);
        let waiting = self.waiting.get_mut(number).and_then(Option::as_mut);
        let waiting = waiting.ok_or(DropReason::DnsUnasked)?;
        let means = &mut Means { servers: &self.servers, random, upstream };
        match waiting.hear(n, bytes, means) {
            Heard::Unasked => Err(DropReason::DnsUnasked),
            Heard::AskedPlainly => Ok(None),
            Heard::Answer => Ok(self.finish(number, Some(bytes), upstream)),
            Heard::Failure => Ok(self.go_on(now, number, (Some(bytes), random), upstream)),
        }
    }

    /// The server of a slot cannot be reached.
    pub fn failed(
        &mut self,
        now: Duration,
        slot: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let (number, n) = (slot / SERVERS, slot % SERVERS);
        self.waiting.get_mut(number)?.as_mut()?.fail(n);
        self.go_on(now, number, (None, random), upstream)
    }

    /// After the failure of a server, asks one that was not asked yet. Without such a one, and if
    /// no other may still answer, the client gets the failure.
    fn go_on(
        &mut self,
        now: Duration,
        number: usize,
        (failure, random): (Option<&[u8]>, &mut Random),
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let waiting = self.waiting[number].as_ref()?;
        if waiting.another(&self.servers).is_some() {
            self.ask_next(now, number, random, upstream);
            return None;
        }
        if waiting.has_hope() {
            return None;
        }
        self.finish(number, failure, upstream)
    }

    /// Goes on with questions whose server was silent for too long.
    pub fn poll(
        &mut self,
        now: Duration,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Replies {
        let mut replies = Vec::new();
        while let Some((at, number)) = self.due.first().copied()
            && at <= now
        {
            if self.waiting[number].as_ref().is_some_and(|waiting| waiting.until > now) {
                self.ask_next(now, number, random, upstream);
            } else {
                replies.extend(self.finish(number, None, upstream));
            }
        }
        replies
    }

    /// When [`Forwarder::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Ends a question with an answer or, without one, with a failure.
    fn finish(
        &mut self,
        number: usize,
        answer: Option<&[u8]>,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let waiting = self.waiting[number].take()?;
        let client = waiting.client;
        self.free.push(number);
        self.due.remove(&(waiting.due, number));
        self.shares.give_back(client.port);
        waiting.close(upstream);
        let question = Message::parse(&waiting.query)?;
        self.known.remove(&(client.port, client.remote, question.id));
        let reply = match answer {
            Some(bytes) => question.passed_on(bytes.to_vec(), room(&client, &question)),
            None => question.reply(SERVER_FAILURE),
        };
        Some((client, reply))
    }
}

/// Reads a client's question, as far as it is one.
fn read(bytes: &[u8]) -> Result<Message<'_>, Refusal> {
    let refusal = |reply| Refusal { reason: DropReason::BadDns, reply };
    let header = Message::header_of(bytes).ok_or(refusal(None))?;
    if header.is_response() {
        // Never an answer to what may be an answer: two servers could go on without end.
        return Err(refusal(None));
    }
    let question = Message::parse(bytes).unwrap_or(header);
    match not_done(&question) {
        None if question.is_malformed() => Err(refusal(Some(question.reply(FORMAT_ERROR)))),
        _ => Ok(question),
    }
}

/// The code that says of a question that it is of a kind, or a version of EDNS, that is not done.
fn not_done(question: &Message<'_>) -> Option<u16> {
    if !question.is_standard() || TRANSFERS.contains(&question.kind) {
        return Some(NOT_IMPLEMENTED);
    }
    let version = question.edns.opt.filter(|_| !question.edns.is_malformed)?.version;
    (version > 0).then_some(BAD_VERSION)
}

/// The longest answer that a client takes.
fn room(client: &Client, question: &Message<'_>) -> usize {
    match client.stream {
        Some(_) => client.room,
        None => client.room.min(question.edns.room()),
    }
}

#[cfg(test)]
mod tests;
