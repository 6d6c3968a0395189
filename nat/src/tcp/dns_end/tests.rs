//! Guests that ask over TCP, against the far end and a connection.

use super::*;
use crate::tcp::segment::{Control, Outgoing, Segment, Seq};
use crate::tcp::state::State;

const T0: Duration = Duration::ZERO;
const OURS: Seq = Seq(u32::MAX - 5);
const THEIRS: Seq = Seq(u32::MAX - 3);

/// A connection of a guest with the gateway's DNS.
struct Lab {
    connection: Connection,
    dns: DnsEnd,
    now: Duration,
    may_buffer_more: bool,
    /// Bytes that the guest has sent, and bytes that it has acknowledged.
    sent: usize,
    acked: usize,
}

impl Lab {
    fn new() -> Lab {
        let segment = Segment { sequence: THEIRS, syn: true, window: 60_000, ..Segment::default() };
        let connection = Connection::accept(T0, &segment, OURS, 1460);
        let dns = DnsEnd::new(T0, 1);
        let mut lab = Lab { connection, dns, now: T0, may_buffer_more: true, sent: 0, acked: 0 };
        lab.output();
        lab.send(&[], false);
        assert_eq!(lab.connection.state(), State::Established);
        lab
    }

    /// Sends a segment of the guest, which acknowledges all that it has read.
    fn send(&mut self, bytes: &[u8], fin: bool) {
        let segment = Segment {
            sequence: THEIRS + 1 + self.sent,
            ack: Some(OURS + 1 + self.acked),
            window: 60_000,
            fin,
            payload: bytes,
            ..Segment::default()
        };
        self.connection.handle(self.now, &segment, &mut |_| 0);
        self.sent += bytes.len() + usize::from(fin);
    }

    /// The data sent to the guest, and whether the connection ended with it.
    fn output(&mut self) -> (Vec<u8>, bool) {
        let (mut data, mut has_ended) = (Vec::new(), false);
        self.connection.output(self.now, (65_000, 100), &mut |segment: &Outgoing<'_>| {
            data.extend(segment.parts.concat());
            has_ended |= matches!(segment.control, Control::Fin | Control::Rst);
            true
        });
        (data, has_ended)
    }

    /// Takes a turn. Returns the queries taken.
    fn turn(&mut self) -> Vec<Vec<u8>> {
        let limits = Limits { large: 65_000, may_buffer_more: self.may_buffer_more };
        self.dns.exchange(self.now, &mut self.connection, &limits);
        self.dns.queries.drain(..).collect()
    }

    /// Sends bytes of the guest. Returns the queries in them.
    fn write(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.send(bytes, false);
        self.turn()
    }

    /// Lets the guest read all. Returns what it reads, and whether the connection ended.
    fn read(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            self.turn();
            let (data, has_ended) = self.output();
            all.extend_from_slice(&data);
            if has_ended || data.is_empty() {
                return (all, has_ended);
            }
            self.acked += data.len();
            self.send(&[], false);
        }
    }
}

#[test]
fn queries_are_split_and_pipelined() {
    let mut lab = Lab::new();
    assert_eq!(lab.write(b"\0"), [b""; 0]);
    assert_eq!(lab.write(b"\x03on"), [b""; 0]);
    assert_eq!(lab.write(b"e\0\x03two\0\0\0"), [&b"one"[..], b"two", b""]);
    lab.dns.answer(Some(b"second"));
    lab.dns.answer(Some(b"first"));
    assert_eq!(lab.read(), (b"\0\x06second\0\x05first".to_vec(), false));
    // The guest closes, and still receives the answer that it waits for.
    lab.send(&[], true);
    assert_eq!(lab.read(), (Vec::new(), false));
    lab.dns.answer(Some(b"third"));
    assert_eq!(lab.read(), (b"\0\x05third".to_vec(), true));
    assert_eq!(lab.connection.state(), State::LastAck);
}

#[test]
fn a_guest_that_closes_without_a_pending_query_is_answered_at_once() {
    let mut lab = Lab::new();
    assert_eq!(lab.write(b"\0\x03on"), [b""; 0]);
    lab.send(&[], true);
    assert_eq!(lab.read(), (Vec::new(), true), "the rest of the query cannot come");
    assert_eq!(lab.connection.state(), State::LastAck);
}

#[test]
fn a_guest_that_does_not_read_cannot_send_more_queries() {
    let mut lab = Lab::new();
    assert_eq!(lab.write(&b"\0\x01?".repeat(200)).len(), MAX_PENDING);
    assert_eq!(lab.turn().len(), 0, "none is answered");
    lab.dns.answer(Some(b"!"));
    assert_eq!(lab.turn().len(), 1);
    let (long, mut asked) = (vec![7; 65_535], 0);
    for _ in 0..20 {
        lab.dns.answer(Some(&long));
        asked += lab.turn().len();
    }
    assert!(asked < 11, "the guest has room for all of it");
    assert!(lab.dns.buffered() + lab.connection.buffered() < 21 * (long.len() + 2));
    let (answers, has_ended) = lab.read();
    assert_eq!((answers.len(), has_ended), (3 + 20 * (long.len() + 2), false));
    lab.dns.answer(None);
    assert!(lab.read().1, "it is closed");
    lab.dns.answer(Some(b"late"));
    assert_eq!(lab.dns.buffered(), 0);
}

#[test]
fn a_refusal_follows_the_answers_before_it() {
    let mut lab = Lab::new();
    assert_eq!(lab.write(&b"\0\x01?".repeat(3)).len(), 3);
    lab.dns.answer(Some(b"!"));
    lab.dns.answer(None);
    lab.dns.answer(Some(b"late"));
    assert_eq!(lab.read(), (b"\0\x01!".to_vec(), true));
    assert_eq!(lab.connection.state(), State::FinWait1);
    assert_eq!(lab.dns.deadline(), None);
}

#[test]
fn an_idle_guest_is_closed() {
    let mut lab = Lab::new();
    // A flow with a pending query is not idle.
    assert_eq!(lab.dns.deadline(), Some(IDLE));
    lab.write(b"\0\x01?");
    assert_eq!(lab.dns.deadline(), None);
    lab.now = IDLE;
    assert_eq!(lab.read(), (Vec::new(), false));
    lab.dns.answer(Some(b"!"));
    assert_eq!(lab.read(), (b"\0\x01!".to_vec(), false));
    assert_eq!(lab.dns.deadline(), Some(2 * IDLE));
    lab.now = 2 * IDLE;
    assert_eq!(lab.read(), (Vec::new(), true));
    assert_eq!(lab.connection.state(), State::FinWait1);
    // A query that comes too late was not read.
    lab.write(b"\0\x01?");
    assert!(lab.read().1);
    assert_eq!(lab.connection.state(), State::Reset);
}

#[test]
fn a_port_over_its_buffer_limit_awaits_one_answer_at_a_time() {
    let mut lab = Lab::new();
    lab.may_buffer_more = false;
    assert_eq!(lab.write(&b"\0\x01?".repeat(3)).len(), 1);
    lab.dns.answer(Some(b"!"));
    assert_eq!(lab.turn().len(), 0, "the guest has not acknowledged its answer");
    lab.acked += lab.output().0.len();
    lab.send(&[], false);
    assert_eq!(lab.turn().len(), 1);
}
