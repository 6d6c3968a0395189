//! A question on its way: which servers were asked, and which of them can still answer.
//!
//! Servers are asked one after the other, and each stays asked: the answer of a slow one is taken
//! while the next one is asked already. A server has a *slot* of the question, which stands for a
//! socket of its own. What was lost on the way is sent again from the same socket under the same
//! id, which gives a forger no better chance.

use std::net::SocketAddr;
use std::time::Duration;

use super::message::{
    FORMAT_ERROR, Message, NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE, is_bare_refusal,
};
use crate::io::{Client, Random, Upstream};

/// Most servers of a question.
pub(super) const SERVERS: usize = 3;
/// How long a server may be silent until the next one is asked as well.
pub(super) const RETRY: Duration = Duration::from_millis(1500);
/// How long an answer is waited for after the question and each repetition of it: a moment less
/// than clients do (5 s), so that they still hear of a failure.
pub(super) const PATIENCE: Duration = Duration::from_millis(4900);
/// How long it waits at most.
const MOST_PATIENCE: Duration = Duration::from_secs(15);
/// From this try on, a server that was silent is asked without EDNS: some do not answer with it.
const PLAIN_TRY: usize = 2;
/// Codes with which another server may know more.
const FAILURES: [u16; 4] = [FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED];

/// A server that was asked.
struct Asked {
    server: SocketAddr,
    /// Of the question that it was sent; random.
    id: u16,
    is_plain: bool,
    has_failed: bool,
}

/// What became of a message from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// It is not from a server that was asked this.
    Unasked,
    /// The answer.
    Answer,
    /// The server knows no answer.
    Failure,
    /// The server was asked again, without EDNS.
    AskedPlainly,
}

/// What questions are asked with.
pub(super) struct Means<'a> {
    pub servers: &'a [SocketAddr],
    pub random: &'a mut Random,
    pub upstream: &'a mut Vec<Upstream>,
}

/// A question on its way.
pub(super) struct Waiting {
    pub client: Client,
    /// As the client sent it.
    pub query: Vec<u8>,
    /// Its first slot.
    slot: usize,
    asked: [Option<Asked>; SERVERS],
    tries: usize,
    began: Duration,
    /// When to look at it again.
    pub due: Duration,
    /// When the client gives up.
    pub until: Duration,
}

impl Waiting {
    /// A question that has [`SERVERS`] slots from `slot` on.
    pub fn new(now: Duration, (client, query): (Client, &[u8]), slot: usize) -> Waiting {
        let (query, asked, until) = (query.to_vec(), Default::default(), now + PATIENCE);
        Waiting { client, query, slot, asked, tries: 0, began: now, due: now, until }
    }

    /// The client has asked again.
    pub fn repeat(&mut self, now: Duration) {
        self.until = (now + PATIENCE).min(self.began + MOST_PATIENCE);
    }

    /// Asks a server that was not asked before or, if there is none, the next one that is silent.
    pub fn ask_next(&mut self, means: &mut Means<'_>) {
        // What was said on a stream is not lost.
        let may_repeat = self.client.stream.is_none();
        let silent = || self.find(means.servers, |asked| may_repeat && !asked.has_failed);
        let Some(n) = self.another(means.servers).or_else(silent) else { return };
        let server = means.servers[n];
        let is_late = self.tries >= PLAIN_TRY;
        self.tries += 1;
        match &mut self.asked[n] {
            Some(asked) if asked.server == server => asked.is_plain |= is_late,
            _ => self.begin((n, server), false, means),
        }
        self.send(n, means.upstream);
    }

    /// The number of a server that was not asked yet.
    pub fn another(&self, servers: &[SocketAddr]) -> Option<usize> {
        self.find(servers, |_| false)
    }

    /// The next server that was not asked yet, or was and is `wanted`.
    fn find(&self, servers: &[SocketAddr], wanted: impl Fn(&Asked) -> bool) -> Option<usize> {
        let mut order = (0..servers.len()).map(|n| (self.tries + n) % servers.len());
        order.find(|n| match &self.asked[*n] {
            // Another server may have had the number.
            Some(asked) if asked.server == servers[*n] => wanted(asked),
            _ => true,
        })
    }

    /// Gives a server a new id and, when it is sent the question, a new socket.
    fn begin(&mut self, (n, server): (usize, SocketAddr), is_plain: bool, means: &mut Means<'_>) {
        let asked = Asked { server, id: (means.random)() as u16, is_plain, has_failed: false };
        if self.asked[n].replace(asked).is_some() {
            means.upstream.push(Upstream::Close { slot: self.slot + n });
        }
    }

    fn send(&self, n: usize, upstream: &mut Vec<Upstream>) {
        let Some(asked) = &self.asked[n] else { return };
        let plain = Message::parse(&self.query).filter(|_| asked.is_plain);
        let plain = plain.and_then(|question| question.plain());
        let mut message = plain.unwrap_or_else(|| self.query.clone());
        message[..2].copy_from_slice(&asked.id.to_be_bytes());
        let by_stream = self.client.stream.is_some();
        let (slot, server) = (self.slot + n, asked.server);
        upstream.push(Upstream::Ask { slot, server, message, by_stream });
    }

    /// Takes a message from the server with number `n`.
    pub fn hear(&mut self, n: usize, bytes: &[u8], means: &mut Means<'_>) -> Heard {
        let (Some(asked), Some(question)) = (&self.asked[n], Message::parse(&self.query)) else {
            return Heard::Unasked;
        };
        let code = match Message::parse(bytes) {
            Some(answer) if answer.answers(asked.id, &question) => answer.code(),
            // Some servers repeat nothing of what they do not understand.
            None if is_bare_refusal(bytes, asked.id) => FORMAT_ERROR,
            _ => return Heard::Unasked,
        };
        let knows_no_edns = [FORMAT_ERROR, NOT_IMPLEMENTED].contains(&code);
        if knows_no_edns && !asked.is_plain && question.plain().is_some() {
            let server = asked.server;
            self.begin((n, server), true, means);
            self.send(n, means.upstream);
            return Heard::AskedPlainly;
        }
        if !FAILURES.contains(&code) {
            return Heard::Answer;
        }
        self.fail(n);
        Heard::Failure
    }

    /// The server with number `n` will not answer.
    pub fn fail(&mut self, n: usize) {
        if let Some(asked) = &mut self.asked[n] {
            asked.has_failed = true;
        }
    }

    /// Whether a server that was asked may still answer.
    pub fn has_hope(&self) -> bool {
        self.asked.iter().flatten().any(|asked| !asked.has_failed)
    }

    /// Closes all sockets.
    pub fn close(&self, upstream: &mut Vec<Upstream>) {
        let used = (0..SERVERS).filter(|n| self.asked[*n].is_some());
        upstream.extend(used.map(|n| Upstream::Close { slot: self.slot + n }));
    }
}
