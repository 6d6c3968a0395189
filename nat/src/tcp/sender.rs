//! The sending side of a connection: the retransmission queue, the guest's window, congestion
//! control (RFC 5681 with the NewReno of RFC 6582) and the retransmission timer (RFC 6298).

use std::collections::VecDeque;
use std::time::Duration;

use super::segment::{MAX_PARTS, Segment, Seq};

/// Bytes that may be queued at first.
const INITIAL_BUFFER: usize = 128 << 10;
/// Most bytes in flight or buffered, either way: enough for a gigabyte a second to a guest on this
/// host, and as much as the rings to the switch hold. A guest whose RTT is at least [`LONG_RTT`]
/// gets more.
const MAX_BUFFER: usize = 1 << 20;
const MAX_BUFFER_LONG_RTT: usize = 4 << 20;
const LONG_RTT: Duration = Duration::from_millis(2);
/// Data up to this length is appended to the buffer before it, as long as that stays below
/// `COALESCED_MAX`: a buffer has a fixed cost, and a segment has room for few.
const COALESCE_BELOW: usize = 2 << 10;
const COALESCED_MAX: usize = 16 << 10;
/// Initial congestion window in segments (RFC 6928).
const INITIAL_WINDOW: usize = 10;
// spec: rfc6298 2.1
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// Guests delay ACKs by up to about 40 ms.
const MIN_RTO: Duration = Duration::from_millis(200);
// spec: rfc6298 2.5
const MAX_RTO: Duration = Duration::from_secs(60);
/// Retransmissions without an answer, over more than 100 s (RFC 9293, 3.8.3).
// spec: rfc9293 SHLD-11 MUST-22 MUST-23
const MAX_RETRIES: u8 = 10;

/// The next segment to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NextSegment {
    pub sequence: Seq,
    /// Offset of its data from SND.UNA.
    pub offset: usize,
    pub len: usize,
    pub fin: bool,
}

/// Whether an acknowledgement was valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AckResult {
    Accepted,
    /// It acknowledges what was not sent.
    BeyondSent,
}

pub(super) struct Sender {
    iss: Seq,
    /// SND.UNA: the oldest unacknowledged sequence number.
    snd_una: Seq,
    /// SND.NXT: the next to send; moves back for a retransmission.
    pub snd_nxt: Seq,
    /// The end of all that was ever sent.
    pub snd_max: Seq,
    /// SND.WND, SND.WL1 and SND.WL2: the guest's window, and the segment that updated it last.
    snd_wnd: usize,
    snd_wl1: Seq,
    snd_wl2: Seq,
    snd_wscale: u8,
    pub mss: u16,
    queue: VecDeque<Vec<u8>>,
    /// Bytes at the front of the queue that are acknowledged.
    front_acked: usize,
    queued: usize,
    buffer_limit: usize,
    acked_since_growth: usize,
    /// No more data will be queued.
    pub closed: bool,
    /// The sequence number of the FIN, once it was sent.
    fin_seq: Option<Seq>,
    cwnd: usize,
    ssthresh: usize,
    dup_acks: u32,
    /// In fast recovery: the value of `snd_max` when the loss was detected (RFC 6582).
    recover: Option<Seq>,
    retransmit: bool,
    srtt: Option<Duration>,
    rttvar: Duration,
    /// The shortest RTT seen. Longer ones may include queueing behind our own data.
    min_rtt: Option<Duration>,
    rtt_sample: Option<(Seq, Duration)>,
    rto: Duration,
    retries: u8,
    pub timer: Option<Duration>,
    window_probe: bool,
}

impl Sender {
    pub(super) fn new(initial: Seq, mss: u16) -> Sender {
        Sender {
            iss: initial,
            snd_una: initial,
            snd_nxt: initial,
            snd_max: initial,
            snd_wnd: 0,
            snd_wl1: Seq(0),
            snd_wl2: initial,
            snd_wscale: 0,
            mss,
            queue: VecDeque::new(),
            front_acked: 0,
            queued: 0,
            buffer_limit: INITIAL_BUFFER,
            acked_since_growth: 0,
            closed: false,
            fin_seq: None,
            cwnd: INITIAL_WINDOW * usize::from(mss),
            // spec: rfc5681 initial-ssthresh
            ssthresh: usize::MAX,
            dup_acks: 0,
            recover: None,
            retransmit: false,
            srtt: None,
            rttvar: Duration::ZERO,
            min_rtt: None,
            rtt_sample: None,
            rto: INITIAL_RTO,
            retries: 0,
            timer: None,
            window_probe: false,
        }
    }

    /// Takes window, scale and MSS from the guest's SYN.
    pub(super) fn receive_syn(&mut self, segment: &Segment<'_>, mss: u16) {
        self.snd_wscale = segment.scale.unwrap_or(0);
        // spec: rfc9293 MUST-16
        self.mss = self.mss.min(mss);
        self.snd_wnd = segment.window.into();
        (self.snd_wl1, self.snd_wl2) = (segment.sequence, self.iss);
        self.cwnd = INITIAL_WINDOW * usize::from(self.mss);
    }

    pub(super) fn is_synchronized(&self) -> bool {
        self.snd_una != self.iss
    }

    /// Whether the SYN has to be sent, for the first time or again.
    pub(super) fn must_send_syn(&self) -> bool {
        self.snd_nxt == self.iss
    }

    /// Notes that the SYN was sent.
    pub(super) fn syn_sent(&mut self, now: Duration) {
        if self.snd_max == self.iss {
            self.rtt_sample = Some((self.iss, now));
        }
        self.snd_nxt = self.iss + 1;
        self.snd_max = self.snd_nxt;
        self.arm_timer(now);
    }

    /// Free space for [`Sender::push`], in bytes.
    pub(super) fn room(&self) -> usize {
        if self.closed { 0 } else { self.buffer_limit.saturating_sub(self.queued) }
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn push(&mut self, mut bytes: Vec<u8>) {
        self.queued += bytes.len();
        // spec: rfc9293 SHLD-27
        match self.queue.back_mut() {
            Some(last)
                if bytes.len() <= COALESCE_BELOW && last.len() + bytes.len() <= COALESCED_MAX =>
            {
                last.append(&mut bytes);
            }
            _ => self.queue.push_back(bytes),
        }
    }

    /// Doubles the limit once that many bytes were acknowledged.
    pub(super) fn autotune(&mut self) {
        if self.acked_since_growth >= self.buffer_limit {
            self.buffer_limit =
                (self.buffer_limit * 2).min(self.max_buffer()).max(self.buffer_limit);
            self.acked_since_growth = 0;
        }
    }

    /// The largest limit for the RTT seen.
    pub(super) fn max_buffer(&self) -> usize {
        let is_long = self.min_rtt.is_some_and(|time| time >= LONG_RTT);
        if is_long { MAX_BUFFER_LONG_RTT } else { MAX_BUFFER }
    }

    /// Whether all data and the FIN are acknowledged.
    pub(super) fn is_fin_acked(&self) -> bool {
        self.fin_seq.is_some_and(|fin| self.snd_una - fin > 0)
    }

    /// Handles the acknowledgement and window of a segment.
    pub(super) fn process_ack(
        &mut self,
        now: Duration,
        segment: &Segment<'_>,
        ack: Seq,
    ) -> AckResult {
        if ack - self.snd_max > 0 {
            return AckResult::BeyondSent;
        }
        let (flight, advances) = (self.snd_max.since(self.snd_una), ack - self.snd_una > 0);
        if advances {
            self.ack_new_data(now, ack, flight);
        } else if ack == self.snd_una && self.is_duplicate(segment) {
            self.count_dup_ack(flight);
        }
        if ack - self.snd_una >= 0 {
            self.update_window(now, segment, ack, advances);
        }
        AckResult::Accepted
    }

    /// RFC 9293, 3.10.7.4, where a segment with an older sequence number never updates the window.
    /// But an acknowledgement that advances is new, on a retransmitted segment, too. Without its
    /// window, the old one would be taken to begin at the new number, and reach too far.
    fn update_window(&mut self, now: Duration, segment: &Segment<'_>, ack: Seq, advances: bool) {
        let newer = segment.sequence - self.snd_wl1;
        let is_new = advances || newer > 0 || (newer == 0 && ack - self.snd_wl2 >= 0);
        if is_new || !self.is_synchronized() {
            let scale = if segment.syn { 0 } else { self.snd_wscale };
            // spec: rfc9293 MUST-1 REC-1
            let window = usize::from(segment.window) << scale;
            if self.snd_wnd == 0 && window > 0 {
                (self.retries, self.timer) = (0, None);
            }
            self.snd_wnd = window;
            (self.snd_wl1, self.snd_wl2) = (segment.sequence, ack);
        }
        if self.snd_wnd == 0 {
            // spec: rfc9293 MUST-37 SHLD-17
            // A guest that answers may keep its window closed forever (RFC 9293, 3.8.6.1).
            self.retries = self.retries.min(MAX_RETRIES / 2);
        }
        self.ensure_timer(now);
    }

    /// Starts the timer if data is in flight, or a closed window has to be probed.
    pub(super) fn ensure_timer(&mut self, now: Duration) {
        // spec: rfc9293 MUST-35 MUST-36 SHLD-29, rfc6298 5.1
        let waits = self.snd_wnd == 0 && self.queued > 0 && self.is_synchronized();
        if self.timer.is_none() && (waits || self.snd_max - self.snd_una > 0) {
            self.arm_timer(now);
        }
    }

    /// RFC 5681, 2.
    fn is_duplicate(&self, segment: &Segment<'_>) -> bool {
        // spec: rfc5681 duplicate
        self.snd_max != self.snd_una
            && self.snd_wnd > 0
            && segment.len() == 0
            && usize::from(segment.window) << self.snd_wscale == self.snd_wnd
    }

    fn ack_new_data(&mut self, now: Duration, ack: Seq, flight: usize) {
        let count = ack.since(self.snd_una);
        let syn = usize::from(!self.is_synchronized());
        self.drop_acked((count - syn).min(self.queued));
        self.acked_since_growth += count;
        self.sample_rtt(now, ack);
        self.snd_una = ack;
        if self.snd_nxt - ack < 0 {
            self.snd_nxt = ack;
        }
        (self.retries, self.dup_acks) = (0, 0);
        match self.recover {
            Some(recover) if ack - recover < 0 => self.retransmit = true,
            // spec: rfc5681 recovery-end
            Some(_) => {
                self.recover = None;
                self.cwnd = self.ssthresh;
            }
            None => self.grow_cwnd(count, flight),
        }
        self.timer = None;
        // spec: rfc6298 5.2 5.3
        if self.snd_max - ack > 0 {
            self.arm_timer(now);
        }
    }

    /// Slow start or congestion avoidance, if the window was in use.
    fn grow_cwnd(&mut self, count: usize, flight: usize) {
        // spec: rfc5681 handshake
        if 2 * flight < self.cwnd {
            return;
        }
        let mss = usize::from(self.mss);
        // spec: rfc9293 MUST-19, rfc5681 use avoidance
        self.cwnd += match self.cwnd < self.ssthresh {
            true => count,
            false => (mss * count / self.cwnd).max(1),
        };
        self.cwnd = self.cwnd.min(2 * MAX_BUFFER_LONG_RTT);
    }

    fn count_dup_ack(&mut self, flight: usize) {
        self.dup_acks += 1;
        // spec: rfc5681 fast-retransmit recovery-ssthresh recovery-segment
        if self.dup_acks == 3 && self.recover.is_none() {
            self.ssthresh = (flight / 2).max(2 * usize::from(self.mss));
            self.cwnd = self.ssthresh;
            self.recover = Some(self.snd_max);
            self.retransmit = true;
            // spec: rfc9293 MUST-18, rfc6298 karn
            // Karn's algorithm.
            self.rtt_sample = None;
        }
    }

    fn drop_acked(&mut self, mut count: usize) {
        self.queued -= count;
        while count > 0
            && let Some(first) = self.queue.front()
        {
            let left = first.len() - self.front_acked;
            if count < left {
                self.front_acked += count;
                return;
            }
            count -= left;
            self.front_acked = 0;
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn sample_rtt(&mut self, now: Duration, ack: Seq) {
        let Some((sequence, sent)) = self.rtt_sample else { return };
        if ack - sequence <= 0 {
            return;
        }
        self.rtt_sample = None;
        // spec: rfc6298 2.2 2.3 sample
        let sample = now.saturating_sub(sent);
        self.min_rtt = self.min_rtt.into_iter().chain([sample]).min();
        let (srtt, rttvar) = match self.srtt {
            None => (sample, sample / 2),
            Some(srtt) => ((srtt * 7 + sample) / 8, (self.rttvar * 3 + srtt.abs_diff(sample)) / 4),
        };
        (self.srtt, self.rttvar) = (Some(srtt), rttvar);
        self.rto = (srtt + rttvar * 4).clamp(MIN_RTO, MAX_RTO);
    }

    fn arm_timer(&mut self, now: Duration) {
        // spec: rfc9293 SHLD-30, rfc6298 early 5.5 5.6
        let pause = self.rto * 2u32.pow(self.retries.min(8).into());
        self.timer = Some(now + pause.min(MAX_RTO));
    }

    /// Handles the expired timer. Returns false if the guest has not answered for too long.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.retries += 1;
        self.timer = None;
        // spec: rfc9293 MUST-20
        if self.retries > MAX_RETRIES {
            return false;
        }
        self.rtt_sample = None;
        if self.snd_wnd == 0 && self.is_synchronized() && self.queued > 0 {
            self.window_probe = true;
        } else if self.snd_max - self.snd_una > 0 {
            let mss = usize::from(self.mss);
            // spec: rfc5681 timeout-ssthresh timeout-again
            if self.retries == 1 {
                self.ssthresh = (self.snd_max.since(self.snd_una) / 2).max(2 * mss);
            }
            // spec: rfc5681 timeout-window lost-syn, rfc6298 5.4, rfc2018 left-edge
            (self.cwnd, self.recover, self.retransmit) = (mss, None, false);
            self.snd_nxt = self.snd_una;
        }
        self.arm_timer(now);
        true
    }

    /// Whether this sequence number was sent and is not acknowledged.
    pub(super) fn is_in_flight(&self, sequence: Seq) -> bool {
        sequence - self.snd_una >= 0 && sequence - self.snd_max < 0
    }

    /// Reduces the maximum segment size. Returns whether it was larger; data in flight is then
    /// retransmitted at once, starting with the initial window (RFC 1191, 6.4).
    pub(super) fn reduce_mss(&mut self, mss: u16) -> bool {
        // spec: rfc9293 SHLD-6
        if mss >= self.mss || !self.is_synchronized() {
            return false;
        }
        self.mss = mss;
        self.cwnd = INITIAL_WINDOW * usize::from(mss);
        (self.recover, self.retransmit, self.rtt_sample) = (None, false, None);
        self.snd_nxt = self.snd_una;
        true
    }

    /// The next segment to send, with up to `large` bytes of data.
    pub(super) fn next_segment(&self, large: usize) -> Option<NextSegment> {
        if !self.is_synchronized() || self.is_fin_acked() {
            return None;
        }
        let mss = usize::from(self.mss);
        if self.window_probe && self.queued > 0 {
            return Some(self.range_at(0, 1));
        }
        if self.retransmit {
            // spec: rfc9293 SHLD-16
            let lost = self.recover.map_or(mss, |recover| recover.since(self.snd_una));
            return Some(self.range_at(0, lost.min(large).min(self.queued)));
        }
        let offset = self.snd_nxt.since(self.snd_una);
        let unsent = self.queued.saturating_sub(offset);
        // spec: rfc9293 MUST-34 SHLD-15, rfc5681 window
        let usable = self.snd_wnd.min(self.cwnd).saturating_sub(offset);
        let mut len = unsent.min(usable).min(large);
        if len < unsent {
            // spec: rfc9293 MUST-38 SHLD-28
            // Only whole segments while there is more data; no small segments into a small window
            // (RFC 9293, 3.8.6.2.1).
            len = if len >= mss {
                len - len % mss
            } else if offset == 0 {
                len
            } else {
                0
            };
        }
        let next = self.range_at(offset, len);
        let owes_fin = next.fin && offset <= self.queued;
        (len > 0 || owes_fin).then_some(next)
    }

    fn range_at(&self, offset: usize, len: usize) -> NextSegment {
        let fin = self.closed && offset + len == self.queued;
        NextSegment { sequence: self.snd_una + offset, offset, len, fin }
    }

    /// Collects the data of a segment into `parts`, as far as these suffice. Returns how many are
    /// used, and the length.
    pub(super) fn gather<'a>(
        &'a self,
        next: NextSegment,
        parts: &mut [&'a [u8]; MAX_PARTS],
    ) -> (usize, usize) {
        let (mut skip, mut left, mut count) = (self.front_acked + next.offset, next.len, 0);
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
        (count, next.len - left)
    }

    /// Notes that a segment was sent.
    pub(super) fn segment_sent(&mut self, now: Duration, next: NextSegment) {
        let end = next.sequence + next.len + usize::from(next.fin);
        if self.window_probe {
            self.window_probe = false;
        } else if self.retransmit {
            self.retransmit = false;
        } else {
            self.snd_nxt = end;
        }
        if next.fin {
            self.fin_seq = Some(next.sequence + next.len);
        }
        if end - self.snd_max > 0 {
            if self.rtt_sample.is_none() && self.snd_max == next.sequence {
                self.rtt_sample = Some((next.sequence, now));
            }
            self.snd_max = end;
        }
        self.ensure_timer(now);
    }

    /// Whether `ack` acknowledges our SYN and nothing else.
    pub(super) fn acks_syn_only(&self, ack: Seq) -> bool {
        ack == self.snd_una + 1
    }

    /// Makes the SYN the next segment again.
    pub(super) fn rewind_to_syn(&mut self) {
        self.snd_nxt = self.snd_una;
    }

    /// The sequence number of a keep-alive: the last one that the guest has acknowledged.
    pub(super) fn keepalive_seq(&self) -> Seq {
        Seq(self.snd_una.0.wrapping_sub(1))
    }
}
