//! A pending query: which servers were queried, and which of them may still answer.
//!
//! Servers are queried one after the other, and the answer of a slow one is accepted while the next
//! is queried. Each server has a *slot* of the query, which stands for a socket. Retransmissions
//! use the same socket and id, so they give a forger no better chance.

use std::net::SocketAddr;
use std::time::Duration;

use trama_nat::{Client, Random};

use super::message::{
    FORMAT_ERROR, Message, NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE, is_bare_error,
};
use crate::io::Upstream;

/// Most servers of a query.
pub(super) const MAX_SERVERS: usize = 3;
/// Time without an answer after which the next server is queried, too.
pub(super) const RETRY: Duration = Duration::from_millis(1500);
/// Timeout of a query after its last transmission by the client: a little less than clients wait (5
/// s), so that they receive the failure.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(4900);
/// The longest timeout, whatever the client retransmits.
const MAX_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// From this try on, a silent server is queried without EDNS: some do not answer queries with it.
const FIRST_TRY_WITHOUT_EDNS: usize = 2;
/// Response codes after which another server may know more.
const FAILURES: [u16; 4] = [FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED];

/// A query to one server.
struct ServerQuery {
    server: SocketAddr,
    /// The random id of the query.
    id: u16,
    without_edns: bool,
    has_failed: bool,
}

/// The outcome of a message from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReplyOutcome {
    /// It does not answer a query to this server.
    Unsolicited,
    /// It is the answer.
    Answer,
    /// The server has no answer.
    Failure,
    /// The server was queried again, without EDNS.
    RetriedWithoutEdns,
}

/// What is needed to query servers.
pub(super) struct QueryContext<'a> {
    pub servers: &'a [SocketAddr],
    pub random: &'a mut Random,
    pub upstream: &'a mut Vec<Upstream>,
}

/// A pending query.
pub(super) struct PendingQuery {
    pub client: Client,
    /// The client's message.
    pub query: Vec<u8>,
    /// The first of its slots.
    slot: usize,
    asked: [Option<ServerQuery>; MAX_SERVERS],
    tries: usize,
    started: Duration,
    /// When to handle the query next.
    pub due: Duration,
    /// When the query fails.
    pub until: Duration,
}

impl PendingQuery {
    /// A query with [`MAX_SERVERS`] slots from `slot` on.
    pub(super) fn new(
        now: Duration,
        (client, query): (Client, &[u8]),
        slot: usize,
    ) -> PendingQuery {
        let (query, asked, until) = (query.to_vec(), Default::default(), now + ANSWER_TIMEOUT);
        PendingQuery { client, query, slot, asked, tries: 0, started: now, due: now, until }
    }

    /// Extends the timeout after a retransmission of the client.
    pub(super) fn repeat(&mut self, now: Duration) {
        self.until = (now + ANSWER_TIMEOUT).min(self.started + MAX_ANSWER_TIMEOUT);
    }

    /// Queries the next server or, if all were queried, retransmits to one that has not answered.
    pub(super) fn ask_next(&mut self, context: &mut QueryContext<'_>) {
        // Nothing is lost on a stream.
        let may_repeat = self.client.stream.is_none();
        let silent = || self.find(context.servers, |asked| may_repeat && !asked.has_failed);
        let Some(n) = self.next_unasked(context.servers).or_else(silent) else { return };
        let server = context.servers[n];
        let is_late = self.tries >= FIRST_TRY_WITHOUT_EDNS;
        self.tries += 1;
        match &mut self.asked[n] {
            Some(asked) if asked.server == server => asked.without_edns |= is_late,
            _ => self.begin((n, server), false, context),
        }
        self.send(n, context.upstream);
    }

    /// The index of a server that was not queried yet.
    pub(super) fn next_unasked(&self, servers: &[SocketAddr]) -> Option<usize> {
        self.find(servers, |_| false)
    }

    /// The index of the next server that was not queried yet, or whose query is `wanted`.
    fn find(&self, servers: &[SocketAddr], wanted: impl Fn(&ServerQuery) -> bool) -> Option<usize> {
        let mut order = (0..servers.len()).map(|n| (self.tries + n) % servers.len());
        order.find(|n| match &self.asked[*n] {
            // The index may have belonged to another server.
            Some(asked) if asked.server == servers[*n] => wanted(asked),
            _ => true,
        })
    }

    /// Gives a server a new id and, with its next query, a new socket.
    fn begin(
        &mut self,
        (n, server): (usize, SocketAddr),
        without_edns: bool,
        context: &mut QueryContext<'_>,
    ) {
        let asked =
            ServerQuery { server, id: (context.random)() as u16, without_edns, has_failed: false };
        if self.asked[n].replace(asked).is_some() {
            context.upstream.push(Upstream::Close { slot: self.slot + n });
        }
    }

    fn send(&self, n: usize, upstream: &mut Vec<Upstream>) {
        let Some(asked) = &self.asked[n] else { return };
        let plain = Message::parse(&self.query).filter(|_| asked.without_edns);
        let plain = plain.and_then(|question| question.without_edns());
        let mut message = plain.unwrap_or_else(|| self.query.clone());
        message[..2].copy_from_slice(&asked.id.to_be_bytes());
        let over_tcp = self.client.stream.is_some();
        let (slot, server) = (self.slot + n, asked.server);
        upstream.push(Upstream::Ask { slot, server, message, over_tcp });
    }

    /// Handles a message from the server with index `n`.
    pub(super) fn handle_reply(
        &mut self,
        n: usize,
        bytes: &[u8],
        context: &mut QueryContext<'_>,
    ) -> ReplyOutcome {
        let (Some(asked), Some(question)) = (&self.asked[n], Message::parse(&self.query)) else {
            return ReplyOutcome::Unsolicited;
        };
        let code = match Message::parse(bytes) {
            Some(answer) if answer.is_answer_to(asked.id, &question) => answer.code(),
            // Some servers answer with a bare header to what they do not understand.
            None if is_bare_error(bytes, asked.id) => FORMAT_ERROR,
            _ => return ReplyOutcome::Unsolicited,
        };
        let knows_no_edns = [FORMAT_ERROR, NOT_IMPLEMENTED].contains(&code);
        if knows_no_edns && !asked.without_edns && question.without_edns().is_some() {
            let server = asked.server;
            self.begin((n, server), true, context);
            self.send(n, context.upstream);
            return ReplyOutcome::RetriedWithoutEdns;
        }
        if !FAILURES.contains(&code) {
            return ReplyOutcome::Answer;
        }
        self.mark_failed(n);
        ReplyOutcome::Failure
    }

    /// The server with index `n` will not answer.
    pub(super) fn mark_failed(&mut self, n: usize) {
        if let Some(asked) = &mut self.asked[n] {
            asked.has_failed = true;
        }
    }

    /// Whether a queried server may still answer.
    pub(super) fn may_still_answer(&self) -> bool {
        self.asked.iter().flatten().any(|asked| !asked.has_failed)
    }

    /// Closes all sockets.
    pub(super) fn close(&self, upstream: &mut Vec<Upstream>) {
        let used = (0..MAX_SERVERS).filter(|n| self.asked[*n].is_some());
        upstream.extend(used.map(|n| Upstream::Close { slot: self.slot + n }));
    }
}
