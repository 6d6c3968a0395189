//! The half of a connection that receives: window, order, and what the host has not taken yet.
//!
//! Much data in order goes to the host at once, from the frame. A little waits for the end of the
//! turn, so that many small segments are one call of the host's; what the host does not take waits
//! here, too, as long as the window that the machine was promised.

use std::collections::VecDeque;

use super::segment::{Islands, Segment, Seq};

/// The window that a connection begins with.
const FIRST_WINDOW: usize = 64 << 10;
/// Bytes that are worth a call of the host's; to copy them would cost more.
const WORTH_A_CALL: usize = 16 << 10;
/// Pieces kept that came before their turn; what follows one is put to it.
const MAX_EARLY: usize = 64;
/// The scale of our windows: shifts the largest one, of 4 MiB, into 16 bits.
pub(super) const SCALE: u8 = 7;

pub(super) struct Receiver {
    /// What comes next.
    pub next: Seq,
    /// The end of the window that was promised.
    edge: Seq,
    scale: u8,
    /// How much may wait.
    limit: usize,
    /// Bytes taken since the limit last grew.
    taken: usize,
    /// In order, but not yet taken by the host.
    held: VecDeque<u8>,
    /// Ahead of their turn, by sequence number, not overlapping.
    early: Vec<(Seq, Vec<u8>)>,
    /// Where the piece begins that came last of those.
    newest: Seq,
    fin: Option<Seq>,
    /// The machine has sent everything.
    pub is_finished: bool,
}

impl Receiver {
    /// `initial` is the sequence number of the machine's SYN.
    pub fn new(initial: Seq, scale: Option<u8>) -> Receiver {
        let next = initial + 1;
        Receiver {
            next,
            edge: next,
            scale: if scale.is_some() { SCALE } else { 0 },
            limit: FIRST_WINDOW,
            taken: 0,
            held: VecDeque::new(),
            early: Vec::new(),
            newest: next,
            fin: None,
            is_finished: false,
        }
    }

    /// Whether any of the segment is inside the window (RFC 9293, 3.10.7.4).
    pub fn accepts(&self, segment: &Segment<'_>) -> bool {
        let (first, len) = (segment.sequence, segment.len());
        let inside = |seq: Seq| seq - self.next >= 0 && seq - self.edge < 0;
        if len == 0 || self.edge == self.next {
            return first == self.next || inside(first);
        }
        inside(first)
            || inside(first + (len - 1))
            || (first - self.next < 0 && (first + len) - self.next > 0)
    }

    /// Takes the data of an acceptable segment. `host` says how much of it the host has taken.
    pub fn take(&mut self, segment: &Segment<'_>, host: &mut dyn FnMut(&[u8]) -> usize) {
        let end = segment.sequence + segment.payload.len();
        if segment.fin && end - self.edge <= 0 {
            self.fin = Some(end);
        }
        let old = self.next.since(segment.sequence).min(segment.payload.len());
        let first = segment.sequence + old;
        let room = self.edge.since(first).min(segment.payload.len() - old);
        let payload = &segment.payload[old..old + room];
        if first == self.next {
            self.advance(payload, host);
            self.take_early(host);
        } else if !payload.is_empty() {
            self.keep_early(first, payload);
        }
        if self.fin == Some(self.next) && !self.is_finished {
            self.next = self.next + 1;
            self.is_finished = true;
        }
    }

    fn advance(&mut self, payload: &[u8], host: &mut dyn FnMut(&[u8]) -> usize) {
        let goes_on = payload.len() >= WORTH_A_CALL && self.drain(host);
        let taken = if goes_on { host(payload) } else { 0 };
        self.held.extend(&payload[taken..]);
        self.next = self.next + payload.len();
        self.taken += taken;
    }

    fn keep_early(&mut self, first: Seq, payload: &[u8]) {
        let at = self.early.partition_point(|(seq, _)| *seq - first < 0);
        let before = at.checked_sub(1).map(|index| &self.early[index]);
        let covered = before.map_or(0, |(seq, bytes)| (*seq + bytes.len()).since(first));
        let next = self.early.get(at).map_or(payload.len(), |(seq, _)| seq.since(first));
        let end = payload.len().min(next);
        // One that reaches over a later piece is cut at it: the rest comes again if it is missed.
        let Some(fresh) = payload.get(covered..end).filter(|fresh| !fresh.is_empty()) else {
            return;
        };
        let start = first + covered;
        let follows = before.is_some_and(|(seq, bytes)| *seq + bytes.len() == start);
        if follows && let Some((seq, bytes)) = self.early.get_mut(at - 1) {
            self.newest = *seq;
            bytes.extend_from_slice(fresh);
        } else if self.early.len() < MAX_EARLY {
            self.newest = start;
            self.early.insert(at, (start, fresh.to_vec()));
        }
    }

    /// Whether there is something that came before its turn.
    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// From where to where there is data beyond what comes next: first where the last of it came, then
    /// the farthest (RFC 2018, 4).
    pub fn islands(&self) -> Islands {
        let mut islands = Islands::default();
        let mut all: Vec<(Seq, Seq)> = Vec::new();
        for (first, bytes) in &self.early {
            let end = *first + bytes.len();
            match all.last_mut() {
                Some(last) if last.1 == *first => last.1 = end,
                _ => all.push((*first, end)),
            }
        }
        let newest = all.iter().position(|(_, end)| *end - self.newest > 0);
        let newest = newest.map(|at| all.remove(at));
        for (place, island) in
            islands.iter_mut().zip(newest.into_iter().chain(all.into_iter().rev()))
        {
            *place = Some(island);
        }
        islands
    }

    fn take_early(&mut self, host: &mut dyn FnMut(&[u8]) -> usize) {
        while let Some((first, _)) = self.early.first()
            && *first - self.next <= 0
        {
            let (first, bytes) = self.early.remove(0);
            let old = self.next.since(first).min(bytes.len());
            self.advance(&bytes[old..], host);
        }
    }

    /// Has the host take what waits; true: all of it.
    pub fn drain(&mut self, host: &mut dyn FnMut(&[u8]) -> usize) -> bool {
        while !self.held.is_empty() {
            let taken = host(self.held.as_slices().0);
            if taken == 0 {
                return false;
            }
            self.held.drain(..taken);
            self.taken += taken;
        }
        self.held = VecDeque::new();
        true
    }

    /// Whether the machine has sent everything, and the host has it.
    pub fn has_ended(&self) -> bool {
        self.is_finished && self.held.is_empty()
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.held.len() + self.early.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// Doubles the window once the host has taken as much as it is, up to `largest`.
    pub fn grow(&mut self, largest: usize) {
        if self.taken >= self.limit && self.held.is_empty() {
            // No larger than what can be said of it.
            let largest = largest.min(usize::from(u16::MAX) << self.scale);
            self.limit = (self.limit * 2).min(largest).max(self.limit);
            self.taken = 0;
        }
    }

    /// Where the window could end now.
    fn possible_edge(&self) -> Seq {
        self.next + self.limit.saturating_sub(self.held.len())
    }

    /// Whether the machine should hear that there is room again.
    pub fn has_news(&self) -> bool {
        let (known, possible) = (self.edge.since(self.next), self.possible_edge());
        !self.is_finished && known < self.limit / 4 && possible.since(self.next) >= self.limit / 2
    }

    /// The window to promise now. What was promised is never taken back (RFC 9293, 3.8.6).
    pub fn promise(&mut self, is_syn: bool) -> u16 {
        let scale = if is_syn { 0 } else { self.scale };
        let possible = self.possible_edge();
        let wanted = if possible - self.edge > 0 { possible } else { self.edge };
        let window = (wanted.since(self.next) >> scale).min(usize::from(u16::MAX));
        let promised = self.next + (window << scale);
        if promised - self.edge > 0 {
            self.edge = promised;
        }
        window as u16
    }
}
