//! The TCP that flows use: RFC 9293 as far as one end of a wire inside this machine needs it.
//!
//! Why not a library's: one keeps rings of a fixed size for each connection, of which two pages
//! at least become real, and copies everything into and out of them. Here data in order goes from
//! the frame to the host's socket, what the host sends is kept only until it is acknowledged, an
//! idle connection keeps nothing, and large segments go out over both versions of IP.
//!
//! Not here: selective acknowledgement and time stamps, which are never offered.

use std::time::Duration;

use super::engine::{Engine, State};
use super::receiver::{Receiver, SCALE};
use super::segment::{Control, MAX_PARTS, Outgoing, Segment, Seq};
use super::sender::{Sender, Verdict};

/// How long a closed connection answers what comes late. The wire is short.
const LINGER: Duration = Duration::from_secs(10);
/// After so long a silence the machine is asked whether it is there (RFC 5382, REQ-5), and how
/// often and how many times if it does not answer.
const SILENCE: Duration = Duration::from_secs(7200);
const ASK: Duration = Duration::from_secs(75);
const MAX_ASKED: u8 = 9;

/// A connection.
pub(crate) struct Connection {
    state: Phase,
    sender: Sender,
    receiver: Receiver,
    /// Whether we offer, or have been offered, window scaling.
    scale: bool,
    /// Both understand selective acknowledgements.
    sack: bool,
    own_mss: u16,
    owes_ack: bool,
    /// What the machine acknowledged while there was nothing to acknowledge: it means another
    /// connection, and a reset of that number ends it.
    refused: Option<Seq>,
    /// We were the first to close.
    closed_first: bool,
    asks: bool,
    asked: u8,
    /// When to ask whether the machine is there, or to forget the connection.
    silence_ends: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Our SYN waits for the machine's.
    Calling,
    /// The machine's SYN is answered.
    Answering,
    Open,
    Lingering,
    Done,
    /// A reset is to be sent.
    Aborted,
    Broken,
}

impl Connection {
    /// Answers the machine's SYN. `mss` is what the network's packets hold.
    pub fn answer(now: Duration, syn: &Segment<'_>, initial: Seq, mss: u16) -> Connection {
        let mut connection = Connection::new(now, initial, mss);
        connection.hear_syn(syn);
        connection.state = Phase::Answering;
        connection
    }

    /// Calls the machine.
    pub fn call(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection::new(now, initial, mss)
    }

    fn new(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection {
            state: Phase::Calling,
            sender: Sender::new(initial, mss),
            receiver: Receiver::new(Seq(0), None),
            scale: true,
            sack: true,
            own_mss: mss,
            owes_ack: false,
            refused: None,
            closed_first: false,
            asks: false,
            asked: 0,
            silence_ends: now + SILENCE,
        }
    }

    fn hear_syn(&mut self, syn: &Segment<'_>) {
        // RFC 9293, 3.7.1: what is assumed of one that says nothing. Less than any IP must carry
        // would make a segment of each byte.
        self.sender.greet(syn, syn.mss.unwrap_or(536).max(64));
        self.receiver = Receiver::new(syn.sequence, syn.scale);
        (self.scale, self.sack) = (syn.scale.is_some(), syn.sack);
    }

    /// RFC 9293, 3.10.7.3.
    fn handle_call(&mut self, now: Duration, segment: &Segment<'_>) {
        let fits = segment.ack.map(|ack| ack == self.sender.old() + 2);
        match (fits, segment.rst, segment.syn) {
            (Some(true), true, _) => self.state = Phase::Broken,
            (Some(true), false, true) => {
                self.hear_syn(segment);
                let ack = segment.ack.unwrap_or_default();
                self.sender.acknowledge(now, segment, ack);
                self.state = Phase::Open;
                self.owes_ack = true;
            }
            // Both call each other.
            (None, false, true) => {
                self.hear_syn(segment);
                self.sender.next = self.sender.old() + 1;
                self.state = Phase::Answering;
            }
            (Some(false), false, _) => self.refused = segment.ack,
            _ => {}
        }
    }

    /// RFC 9293, 3.10.7.4, with the answers of RFC 5961 to what may be forged.
    fn handle_open(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut dyn FnMut(&[u8]) -> usize,
    ) {
        if !self.receiver.accepts(segment) {
            if segment.syn && self.state == Phase::Answering {
                self.sender.next = self.sender.old() + 1;
            } else {
                self.owes_ack |= !segment.rst;
            }
            return;
        }
        if segment.rst && segment.sequence == self.receiver.next {
            self.hear_reset();
            return;
        }
        let ack = match segment.ack {
            _ if segment.rst || segment.syn => {
                self.owes_ack = true;
                return;
            }
            None => return,
            Some(ack) => ack,
        };
        if self.state == Phase::Answering && ack != self.sender.old() + 2 {
            self.refused = Some(ack);
            return;
        }
        if self.sender.acknowledge(now, segment, ack) == Verdict::TooNew {
            self.owes_ack = true;
            return;
        }
        if self.state == Phase::Answering {
            self.state = Phase::Open;
        }
        if !segment.payload.is_empty() || segment.fin {
            self.owes_ack = true;
            self.receiver.take(segment, host);
        }
        self.settle(now);
    }

    /// A reset ends the connection, and what the host was still to have. Once both ends are
    /// acknowledged there is nothing to break off: a machine that has forgotten the connection
    /// answers what comes late, and the host still gets all (RFC 9293, 3.10.7.4, CLOSING on).
    fn hear_reset(&mut self) {
        let is_over = self.sender.is_finished() && self.receiver.is_finished;
        match self.state {
            Phase::Lingering => self.state = Phase::Done,
            _ if is_over => {}
            _ => self.state = Phase::Broken,
        }
    }

    /// Ends the connection once both have said all.
    fn settle(&mut self, now: Duration) {
        if self.state != Phase::Open {
            return;
        }
        if self.sender.has_sent_fin() && !self.receiver.is_finished {
            self.closed_first = true;
        }
        if self.sender.is_finished() && self.receiver.has_ended() {
            self.state = if self.closed_first { Phase::Lingering } else { Phase::Done };
            self.silence_ends = now + LINGER;
        }
    }

    fn send_syn(&mut self, now: Duration, wire: &mut dyn FnMut(&Outgoing<'_>) -> bool) -> bool {
        let is_answer = self.state == Phase::Answering;
        let window = if is_answer { self.receiver.promise(true) } else { u16::MAX };
        let segment = Outgoing {
            sequence: self.sender.next,
            ack: is_answer.then_some(self.receiver.next),
            window,
            control: Control::Syn {
                mss: self.own_mss,
                scale: self.scale.then_some(SCALE),
                sack: self.sack,
            },
            ..Outgoing::default()
        };
        let sent = wire(&segment);
        if sent {
            self.sender.sent_syn(now);
            self.owes_ack = false;
        }
        sent
    }

    /// Sends a piece of data; `None`: there is none.
    fn send_data(
        &mut self,
        now: Duration,
        large: usize,
        wire: &mut dyn FnMut(&Outgoing<'_>) -> bool,
    ) -> Option<bool> {
        let mut piece = self.sender.piece(large)?;
        let window = self.receiver.promise(false);
        let mut parts = [&[][..]; MAX_PARTS];
        let (count, len) = self.sender.data(piece, &mut parts);
        if len < piece.len {
            (piece.len, piece.fin) = (len, false);
        }
        let is_last = piece.offset + piece.len == self.sender.queued();
        let segment = Outgoing {
            sequence: piece.sequence,
            ack: Some(self.receiver.next),
            window,
            control: match (piece.fin, is_last) {
                (true, _) => Control::Fin,
                (false, true) => Control::Push,
                _ => Control::None,
            },
            parts: &parts[..count],
            mss: self.sender.mss,
            ..Outgoing::default()
        };
        let sent = wire(&segment);
        if sent {
            self.sender.sent(now, piece);
            // What came early is told apart: with data there is no room for it.
            self.owes_ack &= self.receiver.has_early();
        }
        Some(sent)
    }

    fn send_ack(&mut self, wire: &mut dyn FnMut(&Outgoing<'_>) -> bool) -> bool {
        // What follows all that was sent, even while it is sent again: anything older is refused.
        let sequence = if self.asks { self.sender.old() } else { self.sender.end };
        let window = self.receiver.promise(false);
        let ack = Some(self.receiver.next);
        let islands = if self.sack { self.receiver.islands() } else { Default::default() };
        let sent = wire(&Outgoing { sequence, ack, window, islands, ..Outgoing::default() });
        if sent {
            (self.owes_ack, self.asks) = (false, false);
        }
        sent
    }

    /// Resets what the machine takes this connection for.
    fn refuse(&mut self, wire: &mut dyn FnMut(&Outgoing<'_>) -> bool) -> bool {
        let Some(sequence) = self.refused else { return true };
        let sent = wire(&Outgoing { sequence, control: Control::Rst, ..Outgoing::default() });
        if sent {
            self.refused = None;
        }
        sent
    }

    fn send_reset(&mut self, wire: &mut dyn FnMut(&Outgoing<'_>) -> bool) -> bool {
        let (sequence, ack) = (self.sender.end, Some(self.receiver.next));
        let control = Control::Rst;
        let sent = wire(&Outgoing { sequence, ack, control, ..Outgoing::default() });
        if sent {
            self.state = Phase::Broken;
        }
        sent
    }
}

impl Engine for Connection {
    fn handle(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut dyn FnMut(&[u8]) -> usize,
    ) {
        match self.state {
            Phase::Calling => self.handle_call(now, segment),
            Phase::Answering | Phase::Open | Phase::Lingering => {
                self.handle_open(now, segment, host);
            }
            Phase::Done | Phase::Aborted | Phase::Broken => return,
        }
        if self.state != Phase::Lingering {
            (self.asked, self.silence_ends) = (0, now + SILENCE);
        }
        if self.state == Phase::Open {
            self.settle(now);
        }
    }

    fn drain(&mut self, host: &mut dyn FnMut(&[u8]) -> usize) -> bool {
        self.receiver.drain(host)
    }

    fn room(&self) -> usize {
        if self.state == Phase::Open { self.sender.room() } else { 0 }
    }

    fn segment_size(&self) -> usize {
        self.sender.mss.into()
    }

    fn is_on_its_way(&self, sequence: Seq) -> bool {
        self.sender.is_on_its_way(sequence)
    }

    fn narrow(&mut self, size: u16) -> bool {
        self.sender.narrow(size)
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.sender.push(bytes);
    }

    fn finish(&mut self) {
        self.sender.fin = true;
    }

    fn abort(&mut self) {
        if !matches!(self.state, Phase::Done | Phase::Broken | Phase::Lingering) {
            self.state = Phase::Aborted;
        }
    }

    fn output(
        &mut self,
        now: Duration,
        (large, count): (usize, usize),
        wire: &mut dyn FnMut(&Outgoing<'_>) -> bool,
    ) -> bool {
        match self.state {
            Phase::Done | Phase::Broken if !self.owes_ack => return true,
            Phase::Aborted => return self.send_reset(wire),
            Phase::Calling | Phase::Answering => {
                let has_said = !self.sender.owes_syn() || self.send_syn(now, wire);
                return has_said && self.refuse(wire);
            }
            _ => {}
        }
        for _ in 0..count {
            match self.send_data(now, large, wire) {
                None => break,
                Some(false) => return false,
                Some(true) => {}
            }
        }
        self.sender.watch(now);
        self.settle(now);
        let owes = self.owes_ack || self.asks || self.receiver.has_news();
        (!owes || self.send_ack(wire)) && self.sender.piece(large).is_none()
    }

    fn expire(&mut self, now: Duration) {
        if self.sender.timer.is_some_and(|at| at <= now) && !self.sender.expire(now) {
            self.abort();
        }
        if self.silence_ends > now {
            return;
        }
        match self.state {
            Phase::Lingering => self.state = Phase::Done,
            Phase::Open if self.asked < MAX_ASKED => {
                (self.asks, self.asked) = (true, self.asked + 1);
                self.silence_ends = now + ASK;
            }
            _ => self.abort(),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self.state {
            Phase::Done | Phase::Aborted | Phase::Broken => None,
            Phase::Lingering => Some(self.silence_ends),
            _ => Some(self.sender.timer.map_or(self.silence_ends, |at| at.min(self.silence_ends))),
        }
    }

    fn grow(&mut self) {
        self.sender.grow();
        self.receiver.grow(self.sender.largest());
    }

    fn kept(&self) -> usize {
        self.sender.queued() + self.receiver.waiting()
    }

    fn state(&self) -> State {
        match self.state {
            Phase::Calling | Phase::Answering => State::Opening,
            Phase::Open if self.receiver.has_ended() && self.sender.has_sent_fin() => {
                State::Closing { lingers: false }
            }
            Phase::Open => State::Open { ended: self.receiver.has_ended() },
            Phase::Lingering => State::Closing { lingers: true },
            Phase::Done => State::Done,
            Phase::Aborted | Phase::Broken => State::Broken,
        }
    }
}
