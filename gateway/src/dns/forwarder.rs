//! Forwards queries to servers, and matches their answers. It knows no socket and no clock.
//!
//! A [`PendingQuery`] is sent to each server under a random id and through a socket of its own, and
//! so from a random port. Only a message from that server with this id and question is accepted as
//! its answer. A query that its client retransmits is answered once.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;
use trama_nat::{Client, PortMark, Random};

use super::message::{BAD_VERSION, FORMAT_ERROR, Message, NOT_IMPLEMENTED, SERVER_FAILURE};
use super::names::LocalNames;
use super::pending_query::{MAX_SERVERS, PendingQuery, QueryContext, RETRY, ReplyOutcome};
use super::shares::FairShares;
use crate::config::Config;
use crate::dhcp::Leases;
use crate::drop_reason::ServiceDrop;
use crate::io::{Replies, Upstream};

/// Pending queries, as far as an eighth of the process's descriptors suffices: each has up to
/// [`MAX_SERVERS`].
const MAX_PENDING: usize = 2048;
const DESCRIPTOR_PART: usize = 8;
/// Zone transfers (RFC 1995, RFC 5936), whose answers have many messages.
const TRANSFERS: [u16; 2] = [251, 252];

/// A query that is not served, and the reply to its client, if any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub reason: ServiceDrop,
    pub reply: Option<Vec<u8>>,
}

/// Identifies a client's query: switch port, address and UDP port, id.
type Key = (PortMark, (IpAddr, u16), u16);

/// Forwards queries to servers.
pub(crate) struct Forwarder {
    names: LocalNames,
    servers: Vec<SocketAddr>,
    /// Pending queries; the slots of number n start at n times [`MAX_SERVERS`].
    pending: Vec<Option<Box<PendingQuery>>>,
    free: Vec<usize>,
    /// Queries that came in datagrams, which may be retransmitted.
    by_key: HashMap<Key, usize, RandomState>,
    /// When to handle which query next.
    due: BTreeSet<(Duration, usize)>,
    shares: FairShares,
}

impl Forwarder {
    pub(crate) fn new(config: &Config) -> Forwarder {
        Forwarder {
            names: LocalNames::new(config),
            servers: Vec::new(),
            pending: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            due: BTreeSet::new(),
            shares: FairShares::new(MAX_PENDING, DESCRIPTOR_PART),
        }
    }

    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.names = LocalNames::new(config);
    }

    /// Sets the servers, of which the first [`MAX_SERVERS`] are used. Pending queries continue with
    /// them.
    pub(crate) fn set_servers(&mut self, mut servers: Vec<SocketAddr>) {
        servers.truncate(MAX_SERVERS);
        self.servers = servers;
    }

    /// Handles a client's query. Returns the reply, or `None` if the query is pending.
    pub(crate) fn query(
        &mut self,
        now: Duration,
        known: (&Config, Option<&Leases>),
        random: &mut Random,
        (client, bytes): (Client, &[u8]),
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let question = read(bytes)?;
        if let Some(code) = unsupported(&question) {
            return Ok(Some(question.reply(code)));
        }
        if let Some(answer) = self.names.answer(known, &question) {
            return Ok(Some(question.relay(answer, room(&client, &question))));
        }
        if self.servers.is_empty() {
            return Ok(Some(question.reply(SERVER_FAILURE)));
        }
        let key = (client.port, client.remote, question.id);
        if self.is_retransmission(now, &key, (client, bytes)) {
            return Ok(None);
        }
        if !self.shares.acquire(client.port) {
            let reply = Some(question.reply(SERVER_FAILURE));
            return Err(Refusal { reason: ServiceDrop::DnsLimit, reply });
        }
        let number = self.insert(now, key, (client, bytes));
        self.ask_next(now, number, random, upstream);
        Ok(None)
    }

    /// Whether the query is a retransmission of a pending one, whose timeout it extends.
    fn is_retransmission(&mut self, now: Duration, key: &Key, question: (Client, &[u8])) -> bool {
        let pending = self.by_key.get(key).and_then(|number| self.pending[*number].as_mut());
        let same = pending.filter(|it| (it.client, &it.query[..]) == question);
        // A query on a stream is never retransmitted, only asked twice.
        same.filter(|it| it.client.stream.is_none()).map(|it| it.repeat(now)).is_some()
    }

    fn insert(&mut self, now: Duration, key: Key, question: (Client, &[u8])) -> usize {
        let number = self.free.pop().unwrap_or(self.pending.len());
        if number == self.pending.len() {
            self.pending.push(None);
        }
        self.pending[number] =
            Some(Box::new(PendingQuery::new(now, question, number * MAX_SERVERS)));
        self.by_key.insert(key, number);
        number
    }

    /// Queries the next server, and schedules the one after it.
    fn ask_next(
        &mut self,
        now: Duration,
        number: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) {
        let Some(pending) = &mut self.pending[number] else { return };
        pending.ask_next(&mut QueryContext { servers: &self.servers, random, upstream });
        self.due.remove(&(pending.due, number));
        pending.due = (now + RETRY).min(pending.until);
        self.due.insert((pending.due, number));
    }

    /// Handles a message from a server to a slot's socket.
    pub(crate) fn answer(
        &mut self,
        now: Duration,
        slot: usize,
        bytes: &[u8],
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Result<Option<(Client, Vec<u8>)>, ServiceDrop> {
        let (number, n) = (slot / MAX_SERVERS, slot % MAX_SERVERS);
        let pending = self.pending.get_mut(number).and_then(Option::as_mut);
        let pending = pending.ok_or(ServiceDrop::DnsUnasked)?;
        let context = &mut QueryContext { servers: &self.servers, random, upstream };
        match pending.handle_reply(n, bytes, context) {
            ReplyOutcome::Unsolicited => Err(ServiceDrop::DnsUnasked),
            ReplyOutcome::RetriedWithoutEdns => Ok(None),
            ReplyOutcome::Answer => Ok(self.finish(number, Some(bytes), upstream)),
            ReplyOutcome::Failure => {
                Ok(self.try_next(now, number, (Some(bytes), random), upstream))
            }
        }
    }

    /// The server of a slot cannot be reached.
    pub(crate) fn failed(
        &mut self,
        now: Duration,
        slot: usize,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let (number, n) = (slot / MAX_SERVERS, slot % MAX_SERVERS);
        self.pending.get_mut(number)?.as_mut()?.mark_failed(n);
        self.try_next(now, number, (None, random), upstream)
    }

    /// After a server's failure, queries the next one. If none is left and none may still answer,
    /// the client gets the failure.
    fn try_next(
        &mut self,
        now: Duration,
        number: usize,
        (failure, random): (Option<&[u8]>, &mut Random),
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let pending = self.pending[number].as_ref()?;
        if pending.next_unasked(&self.servers).is_some() {
            self.ask_next(now, number, random, upstream);
            return None;
        }
        if pending.may_still_answer() {
            return None;
        }
        self.finish(number, failure, upstream)
    }

    /// Handles the queries whose time has come.
    pub(crate) fn poll(
        &mut self,
        now: Duration,
        random: &mut Random,
        upstream: &mut Vec<Upstream>,
    ) -> Replies {
        let mut replies = Vec::new();
        while let Some((at, number)) = self.due.first().copied()
            && at <= now
        {
            if self.pending[number].as_ref().is_some_and(|pending| pending.until > now) {
                self.ask_next(now, number, random, upstream);
            } else {
                replies.extend(self.finish(number, None, upstream));
            }
        }
        replies
    }

    /// When [`Forwarder::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Ends a query with an answer or, without one, with a failure.
    fn finish(
        &mut self,
        number: usize,
        answer: Option<&[u8]>,
        upstream: &mut Vec<Upstream>,
    ) -> Option<(Client, Vec<u8>)> {
        let pending = self.pending[number].take()?;
        let client = pending.client;
        self.free.push(number);
        self.due.remove(&(pending.due, number));
        self.shares.release(client.port);
        pending.close(upstream);
        let question = Message::parse(&pending.query)?;
        self.by_key.remove(&(client.port, client.remote, question.id));
        let reply = match answer {
            Some(bytes) => question.relay(bytes.to_vec(), room(&client, &question)),
            None => question.reply(SERVER_FAILURE),
        };
        Some((client, reply))
    }
}

/// Parses a client's query, or returns why it is refused.
fn read(bytes: &[u8]) -> Result<Message<'_>, Refusal> {
    let refusal = |reply| Refusal { reason: ServiceDrop::BadDns, reply };
    let header = Message::parse_header(bytes).ok_or(refusal(None))?;
    if header.is_response() {
        // A response is never answered, or two servers could answer each other endlessly.
        return Err(refusal(None));
    }
    let question = Message::parse(bytes).unwrap_or(header);
    match unsupported(&question) {
        None if question.is_malformed() => Err(refusal(Some(question.reply(FORMAT_ERROR)))),
        _ => Ok(question),
    }
}

/// The response code for an unsupported kind of query or EDNS version.
fn unsupported(question: &Message<'_>) -> Option<u16> {
    if !question.is_standard() || TRANSFERS.contains(&question.kind) {
        return Some(NOT_IMPLEMENTED);
    }
    let version = question.edns.opt.filter(|_| !question.edns.is_malformed)?.version;
    (version > 0).then_some(BAD_VERSION)
}

/// The longest answer that a client accepts.
fn room(client: &Client, question: &Message<'_>) -> usize {
    match client.stream {
        Some(_) => client.room,
        None => client.room.min(question.edns.max_datagram()),
    }
}

#[cfg(test)]
mod tests;
