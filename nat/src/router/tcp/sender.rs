//! The half of a connection that sends: what waits for its acknowledgement, the machine's window,
//! congestion (RFC 5681, NewReno as in RFC 6582) and retransmission (RFC 6298).

use std::collections::VecDeque;
use std::time::Duration;

use super::segment::{MAX_PARTS, Segment, Seq};

/// Data that may be queued at first.
const FIRST_LIMIT: usize = 128 << 10;
/// Data that may be under way, either way: so much is a gigabyte a second to a machine at hand, and
/// what the rings to the switch hold. One that is farther than [`FAR`] is given more.
const NEAR_LIMIT: usize = 1 << 20;
const FAR_LIMIT: usize = 4 << 20;
const FAR: Duration = Duration::from_millis(2);
/// What is no longer is put to the piece before it, as long as that stays this short: a piece has a
/// cost beside its bytes, and a segment has room for few.
const CRUMB: usize = 2 << 10;
const PIECE: usize = 16 << 10;
/// The congestion window at first, in segments (RFC 6928).
const FIRST_BURST: usize = 10;
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Machines delay acknowledgements by up to 40 ms or so.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(200);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the same is sent without an answer: over 100 s (RFC 9293, 3.8.3).
const MAX_TRIES: u8 = 10;

/// What to send next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub sequence: Seq,
    /// Its place in the queue.
    pub offset: usize,
    pub len: usize,
    pub fin: bool,
}

/// What an acknowledgement was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Fine,
    /// Of what was not sent.
    TooNew,
}

pub(super) struct Sender {
    initial: Seq,
    /// The oldest that is not acknowledged.
    unacked: Seq,
    /// What is sent next; goes back to be sent again.
    pub next: Seq,
    /// The end of all that was sent.
    pub end: Seq,
    /// What the machine said last of its window, and in which segment.
    window: usize,
    window_from: (Seq, Seq),
    scale: u8,
    pub mss: u16,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that are acknowledged.
    done: usize,
    queued: usize,
    limit: usize,
    acked: usize,
    /// Nothing is pushed any more.
    pub fin: bool,
    /// The sequence number of the FIN, once it was sent.
    fin_at: Option<Seq>,
    congestion: usize,
    threshold: usize,
    duplicates: u32,
    /// While lost data is being repaired: the end of what was sent when the loss showed.
    recover: Option<Seq>,
    resend: bool,
    rtt: Option<(Duration, Duration)>,
    /// The shortest round trip seen: what is longer may be the time spent behind our own data.
    shortest: Option<Duration>,
    timing: Option<(Seq, Duration)>,
    timeout: Duration,
    tries: u8,
    pub timer: Option<Duration>,
    probe: bool,
}

impl Sender {
    pub fn new(initial: Seq, mss: u16) -> Sender {
        Sender {
            initial,
            unacked: initial,
            next: initial,
            end: initial,
            window: 0,
            window_from: (Seq(0), initial),
            scale: 0,
            mss,
            queue: VecDeque::new(),
            done: 0,
            queued: 0,
            limit: FIRST_LIMIT,
            acked: 0,
            fin: false,
            fin_at: None,
            congestion: FIRST_BURST * usize::from(mss),
            threshold: usize::MAX,
            duplicates: 0,
            recover: None,
            resend: false,
            rtt: None,
            shortest: None,
            timing: None,
            timeout: FIRST_TIMEOUT,
            tries: 0,
            timer: None,
            probe: false,
        }
    }

    /// Learns from the machine's SYN.
    pub fn greet(&mut self, segment: &Segment<'_>, mss: u16) {
        self.scale = segment.scale.unwrap_or(0);
        self.mss = self.mss.min(mss);
        self.window = segment.window.into();
        self.window_from = (segment.sequence, self.initial);
        self.congestion = FIRST_BURST * usize::from(self.mss);
    }

    pub fn is_greeted(&self) -> bool {
        self.unacked != self.initial
    }

    /// Whether the SYN is to be sent, for the first time or again.
    pub fn owes_syn(&self) -> bool {
        self.next == self.initial
    }

    /// Notes that the SYN was sent.
    pub fn sent_syn(&mut self, now: Duration) {
        if self.end == self.initial {
            self.timing = Some((self.initial, now));
        }
        self.next = self.initial + 1;
        self.end = self.next;
        self.arm(now);
    }

    /// Bytes that [`Sender::push`] takes gladly.
    pub fn room(&self) -> usize {
        if self.fin { 0 } else { self.limit.saturating_sub(self.queued) }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn push(&mut self, mut bytes: Vec<u8>) {
        self.queued += bytes.len();
        match self.queue.back_mut() {
            Some(last) if bytes.len() <= CRUMB && last.len() + bytes.len() <= PIECE => {
                last.append(&mut bytes);
            }
            _ => self.queue.push_back(bytes),
        }
    }

    /// Doubles the limit once as much as it is was acknowledged.
    pub fn grow(&mut self) {
        if self.acked >= self.limit {
            self.limit = (self.limit * 2).min(self.largest()).max(self.limit);
            self.acked = 0;
        }
    }

    /// Bytes that may be under way at most.
    pub fn largest(&self) -> usize {
        let is_far = self.shortest.is_some_and(|time| time >= FAR);
        if is_far { FAR_LIMIT } else { NEAR_LIMIT }
    }

    /// Whether all is acknowledged, the FIN too.
    pub fn is_finished(&self) -> bool {
        self.fin_at.is_some_and(|fin| self.unacked - fin > 0)
    }

    /// Whether the FIN has been sent.
    pub fn has_sent_fin(&self) -> bool {
        self.fin_at.is_some()
    }

    /// Takes an acknowledgement and the window beside it.
    pub fn acknowledge(&mut self, now: Duration, segment: &Segment<'_>, ack: Seq) -> Verdict {
        if ack - self.end > 0 {
            return Verdict::TooNew;
        }
        let flight = self.end.since(self.unacked);
        if ack - self.unacked > 0 {
            self.advance(now, ack, flight);
        } else if ack == self.unacked && self.is_duplicate(segment) {
            self.duplicate(flight);
        }
        if ack - self.unacked >= 0 {
            self.hear_window(now, segment, ack);
        }
        Verdict::Fine
    }

    fn hear_window(&mut self, now: Duration, segment: &Segment<'_>, ack: Seq) {
        let (sequence, acknowledged) = self.window_from;
        let newer = segment.sequence - sequence;
        if newer > 0 || (newer == 0 && ack - acknowledged >= 0) || !self.is_greeted() {
            let scale = if segment.syn { 0 } else { self.scale };
            let window = usize::from(segment.window) << scale;
            if self.window == 0 && window > 0 {
                (self.tries, self.timer) = (0, None);
            }
            self.window = window;
            self.window_from = (segment.sequence, ack);
        }
        if self.window == 0 {
            // It answers: it may keep its window shut for as long as it likes (RFC 9293, 3.8.6.1).
            self.tries = self.tries.min(MAX_TRIES / 2);
        }
        self.watch(now);
    }

    /// Has the timer run if something is to be repeated, or the window to be asked for.
    pub fn watch(&mut self, now: Duration) {
        let waits = self.window == 0 && self.queued > 0 && self.is_greeted();
        if self.timer.is_none() && (waits || self.end - self.unacked > 0) {
            self.arm(now);
        }
    }

    /// RFC 5681, 2.
    fn is_duplicate(&self, segment: &Segment<'_>) -> bool {
        self.end != self.unacked
            && self.window > 0
            && segment.len() == 0
            && usize::from(segment.window) << self.scale == self.window
    }

    fn advance(&mut self, now: Duration, ack: Seq, flight: usize) {
        let count = ack.since(self.unacked);
        let syn = usize::from(!self.is_greeted());
        self.release((count - syn).min(self.queued));
        self.acked += count;
        self.measure(now, ack);
        self.unacked = ack;
        if self.next - ack < 0 {
            self.next = ack;
        }
        (self.tries, self.duplicates) = (0, 0);
        match self.recover {
            Some(recover) if ack - recover < 0 => self.resend = true,
            Some(_) => {
                self.recover = None;
                self.congestion = self.threshold;
            }
            None => self.open_up(count, flight),
        }
        self.timer = None;
        if self.end - ack > 0 {
            self.arm(now);
        }
    }

    /// Lets more be on its way, if all that might be was.
    fn open_up(&mut self, count: usize, flight: usize) {
        if 2 * flight < self.congestion {
            return;
        }
        let mss = usize::from(self.mss);
        self.congestion += match self.congestion < self.threshold {
            true => count,
            false => (mss * count / self.congestion).max(1),
        };
        self.congestion = self.congestion.min(2 * FAR_LIMIT);
    }

    fn duplicate(&mut self, flight: usize) {
        self.duplicates += 1;
        if self.duplicates == 3 && self.recover.is_none() {
            self.threshold = (flight / 2).max(2 * usize::from(self.mss));
            self.congestion = self.threshold;
            self.recover = Some(self.end);
            self.resend = true;
            // Not a round trip any more (Karn).
            self.timing = None;
        }
    }

    fn release(&mut self, mut count: usize) {
        self.queued -= count;
        while count > 0
            && let Some(first) = self.queue.front()
        {
            let left = first.len() - self.done;
            if count < left {
                self.done += count;
                return;
            }
            count -= left;
            self.done = 0;
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn measure(&mut self, now: Duration, ack: Seq) {
        let Some((sequence, sent)) = self.timing else { return };
        if ack - sequence <= 0 {
            return;
        }
        self.timing = None;
        let sample = now.saturating_sub(sent);
        self.shortest = self.shortest.into_iter().chain([sample]).min();
        let (smooth, deviation) = match self.rtt {
            None => (sample, sample / 2),
            Some((smooth, deviation)) => {
                ((smooth * 7 + sample) / 8, (deviation * 3 + smooth.abs_diff(sample)) / 4)
            }
        };
        self.rtt = Some((smooth, deviation));
        self.timeout = (smooth + deviation * 4).clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT);
    }

    fn arm(&mut self, now: Duration) {
        let pause = self.timeout * 2u32.pow(self.tries.min(8).into());
        self.timer = Some(now + pause.min(LONGEST_TIMEOUT));
    }

    /// The timer has run out. False: the machine is gone.
    pub fn expire(&mut self, now: Duration) -> bool {
        self.tries += 1;
        self.timer = None;
        if self.tries > MAX_TRIES {
            return false;
        }
        self.timing = None;
        if self.window == 0 && self.is_greeted() && self.queued > 0 {
            self.probe = true;
        } else if self.end - self.unacked > 0 {
            let mss = usize::from(self.mss);
            if self.tries == 1 {
                self.threshold = (self.end.since(self.unacked) / 2).max(2 * mss);
            }
            (self.congestion, self.recover, self.resend) = (mss, None, false);
            self.next = self.unacked;
        }
        self.arm(now);
        true
    }

    /// Whether what has this sequence number was sent and is not acknowledged.
    pub fn is_on_its_way(&self, sequence: Seq) -> bool {
        sequence - self.unacked >= 0 && sequence - self.end < 0
    }

    /// The way takes segments of at most `mss` bytes. True: they were larger; what is on its way is
    /// sent again at once, beginning slowly (RFC 1191, 6.4).
    pub fn narrow(&mut self, mss: u16) -> bool {
        if mss >= self.mss || !self.is_greeted() {
            return false;
        }
        self.mss = mss;
        self.congestion = FIRST_BURST * usize::from(mss);
        (self.recover, self.resend, self.timing) = (None, false, None);
        self.next = self.unacked;
        true
    }

    /// What to send now, up to `large` bytes at once.
    pub fn piece(&self, large: usize) -> Option<Piece> {
        if !self.is_greeted() || self.is_finished() {
            return None;
        }
        let mss = usize::from(self.mss);
        if self.probe && self.queued > 0 {
            return Some(self.at(0, 1));
        }
        if self.resend {
            let lost = self.recover.map_or(mss, |recover| recover.since(self.unacked));
            return Some(self.at(0, lost.min(large).min(self.queued)));
        }
        let offset = self.next.since(self.unacked);
        let unsent = self.queued.saturating_sub(offset);
        let usable = self.window.min(self.congestion).saturating_sub(offset);
        let mut len = unsent.min(usable).min(large);
        if len < unsent {
            // Whole segments as long as there is more; a small window waits (RFC 9293, 3.8.6.2.1).
            len = if len >= mss {
                len - len % mss
            } else if offset == 0 {
                len
            } else {
                0
            };
        }
        let piece = self.at(offset, len);
        let owes_fin = piece.fin && offset <= self.queued;
        (len > 0 || owes_fin).then_some(piece)
    }

    fn at(&self, offset: usize, len: usize) -> Piece {
        let fin = self.fin && offset + len == self.queued;
        Piece { sequence: self.unacked + offset, offset, len, fin }
    }

    /// The data of a piece, as far as `parts` suffice; its length.
    pub fn data<'a>(&'a self, piece: Piece, parts: &mut [&'a [u8]; MAX_PARTS]) -> (usize, usize) {
        let (mut skip, mut left, mut count) = (self.done + piece.offset, piece.len, 0);
        for bytes in &self.queue {
            if left == 0 || count == parts.len() {
                break;
            }
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let end = bytes.len().min(skip + left);
            parts[count] = &bytes[skip..end];
            left -= end - skip;
            (skip, count) = (0, count + 1);
        }
        (count, piece.len - left)
    }

    /// Notes that a piece was sent.
    pub fn sent(&mut self, now: Duration, piece: Piece) {
        let end = piece.sequence + piece.len + usize::from(piece.fin);
        if self.probe {
            self.probe = false;
        } else if self.resend {
            self.resend = false;
        } else {
            self.next = end;
        }
        if piece.fin {
            self.fin_at = Some(piece.sequence + piece.len);
        }
        if end - self.end > 0 {
            if self.timing.is_none() && self.end == piece.sequence {
                self.timing = Some((piece.sequence, now));
            }
            self.end = end;
        }
        self.watch(now);
    }

    /// A sequence number that the machine has had already, for a question whether it is there.
    pub fn old(&self) -> Seq {
        Seq(self.unacked.0.wrapping_sub(1))
    }
}
