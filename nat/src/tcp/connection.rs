//! The TCP of flows: RFC 9293 as far as one end of a link inside this host needs it. Segments in,
//! segments out, data in between, time as an argument: it knows no socket, no frame and no clock.
//!
//! Sockets of a library keep two rings of fixed size for each connection, at least two pages of
//! which become resident, and copy all data into and out of them. Here, data in order goes from the
//! frame to the host's socket, data from the host is kept only until it is acknowledged, an idle
//! connection buffers nothing, and large segments are sent over IPv4 and IPv6.
//!
//! Not implemented: timestamps, which are never offered, and the use of SACK blocks from the guest.

use std::time::Duration;

use super::receiver::{Receiver, WINDOW_SCALE};
use super::segment::{Control, MAX_PARTS, Outgoing, Segment, Seq};
use super::sender::{AckResult, Sender};
use super::state::{Event, State};

/// Duration of TIME-WAIT. The link to the guest is short.
pub(super) const TIME_WAIT: Duration = Duration::from_secs(10);
/// Keep-alive (RFC 5382, REQ-5): idle time before the first probe, time between probes, and number
/// of probes without an answer until the connection is aborted.
// spec: rfc9293 MUST-28
const KEEPALIVE_IDLE: Duration = Duration::from_secs(7200);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_PROBES: u8 = 9;

/// A connection with a guest.
pub(crate) struct Connection {
    state: State,
    sender: Sender,
    receiver: Receiver,
    /// Whether we offer window scaling or, once the guest's SYN is known, both sides use it.
    window_scaling: bool,
    /// Whether SACK is offered or, once the guest's SYN is known, both sides permit it.
    sack: bool,
    local_mss: u16,
    ack_pending: bool,
    /// An acknowledgement that is not valid before the connection is synchronized. The guest means
    /// another connection; a reset with this sequence number ends that one.
    bad_ack: Option<Seq>,
    keepalive_due: bool,
    keepalive_probes: u8,
    /// When to send a keep-alive, or to end TIME-WAIT.
    idle_deadline: Duration,
}

impl Connection {
    /// Passive open: answers the guest's SYN. `mss` follows from the network's MTU.
    pub(super) fn accept(now: Duration, syn: &Segment<'_>, initial: Seq, mss: u16) -> Connection {
        let mut connection = Connection::new(now, initial, mss);
        connection.receive_syn(syn);
        connection.state = State::SynReceived;
        connection
    }

    /// Active open: connects to the guest.
    pub(super) fn connect(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection::new(now, initial, mss)
    }

    fn new(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection {
            state: State::SynSent,
            sender: Sender::new(initial, mss),
            receiver: Receiver::new(Seq(0), None),
            window_scaling: true,
            sack: true,
            local_mss: mss,
            ack_pending: false,
            bad_ack: None,
            keepalive_due: false,
            keepalive_probes: 0,
            idle_deadline: now + KEEPALIVE_IDLE,
        }
    }

    /// Handles a segment. Much data is passed to `host` at once, which returns how much the host's
    /// socket took. The rest, and small amounts, wait for [`Connection::drain`].
    pub(super) fn handle(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut impl FnMut(&[u8]) -> usize,
    ) {
        match self.state {
            state if state.is_over() => return,
            State::SynSent => self.handle_syn_sent(now, segment),
            _ => self.handle_synchronized(now, segment, host),
        }
        if self.state != State::TimeWait {
            (self.keepalive_probes, self.idle_deadline) = (0, now + KEEPALIVE_IDLE);
        }
        self.finish(now);
    }

    /// Passes buffered data to the host. Returns whether it took all.
    pub(super) fn drain(&mut self, host: &mut impl FnMut(&[u8]) -> usize) -> bool {
        self.receiver.drain(host)
    }

    /// Free space for [`Connection::push`], in bytes.
    pub(super) fn room(&self) -> usize {
        match self.state {
            State::Established | State::CloseWait => self.sender.room(),
            _ => 0,
        }
    }

    /// Maximum segment size in bytes.
    pub(super) fn segment_size(&self) -> usize {
        self.sender.mss.into()
    }

    /// Whether this sequence number was sent and is not acknowledged.
    pub(super) fn is_in_flight(&self, sequence: Seq) -> bool {
        self.sender.is_in_flight(sequence)
    }

    /// Reduces the maximum segment size to `size` bytes. Returns whether it was larger.
    pub(super) fn reduce_mss(&mut self, size: u16) -> bool {
        self.sender.reduce_mss(size)
    }

    /// Queues data for the guest.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        self.sender.push(bytes);
    }

    /// Closes the sending side: no more data follows.
    pub(super) fn close(&mut self) {
        self.sender.closed = true;
    }

    /// Ends the connection with a reset.
    pub(super) fn abort(&mut self) {
        self.advance(Event::Abort);
    }

    /// Passes at most `count` segments to `wire`, each with up to `large` bytes of data. `wire`
    /// returns false if it has no room. Returns whether nothing is left to send.
    pub(super) fn output(
        &mut self,
        now: Duration,
        (large, count): (usize, usize),
        wire: &mut impl FnMut(&Outgoing<'_>) -> bool,
    ) -> bool {
        match self.state {
            State::Reset => return true,
            State::Closed if !self.ack_pending => return true,
            State::Aborted => return self.send_reset(wire),
            State::SynSent | State::SynReceived => {
                let has_said = !self.sender.must_send_syn() || self.send_syn(now, wire);
                return has_said && self.reset_bad_ack(wire);
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
        self.sender.ensure_timer(now);
        self.finish(now);
        // spec: rfc9293 MUST-58 MUST-59, rfc5681 ack-once
        let owes = self.ack_pending || self.keepalive_due || self.receiver.needs_window_update();
        (!owes || self.send_ack(wire)) && self.sender.next_segment(large).is_none()
    }

    /// Handles expired timers.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.sender.timer.is_some_and(|at| at <= now) && !self.sender.expire(now) {
            self.abort();
        }
        if self.idle_deadline > now {
            return;
        }
        match self.state {
            State::TimeWait => self.advance(Event::TimeWaitExpired),
            state if state.is_open() && self.keepalive_probes < KEEPALIVE_PROBES => {
                // spec: rfc9293 MUST-26 MUST-29 SHLD-12
                (self.keepalive_due, self.keepalive_probes) = (true, self.keepalive_probes + 1);
                self.idle_deadline = now + KEEPALIVE_INTERVAL;
            }
            _ => self.abort(),
        }
    }

    /// When [`Connection::expire`] has to be called next.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.state {
            state if state.is_over() => None,
            State::TimeWait => Some(self.idle_deadline),
            _ => {
                Some(self.sender.timer.map_or(self.idle_deadline, |at| at.min(self.idle_deadline)))
            }
        }
    }

    /// Grows the buffers of a connection that has filled them.
    pub(super) fn autotune(&mut self) {
        self.sender.autotune();
        self.receiver.autotune(self.sender.max_buffer());
    }

    /// Bytes for the guest that it has not acknowledged.
    pub(super) fn queued(&self) -> usize {
        self.sender.queued()
    }

    /// Bytes of buffered data, either way.
    pub(super) fn buffered(&self) -> usize {
        self.sender.queued() + self.receiver.buffered()
    }

    /// The connection's state.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether the guest has closed, and the host took all data.
    pub(super) fn is_eof_delivered(&self) -> bool {
        self.receiver.is_eof_delivered()
    }

    fn receive_syn(&mut self, syn: &Segment<'_>) {
        // RFC 9293, 3.7.1: the default of a SYN without the option. The lower bound keeps a guest
        // from asking for a segment for each byte.
        // spec: rfc9293 MUST-15
        self.sender.receive_syn(syn, syn.mss.unwrap_or(536).max(64));
        self.receiver = Receiver::new(syn.sequence, syn.scale);
        (self.window_scaling, self.sack) = (syn.scale.is_some(), syn.sack);
    }

    /// RFC 9293, 3.10.7.3.
    fn handle_syn_sent(&mut self, now: Duration, segment: &Segment<'_>) {
        let fits = segment.ack.map(|ack| self.sender.acks_syn_only(ack));
        match (fits, segment.rst, segment.syn) {
            (Some(true), true, _) => self.advance(Event::RstReceived),
            (Some(true), false, true) => {
                self.receive_syn(segment);
                let ack = segment.ack.unwrap_or_default();
                self.sender.process_ack(now, segment, ack);
                self.advance(Event::SynAcked);
                self.ack_pending = true;
            }
            // spec: rfc9293 MUST-10
            // Simultaneous open.
            (None, false, true) => {
                self.receive_syn(segment);
                self.sender.rewind_to_syn();
                self.advance(Event::SynReceived);
            }
            (Some(false), false, _) => self.bad_ack = segment.ack,
            _ => {}
        }
    }

    /// RFC 9293, 3.10.7.4, with the challenge ACKs of RFC 5961.
    fn handle_synchronized(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut impl FnMut(&[u8]) -> usize,
    ) {
        if !self.receiver.is_acceptable(segment) {
            if segment.syn && self.state == State::SynReceived {
                self.sender.rewind_to_syn();
            } else {
                self.ack_pending |= !segment.rst;
            }
            return;
        }
        // spec: rfc9293 SHLD-2 MUST-66
        if segment.rst && segment.sequence == self.receiver.rcv_nxt {
            self.receive_rst();
            return;
        }
        let ack = match segment.ack {
            _ if segment.rst || segment.syn => {
                self.ack_pending = true;
                return;
            }
            None => return,
            Some(ack) => ack,
        };
        if self.state == State::SynReceived && !self.sender.acks_syn_only(ack) {
            self.bad_ack = Some(ack);
            return;
        }
        if self.sender.process_ack(now, segment, ack) == AckResult::BeyondSent {
            self.ack_pending = true;
            return;
        }
        self.advance(Event::SynAcked);
        if self.sender.is_fin_acked() {
            self.advance(Event::FinAcked);
        }
        if !segment.payload.is_empty() || segment.fin {
            self.ack_pending = true;
            // spec: rfc9293 MUST-40 SHLD-19, rfc5681 ack-out-of-order ack-gap ack-delay ack-second
            self.receiver.receive(segment, host);
            if self.receiver.fin_received {
                self.advance(Event::FinReceived);
            }
        }
    }

    /// A reset ends the connection, and data that the host has not read yet is lost. Once both FINs
    /// are acknowledged, it changes nothing: a guest that has forgotten the connection resets late
    /// segments, and the host still gets all data (RFC 9293, 3.10.7.4, from CLOSING on).
    fn receive_rst(&mut self) {
        match self.state {
            State::Closing | State::LastAck if self.sender.is_fin_acked() => {}
            _ => self.advance(Event::RstReceived),
        }
    }

    /// Ends the connection once both FINs are acknowledged and the host took all data.
    fn finish(&mut self, now: Duration) {
        if matches!(self.state, State::Closing | State::LastAck)
            && self.sender.is_fin_acked()
            && self.receiver.is_eof_delivered()
        {
            self.advance(Event::Done);
            self.idle_deadline = now + TIME_WAIT;
        }
    }

    /// Changes the state; nothing else does.
    fn advance(&mut self, event: Event) {
        self.state = self.state.after(event);
    }

    fn send_syn(&mut self, now: Duration, wire: &mut impl FnMut(&Outgoing<'_>) -> bool) -> bool {
        let is_answer = self.state == State::SynReceived;
        let window = if is_answer { self.receiver.advertised_window(true) } else { u16::MAX };
        let segment = Outgoing {
            sequence: self.sender.snd_nxt,
            ack: is_answer.then_some(self.receiver.rcv_nxt),
            window,
            control: Control::Syn {
                mss: self.local_mss,
                scale: self.window_scaling.then_some(WINDOW_SCALE),
                sack: self.sack,
            },
            ..Outgoing::default()
        };
        let sent = wire(&segment);
        if sent {
            self.sender.syn_sent(now);
            self.ack_pending = false;
        }
        sent
    }

    /// Sends a segment with data or FIN. `None`: there is none to send.
    fn send_data(
        &mut self,
        now: Duration,
        large: usize,
        wire: &mut impl FnMut(&Outgoing<'_>) -> bool,
    ) -> Option<bool> {
        let mut next = self.sender.next_segment(large)?;
        let window = self.receiver.advertised_window(false);
        let mut parts = [&[][..]; MAX_PARTS];
        let (count, len) = self.sender.gather(next, &mut parts);
        if len < next.len {
            (next.len, next.fin) = (len, false);
        }
        let is_last = next.offset + next.len == self.sender.queued();
        let segment = Outgoing {
            sequence: next.sequence,
            ack: Some(self.receiver.rcv_nxt),
            window,
            control: match (next.fin, is_last) {
                (true, _) => Control::Fin,
                // spec: rfc9293 MUST-60 MUST-61
                (false, true) => Control::Push,
                _ => Control::None,
            },
            parts: &parts[..count],
            mss: self.sender.mss,
            ..Outgoing::default()
        };
        let sent = wire(&segment);
        if sent {
            self.sender.segment_sent(now, next);
            if next.fin {
                self.advance(Event::FinSent);
            }
            // A segment with data has no room for SACK blocks, so these need an ACK of their own.
            self.ack_pending &= self.receiver.has_out_of_order();
        }
        Some(sent)
    }

    fn send_ack(&mut self, wire: &mut impl FnMut(&Outgoing<'_>) -> bool) -> bool {
        // A retransmission does not change this number; the guest would not accept an older one.
        let sequence =
            if self.keepalive_due { self.sender.keepalive_seq() } else { self.sender.snd_max };
        let window = self.receiver.advertised_window(false);
        let ack = Some(self.receiver.rcv_nxt);
        // spec: rfc2018 only-if-permitted always all-acks
        let sack = if self.sack { self.receiver.sack_blocks() } else { Default::default() };
        let sent = wire(&Outgoing { sequence, ack, window, sack, ..Outgoing::default() });
        if sent {
            (self.ack_pending, self.keepalive_due) = (false, false);
        }
        sent
    }

    /// Resets the connection that the guest takes this one for.
    fn reset_bad_ack(&mut self, wire: &mut impl FnMut(&Outgoing<'_>) -> bool) -> bool {
        let Some(sequence) = self.bad_ack else { return true };
        let sent = wire(&Outgoing { sequence, control: Control::Rst, ..Outgoing::default() });
        if sent {
            self.bad_ack = None;
        }
        sent
    }

    fn send_reset(&mut self, wire: &mut impl FnMut(&Outgoing<'_>) -> bool) -> bool {
        let (sequence, ack) = (self.sender.snd_max, Some(self.receiver.rcv_nxt));
        let control = Control::Rst;
        let sent = wire(&Outgoing { sequence, ack, control, ..Outgoing::default() });
        if sent {
            self.advance(Event::RstSent);
        }
        sent
    }
}
