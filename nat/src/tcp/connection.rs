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
use super::state::State;

/// Duration of TIME-WAIT. The link to the guest is short.
const TIME_WAIT: Duration = Duration::from_secs(10);
/// Keep-alive (RFC 5382, REQ-5): idle time before the first probe, time between probes, and number
/// of probes without an answer until the connection is aborted.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(7200);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_PROBES: u8 = 9;

/// A connection with a guest.
pub(crate) struct Connection {
    state: Phase,
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
    /// We sent our FIN before the guest's was received.
    active_close: bool,
    keepalive_due: bool,
    keepalive_probes: u8,
    /// When to send a keep-alive, or to end TIME-WAIT.
    idle_deadline: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Our SYN is sent or about to be.
    SynSent,
    /// The guest's SYN is received, and answered with ours.
    SynReceived,
    Open,
    TimeWait,
    Closed,
    /// A reset has to be sent.
    Aborted,
    Broken,
}

impl Connection {
    /// Passive open: answers the guest's SYN. `mss` follows from the network's MTU.
    pub fn accept(now: Duration, syn: &Segment<'_>, initial: Seq, mss: u16) -> Connection {
        let mut connection = Connection::new(now, initial, mss);
        connection.receive_syn(syn);
        connection.state = Phase::SynReceived;
        connection
    }

    /// Active open: connects to the guest.
    pub fn connect(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection::new(now, initial, mss)
    }

    fn new(now: Duration, initial: Seq, mss: u16) -> Connection {
        Connection {
            state: Phase::SynSent,
            sender: Sender::new(initial, mss),
            receiver: Receiver::new(Seq(0), None),
            window_scaling: true,
            sack: true,
            local_mss: mss,
            ack_pending: false,
            bad_ack: None,
            active_close: false,
            keepalive_due: false,
            keepalive_probes: 0,
            idle_deadline: now + KEEPALIVE_IDLE,
        }
    }

    /// Handles a segment. Much data is passed to `host` at once, which returns how much the host's
    /// socket took. The rest, and small amounts, wait for [`Connection::drain`].
    pub fn handle(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        host: &mut impl FnMut(&[u8]) -> usize,
    ) {
        match self.state {
            Phase::SynSent => self.handle_syn_sent(now, segment),
            Phase::SynReceived | Phase::Open | Phase::TimeWait => {
                self.handle_synchronized(now, segment, host);
            }
            Phase::Closed | Phase::Aborted | Phase::Broken => return,
        }
        if self.state != Phase::TimeWait {
            (self.keepalive_probes, self.idle_deadline) = (0, now + KEEPALIVE_IDLE);
        }
        if self.state == Phase::Open {
            self.update_close(now);
        }
    }

    /// Passes buffered data to the host. Returns whether it took all.
    pub fn drain(&mut self, host: &mut impl FnMut(&[u8]) -> usize) -> bool {
        self.receiver.drain(host)
    }

    /// Free space for [`Connection::push`], in bytes.
    pub fn room(&self) -> usize {
        if self.state == Phase::Open { self.sender.room() } else { 0 }
    }

    /// Maximum segment size in bytes.
    pub fn segment_size(&self) -> usize {
        self.sender.mss.into()
    }

    /// Whether this sequence number was sent and is not acknowledged.
    pub fn is_in_flight(&self, sequence: Seq) -> bool {
        self.sender.is_in_flight(sequence)
    }

    /// Reduces the maximum segment size to `size` bytes. Returns whether it was larger.
    pub fn reduce_mss(&mut self, size: u16) -> bool {
        self.sender.reduce_mss(size)
    }

    /// Queues data for the guest.
    pub fn push(&mut self, bytes: Vec<u8>) {
        self.sender.push(bytes);
    }

    /// Closes the sending side: no more data follows.
    pub fn close(&mut self) {
        self.sender.closed = true;
    }

    /// Ends the connection with a reset.
    pub fn abort(&mut self) {
        if !matches!(self.state, Phase::Closed | Phase::Broken | Phase::TimeWait) {
            self.state = Phase::Aborted;
        }
    }

    /// Passes at most `count` segments to `wire`, each with up to `large` bytes of data. `wire`
    /// returns false if it has no room. Returns whether nothing is left to send.
    pub fn output(
        &mut self,
        now: Duration,
        (large, count): (usize, usize),
        wire: &mut impl FnMut(&Outgoing<'_>) -> bool,
    ) -> bool {
        match self.state {
            Phase::Closed | Phase::Broken if !self.ack_pending => return true,
            Phase::Aborted => return self.send_reset(wire),
            Phase::SynSent | Phase::SynReceived => {
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
        self.update_close(now);
        let owes = self.ack_pending || self.keepalive_due || self.receiver.needs_window_update();
        (!owes || self.send_ack(wire)) && self.sender.next_segment(large).is_none()
    }

    /// Handles expired timers.
    pub fn expire(&mut self, now: Duration) {
        if self.sender.timer.is_some_and(|at| at <= now) && !self.sender.expire(now) {
            self.abort();
        }
        if self.idle_deadline > now {
            return;
        }
        match self.state {
            Phase::TimeWait => self.state = Phase::Closed,
            Phase::Open if self.keepalive_probes < KEEPALIVE_PROBES => {
                (self.keepalive_due, self.keepalive_probes) = (true, self.keepalive_probes + 1);
                self.idle_deadline = now + KEEPALIVE_INTERVAL;
            }
            _ => self.abort(),
        }
    }

    /// When [`Connection::expire`] has to be called next.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            Phase::Closed | Phase::Aborted | Phase::Broken => None,
            Phase::TimeWait => Some(self.idle_deadline),
            _ => {
                Some(self.sender.timer.map_or(self.idle_deadline, |at| at.min(self.idle_deadline)))
            }
        }
    }

    /// Grows the buffers of a connection that has filled them.
    pub fn autotune(&mut self) {
        self.sender.autotune();
        self.receiver.autotune(self.sender.max_buffer());
    }

    /// Bytes of buffered data.
    pub fn buffered(&self) -> usize {
        self.sender.queued() + self.receiver.buffered()
    }

    /// The connection's state.
    pub fn state(&self) -> State {
        match self.state {
            Phase::SynSent | Phase::SynReceived => State::Opening,
            Phase::Open if self.receiver.is_eof_delivered() && self.sender.is_fin_sent() => {
                State::Closing { time_wait: false }
            }
            Phase::Open => State::Open { peer_closed: self.receiver.is_eof_delivered() },
            Phase::TimeWait => State::Closing { time_wait: true },
            Phase::Closed => State::Closed,
            Phase::Aborted | Phase::Broken => State::Broken,
        }
    }

    fn receive_syn(&mut self, syn: &Segment<'_>) {
        // RFC 9293, 3.7.1: the default of a SYN without the option. The lower bound keeps a guest
        // from asking for a segment for each byte.
        self.sender.receive_syn(syn, syn.mss.unwrap_or(536).max(64));
        self.receiver = Receiver::new(syn.sequence, syn.scale);
        (self.window_scaling, self.sack) = (syn.scale.is_some(), syn.sack);
    }

    /// RFC 9293, 3.10.7.3.
    fn handle_syn_sent(&mut self, now: Duration, segment: &Segment<'_>) {
        let fits = segment.ack.map(|ack| self.sender.acks_syn_only(ack));
        match (fits, segment.rst, segment.syn) {
            (Some(true), true, _) => self.state = Phase::Broken,
            (Some(true), false, true) => {
                self.receive_syn(segment);
                let ack = segment.ack.unwrap_or_default();
                self.sender.process_ack(now, segment, ack);
                self.state = Phase::Open;
                self.ack_pending = true;
            }
            // Simultaneous open.
            (None, false, true) => {
                self.receive_syn(segment);
                self.sender.rewind_to_syn();
                self.state = Phase::SynReceived;
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
            if segment.syn && self.state == Phase::SynReceived {
                self.sender.rewind_to_syn();
            } else {
                self.ack_pending |= !segment.rst;
            }
            return;
        }
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
        if self.state == Phase::SynReceived && !self.sender.acks_syn_only(ack) {
            self.bad_ack = Some(ack);
            return;
        }
        if self.sender.process_ack(now, segment, ack) == AckResult::BeyondSent {
            self.ack_pending = true;
            return;
        }
        if self.state == Phase::SynReceived {
            self.state = Phase::Open;
        }
        if !segment.payload.is_empty() || segment.fin {
            self.ack_pending = true;
            self.receiver.receive(segment, host);
        }
        self.update_close(now);
    }

    /// A reset ends the connection, and data that the host has not read yet is lost. Once both FINs
    /// are acknowledged, it changes nothing: a guest that has forgotten the connection resets late
    /// segments, and the host still gets all data (RFC 9293, 3.10.7.4, from CLOSING on).
    fn receive_rst(&mut self) {
        let is_over = self.sender.is_fin_acked() && self.receiver.fin_received;
        match self.state {
            Phase::TimeWait => self.state = Phase::Closed,
            _ if is_over => {}
            _ => self.state = Phase::Broken,
        }
    }

    /// Ends the connection once both sides have closed and all data is acknowledged.
    fn update_close(&mut self, now: Duration) {
        if self.state != Phase::Open {
            return;
        }
        if self.sender.is_fin_sent() && !self.receiver.fin_received {
            self.active_close = true;
        }
        if self.sender.is_fin_acked() && self.receiver.is_eof_delivered() {
            self.state = if self.active_close { Phase::TimeWait } else { Phase::Closed };
            self.idle_deadline = now + TIME_WAIT;
        }
    }

    fn send_syn(&mut self, now: Duration, wire: &mut impl FnMut(&Outgoing<'_>) -> bool) -> bool {
        let is_answer = self.state == Phase::SynReceived;
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
            self.state = Phase::Broken;
        }
        sent
    }
}
