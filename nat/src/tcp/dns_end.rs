//! The gateway's DNS as the far end of a flow: DNS over TCP (RFC 7766).
//!
//! The guest's bytes are split into messages, each after its length (RFC 1035, 4.2.2), and queued
//! as queries of a client. Answers come back in any order, and go to the guest as data. A query is
//! answered by the same forwarder as one in a datagram.
//!
//! What a guest can make the gateway keep is bounded. Its bytes stay in the connection's window
//! until queries may be taken: while an answer is unsent, or [`MAX_PENDING`] are awaited, none is.
//! While the port is over its limit of buffered bytes, each flow may await one answer.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::Connection;
use super::segment::Endpoints;
use super::turn::{Limits, Moved};
use crate::dns::framing::{framed, missing, take_message};
use crate::io::{Client, PortMark};

/// Answers that a flow may await.
const MAX_PENDING: usize = 64;
/// How long a flow without pending queries may be idle.
const IDLE: Duration = Duration::from_secs(10);

/// The gateway's DNS as the far end of a flow.
pub(super) struct DnsEnd {
    /// Distinguishes it from others whose flow has the same number: an answer may be late.
    pub generation: u32,
    /// The beginning of a query.
    input: Vec<u8>,
    /// Queries that were received in this turn.
    queries: Vec<Vec<u8>>,
    /// The number of answers that the guest awaits.
    pending: usize,
    /// Answers, each after its length, that the connection has no room for.
    output: VecDeque<Vec<u8>>,
    /// No query is taken any more.
    is_closing: bool,
    /// When a query was last taken, or an answer sent.
    used: Duration,
}

impl DnsEnd {
    pub(super) fn new(now: Duration, generation: u32) -> DnsEnd {
        DnsEnd {
            generation,
            input: Vec::new(),
            queries: Vec::new(),
            pending: 0,
            output: VecDeque::new(),
            is_closing: false,
            used: now,
        }
    }

    /// Sends answers, then takes queries. Closes the connection when the guest has and all answers
    /// are sent, after a refusal, and when it is idle.
    pub(super) fn exchange(
        &mut self,
        now: Duration,
        connection: &mut Connection,
        limits: &Limits,
    ) -> Moved {
        let received = self.send_answers(now, connection);
        let most = match limits.may_buffer_more {
            true => MAX_PENDING,
            false => usize::from(connection.queued() == 0),
        };
        let (mut sent, mut is_late) = (0, false);
        connection.drain(&mut |bytes| {
            is_late |= self.is_closing;
            let count = self.take(now, most, bytes);
            sent += count as u64;
            count
        });
        if limits.may_buffer_more {
            connection.autotune();
        }
        self.is_closing |= connection.is_eof_delivered();
        if self.deadline().is_some_and(|end| end <= now) {
            self.close();
        }
        if is_late {
            // The guest must not believe that its query was read (RFC 9293, 3.6.1).
            connection.abort();
        } else if self.is_closed() {
            connection.close();
        }
        Moved { sent, received, has_more: false }
    }

    /// Sends answers as far as the connection has room. Returns the bytes sent.
    fn send_answers(&mut self, now: Duration, connection: &mut Connection) -> u64 {
        let mut count = 0;
        while let Some(answer) = self.output.pop_front_if(|next| next.len() <= connection.room()) {
            count += answer.len() as u64;
            self.used = now;
            connection.push(answer);
        }
        count
    }

    /// Takes queries out of the guest's bytes, until the flow awaits `most` answers. Returns the
    /// number of bytes taken.
    fn take(&mut self, now: Duration, most: usize, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_closing && self.output.is_empty() && self.pending < most
        {
            let (part, after) = rest.split_at(missing(&self.input).min(rest.len()));
            self.input.extend_from_slice(part);
            rest = after;
            if let Some(query) = take_message(&mut self.input) {
                self.queries.push(query);
                self.pending += 1;
                self.used = now;
            }
        }
        bytes.len() - rest.len()
    }

    /// Queues the answer to a query; `None` refuses it, and all that have not been answered.
    pub(super) fn answer(&mut self, message: Option<&[u8]>) {
        match message {
            Some(message) if self.pending > 0 => {
                self.pending -= 1;
                self.output.push_back(framed(message));
            }
            Some(_) => {}
            None => (self.pending, self.is_closing) = (0, true),
        }
    }

    /// Takes the queries received, for a flow with this number.
    pub(super) fn take_queries(
        &mut self,
        number: u32,
        port: PortMark,
        ends: &Endpoints,
    ) -> impl Iterator<Item = (Client, Vec<u8>)> {
        let client = Client {
            port,
            mac: ends.mac,
            remote: (ends.guest.ip(), ends.guest.port()),
            local: (ends.remote.ip(), ends.remote.port()),
            room: u16::MAX.into(),
            stream: Some(u64::from(self.generation) << 32 | u64::from(number)),
        };
        std::mem::take(&mut self.queries).into_iter().map(move |query| (client, query))
    }

    /// Bytes that are kept.
    pub(super) fn buffered(&self) -> usize {
        self.input.len() + self.output.iter().map(Vec::len).sum::<usize>()
    }

    /// When it closes unless it is used.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (self.pending == 0 && !self.is_closed()).then_some(self.used + IDLE)
    }

    /// Closes it at once.
    pub(super) fn close(&mut self) {
        (self.input, self.output) = (Vec::new(), VecDeque::new());
        (self.pending, self.is_closing) = (0, true);
    }

    /// Whether no query is taken any more, and all answers are sent.
    fn is_closed(&self) -> bool {
        self.is_closing && self.pending == 0 && self.output.is_empty()
    }
}

#[cfg(test)]
mod tests;
