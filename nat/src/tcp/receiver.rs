//! The receiving side of a connection: window, reordering, and data that the host has not taken
//! yet.
//!
//! Much data in order is passed to the host at once, from the frame. Small amounts are buffered
//! until the end of the turn, so that many small segments become one write. Data that the host does
//! not take is buffered, up to the advertised window.

use std::collections::VecDeque;

use super::segment::{SackBlocks, Segment, Seq};

/// Size of the window at first.
const INITIAL_WINDOW: usize = 64 << 10;
/// Bytes from which on a write of their own is cheaper than a copy.
const MIN_DIRECT_WRITE: usize = 16 << 10;
/// Out-of-order blocks that are kept; data that continues one is added to it.
const MAX_OUT_OF_ORDER: usize = 64;
/// The window scale that we offer (RFC 7323): the largest window, 4 MiB, shifted into 16 bits.
pub(super) const WINDOW_SCALE: u8 = 7;

pub(super) struct Receiver {
    /// RCV.NXT.
    pub rcv_nxt: Seq,
    /// The right edge of the advertised window.
    rcv_adv: Seq,
    rcv_wscale: u8,
    /// Bytes that may be buffered.
    buffer_limit: usize,
    /// Bytes that the host took since the limit last grew.
    delivered: usize,
    /// Data in order that the host has not taken.
    in_order: VecDeque<u8>,
    /// Out-of-order data by sequence number, without overlaps.
    out_of_order: Vec<(Seq, Vec<u8>)>,
    /// Start of the block that grew last.
    latest: Seq,
    fin_seq: Option<Seq>,
    /// The guest's FIN was received, and all data before it.
    pub fin_received: bool,
}

impl Receiver {
    /// `initial` is the sequence number of the guest's SYN.
    pub(super) fn new(initial: Seq, scale: Option<u8>) -> Receiver {
        let rcv_nxt = initial + 1;
        Receiver {
            rcv_nxt,
            rcv_adv: rcv_nxt,
            rcv_wscale: if scale.is_some() { WINDOW_SCALE } else { 0 },
            buffer_limit: INITIAL_WINDOW,
            delivered: 0,
            in_order: VecDeque::new(),
            out_of_order: Vec::new(),
            latest: rcv_nxt,
            fin_seq: None,
            fin_received: false,
        }
    }

    /// Whether part of the segment is inside the window (RFC 9293, 3.10.7.4).
    pub(super) fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        let (first, len) = (segment.sequence, segment.len());
        let inside = |seq: Seq| seq - self.rcv_nxt >= 0 && seq - self.rcv_adv < 0;
        if len == 0 || self.rcv_adv == self.rcv_nxt {
            return first == self.rcv_nxt || inside(first);
        }
        inside(first)
            || inside(first + (len - 1))
            || (first - self.rcv_nxt < 0 && (first + len) - self.rcv_nxt > 0)
    }

    /// Takes the data of an acceptable segment. `host` returns how much the host took. Nothing
    /// follows a FIN (RFC 9293, 3.10.7.4).
    pub(super) fn receive(&mut self, segment: &Segment<'_>, host: &mut impl FnMut(&[u8]) -> usize) {
        if self.fin_received {
            return;
        }
        let end = segment.sequence + segment.payload.len();
        if segment.fin && end - self.rcv_adv <= 0 {
            self.fin_seq = Some(end);
        }
        let old = self.rcv_nxt.since(segment.sequence).min(segment.payload.len());
        let first = segment.sequence + old;
        let room = self.rcv_adv.since(first).min(segment.payload.len() - old);
        let payload = &segment.payload[old..old + room];
        if first == self.rcv_nxt {
            self.deliver(payload, host);
            self.deliver_contiguous(host);
        } else if !payload.is_empty() {
            // spec: rfc9293 SHLD-31
            self.queue_out_of_order(first, payload);
        }
        if self.fin_seq == Some(self.rcv_nxt) && !self.fin_received {
            self.rcv_nxt = self.rcv_nxt + 1;
            self.fin_received = true;
        }
    }

    fn deliver(&mut self, payload: &[u8], host: &mut impl FnMut(&[u8]) -> usize) {
        let goes_on = payload.len() >= MIN_DIRECT_WRITE && self.drain(host);
        let taken = if goes_on { host(payload) } else { 0 };
        self.in_order.extend(&payload[taken..]);
        self.rcv_nxt = self.rcv_nxt + payload.len();
        self.delivered += taken;
    }

    fn queue_out_of_order(&mut self, first: Seq, payload: &[u8]) {
        let at = self.out_of_order.partition_point(|(seq, _)| *seq - first < 0);
        let before = at.checked_sub(1).map(|index| &self.out_of_order[index]);
        let covered = before.map_or(0, |(seq, bytes)| (*seq + bytes.len()).since(first));
        let next = self.out_of_order.get(at).map_or(payload.len(), |(seq, _)| seq.since(first));
        let end = payload.len().min(next);
        // Data that reaches over a later block is cut there; the guest sends the rest again if it
        // is missing.
        let Some(fresh) = payload.get(covered..end).filter(|fresh| !fresh.is_empty()) else {
            return;
        };
        let start = first + covered;
        let follows = before.is_some_and(|(seq, bytes)| *seq + bytes.len() == start);
        if follows && let Some((seq, bytes)) = self.out_of_order.get_mut(at - 1) {
            self.latest = *seq;
            bytes.extend_from_slice(fresh);
        } else if self.out_of_order.len() < MAX_OUT_OF_ORDER {
            self.latest = start;
            self.out_of_order.insert(at, (start, fresh.to_vec()));
        }
    }

    /// Whether there is out-of-order data.
    pub(super) fn has_out_of_order(&self) -> bool {
        !self.out_of_order.is_empty()
    }

    /// SACK blocks: the one that grew last, then the others from the highest down (RFC 2018, 4).
    pub(super) fn sack_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let mut all: Vec<(Seq, Seq)> = Vec::new();
        for (first, bytes) in &self.out_of_order {
            let end = *first + bytes.len();
            match all.last_mut() {
                Some(last) if last.1 == *first => last.1 = end,
                _ => all.push((*first, end)),
            }
        }
        // spec: rfc2018 first-block
        let newest = all.iter().position(|(_, end)| *end - self.latest > 0);
        let newest = newest.map(|at| all.remove(at));
        for (place, block) in blocks.iter_mut().zip(newest.into_iter().chain(all.into_iter().rev()))
        {
            *place = Some(block);
        }
        blocks
    }

    fn deliver_contiguous(&mut self, host: &mut impl FnMut(&[u8]) -> usize) {
        while let Some((first, _)) = self.out_of_order.first()
            && *first - self.rcv_nxt <= 0
        {
            let (first, bytes) = self.out_of_order.remove(0);
            let old = self.rcv_nxt.since(first).min(bytes.len());
            self.deliver(&bytes[old..], host);
        }
    }

    /// Passes buffered data to the host. Returns whether it took all.
    pub(super) fn drain(&mut self, host: &mut impl FnMut(&[u8]) -> usize) -> bool {
        while !self.in_order.is_empty() {
            let taken = host(self.in_order.as_slices().0);
            if taken == 0 {
                return false;
            }
            self.in_order.drain(..taken);
            self.delivered += taken;
        }
        self.in_order = VecDeque::new();
        true
    }

    /// Whether the guest has closed, and the host took all data.
    pub(super) fn is_eof_delivered(&self) -> bool {
        self.fin_received && self.in_order.is_empty()
    }

    /// Buffered bytes.
    pub(super) fn buffered(&self) -> usize {
        self.in_order.len() + self.out_of_order.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// Doubles the window, up to `largest`, once the host took a whole window.
    pub(super) fn autotune(&mut self, largest: usize) {
        if self.delivered >= self.buffer_limit && self.in_order.is_empty() {
            // No larger than the window field can express.
            let largest = largest.min(usize::from(u16::MAX) << self.rcv_wscale);
            self.buffer_limit = (self.buffer_limit * 2).min(largest).max(self.buffer_limit);
            self.delivered = 0;
        }
    }

    /// Where the window could end now.
    fn window_end(&self) -> Seq {
        self.rcv_nxt + self.buffer_limit.saturating_sub(self.in_order.len())
    }

    /// Whether the guest should be told that the window has opened.
    pub(super) fn needs_window_update(&self) -> bool {
        // spec: rfc9293 MUST-39
        let (known, window_end) = (self.rcv_adv.since(self.rcv_nxt), self.window_end());
        !self.fin_received
            && known < self.buffer_limit / 4
            && window_end.since(self.rcv_nxt) >= self.buffer_limit / 2
    }

    /// The window to advertise now. It never shrinks (RFC 9293, 3.8.6).
    pub(super) fn advertised_window(&mut self, is_syn: bool) -> u16 {
        let scale = if is_syn { 0 } else { self.rcv_wscale };
        let window_end = self.window_end();
        // spec: rfc9293 SHLD-14
        let wanted = if window_end - self.rcv_adv > 0 { window_end } else { self.rcv_adv };
        let window = (wanted.since(self.rcv_nxt) >> scale).min(usize::from(u16::MAX));
        let advertised = self.rcv_nxt + (window << scale);
        if advertised - self.rcv_adv > 0 {
            self.rcv_adv = advertised;
        }
        window as u16
    }
}
