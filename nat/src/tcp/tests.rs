//! The connection against scripted segments and, in `bad_link`, against itself. `states` walks its
//! states.

use std::time::Duration;

use super::connection::Connection;
use super::receiver::WINDOW_SCALE;
use super::segment::{Control, Outgoing, Segment, Seq};
use super::state::State;

mod bad_link;
mod congestion;
mod states;

const MSS: u16 = 1000;
const LARGE: usize = 4 * MSS as usize;
const T0: Duration = Duration::ZERO;
const OURS: Seq = Seq(u32::MAX - 5);
const THEIRS: Seq = Seq(u32::MAX - 3);

/// A segment in flight.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent {
    sequence: Seq,
    ack: Option<Seq>,
    window: u16,
    control: Control,
    data: Vec<u8>,
}

impl Sent {
    fn segment(&self) -> Segment<'_> {
        let (mut mss, mut scale, mut sack) = (None, None, false);
        if let Control::Syn { mss: size, scale: shift, sack: has_sack } = self.control {
            (mss, scale, sack) = (Some(size), shift, has_sack);
        }
        Segment {
            source: 1,
            destination: 2,
            sequence: self.sequence,
            ack: self.ack,
            window: self.window,
            syn: mss.is_some(),
            fin: self.control == Control::Fin,
            rst: self.control == Control::Rst,
            mss,
            scale,
            sack,
            payload: &self.data,
        }
    }
}

/// A connection and the host behind it.
struct End {
    tcp: Connection,
    now: Duration,
    /// What the host took, and how much more it takes.
    received: Vec<u8>,
    takes: usize,
}

impl End {
    fn new(tcp: Connection) -> End {
        End { tcp, now: T0, received: Vec::new(), takes: usize::MAX }
    }

    /// Handles a segment, then lets the host take what it will.
    fn handle(&mut self, segment: &Segment<'_>) {
        let End { tcp, now, received, takes } = self;
        tcp.handle(*now, segment, &mut |bytes| take(received, takes, bytes));
        self.drain();
    }

    fn drain(&mut self) -> bool {
        let End { tcp, received, takes, .. } = self;
        tcp.drain(&mut |bytes| take(received, takes, bytes))
    }

    /// The segments that it sends now.
    fn output(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        self.tcp.output(self.now, (LARGE, 100), &mut |segment| {
            sent.push(owned(segment));
            true
        });
        sent
    }

    /// Handles a segment. Returns what it sends.
    fn ask(&mut self, segment: Segment<'_>) -> Vec<Sent> {
        self.handle(&segment);
        self.output()
    }

    /// Waits until the state changes. Returns how often.
    fn waits_in(&mut self, state: State) -> usize {
        let mut count = 0;
        while self.tcp.state() == state && count < 100 {
            self.wait();
            count += 1;
        }
        count
    }

    /// Lets time pass to its deadline.
    fn wait(&mut self) -> Vec<Sent> {
        self.now = self.tcp.deadline().unwrap();
        self.tcp.expire(self.now);
        self.output()
    }
}

fn take(received: &mut Vec<u8>, takes: &mut usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(*takes);
    received.extend(&bytes[..count]);
    *takes -= count;
    count
}

fn owned(segment: &Outgoing<'_>) -> Sent {
    let Outgoing { sequence, ack, window, control, .. } = *segment;
    Sent { sequence, ack, window, control, data: segment.parts.concat() }
}

fn syn() -> Segment<'static> {
    Segment {
        source: 1,
        destination: 2,
        sequence: THEIRS,
        window: 60_000,
        syn: true,
        mss: Some(MSS),
        scale: Some(2),
        sack: true,
        ..Segment::default()
    }
}

/// A segment from the guest's `at`th byte on that acknowledges our first `acked` bytes.
fn data(at: usize, bytes: &[u8], acked: usize) -> Segment<'_> {
    Segment {
        source: 1,
        destination: 2,
        sequence: THEIRS + 1 + at,
        ack: Some(OURS + 1 + acked),
        window: 16_000,
        payload: bytes,
        ..Segment::default()
    }
}

fn fin(at: usize, acked: usize) -> Segment<'static> {
    Segment { fin: true, ..data(at, &[], acked) }
}

/// An established connection.
fn open() -> End {
    let mut end = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    assert_eq!(end.output().len(), 1);
    assert_eq!(end.ask(data(0, &[], 0)), []);
    assert_eq!(end.tcp.state(), State::Established);
    end
}

// spec-test: rfc9293 MUST-14 SHLD-5 MUST-22
#[test]
fn a_syn_is_answered_until_the_answer_is_acknowledged() {
    let mut end = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    let answers = end.output();
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((answer.sequence, answer.ack), (OURS, Some(THEIRS + 1)));
    assert!(matches!(answer.control, Control::Syn { mss: 1460, scale: Some(_), sack: true }));
    assert_eq!(end.output(), [], "once is enough");
    assert_eq!(end.ask(syn()), answers, "the guest retransmits");
    assert_eq!(end.wait(), answers, "no ACK arrived");
    assert_eq!(end.tcp.state(), State::SynReceived);
    end.ask(data(0, b"hello", 0));
    assert_eq!(end.received, b"hello", "data with the ACK");
    let mut silent = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    silent.output();
    assert!((5..20).contains(&silent.waits_in(State::SynReceived)), "it gives up in the end");
}

// spec-test: rfc5681 window
#[test]
fn scales_are_used_only_if_both_offer_them() {
    let mut plain = End::new(Connection::accept(T0, &Segment { scale: None, ..syn() }, OURS, 1460));
    assert!(matches!(plain.output()[0].control, Control::Syn { scale: None, .. }));
    plain.ask(Segment { window: 3000, ..data(0, &[], 0) });
    plain.tcp.push(vec![7; 10_000]);
    assert_eq!(plain.output().iter().map(|sent| sent.data.len()).sum::<usize>(), 3000);
    let mut scaled = open();
    scaled.ask(Segment { window: 750, ..data(0, &[], 0) });
    scaled.tcp.push(vec![7; 10_000]);
    assert_eq!(scaled.output().iter().map(|sent| sent.data.len()).sum::<usize>(), 3000);
}

// spec-test: rfc5681 ack-once
#[test]
fn a_window_beyond_its_field_is_no_window_update() {
    let mut plain = End::new(Connection::accept(T0, &Segment { scale: None, ..syn() }, OURS, 1460));
    plain.output();
    plain.ask(data(0, &[], 0));
    for at in (0..4_000_000).step_by(1000) {
        plain.tcp.autotune();
        assert_eq!(plain.ask(data(at, &[7; 1000], 0)).len(), 1);
        assert_eq!(plain.output(), [], "nothing has changed since");
    }
}

// spec-test: rfc9293 MUST-16 MUST-38 SHLD-28
#[test]
fn the_window_of_a_retransmission_counts_if_it_acknowledges_more() {
    let mut end = open();
    end.tcp.push(vec![1; 2920]);
    end.output();
    // The guest has sent 50 bytes, which were lost, and sends them again with its next ACK.
    end.ask(Segment { window: 4000, ..data(50, &[], 0) });
    end.ask(Segment { window: 100, ..data(0, &[7; 50], 2920) });
    end.tcp.push(vec![2; 1000]);
    let sent: usize = end.output().iter().map(|sent| sent.data.len()).sum();
    assert_eq!(sent, 400, "by the scale of its SYN");
}

#[test]
fn large_segments_are_whole_ones() {
    let mut end = open();
    end.tcp.push(vec![1; 2500]);
    end.tcp.push(vec![2; 2700]);
    let lens: Vec<usize> = end.output().iter().map(|sent| sent.data.len()).collect();
    assert_eq!(lens, [4000, 1200]);
}

#[test]
fn either_side_may_close_first_and_still_receive() {
    let mut end = open();
    assert_eq!(end.ask(fin(0, 0))[0].ack, Some(THEIRS + 2));
    assert_eq!(end.tcp.state(), State::CloseWait);
    end.tcp.push(b"late".to_vec());
    assert_eq!(end.output()[0].data, b"late");
    end.ask(data(1, &[], 4));
    end.tcp.close();
    let last = end.output();
    assert_eq!((last[0].sequence, last[0].control), (OURS + 5, Control::Fin));
    assert_eq!(end.tcp.state(), State::LastAck);
    assert_eq!(end.wait(), last, "a FIN that was lost");
    end.ask(data(1, &[], 5));
    assert_eq!(end.tcp.state(), State::Closed);

    let mut end = open();
    end.tcp.close();
    assert_eq!(end.output()[0].control, Control::Fin);
    assert_eq!(end.ask(data(0, b"more", 1))[0].ack, Some(THEIRS + 5));
    assert_eq!(end.output(), []);
    assert_eq!(end.ask(fin(4, 1))[0].ack, Some(THEIRS + 6));
    assert_eq!(end.received, b"more");
    assert_eq!(end.tcp.state(), State::TimeWait);
    assert_eq!(end.ask(fin(4, 1))[0].ack, Some(THEIRS + 6), "its acknowledgement was lost");
    end.wait();
    assert_eq!(end.tcp.state(), State::Closed);
}

#[test]
fn nothing_follows_a_fin() {
    let mut end = open();
    end.ask(fin(0, 0));
    let sent = end.ask(data(1, b"after the end", 0));
    assert_eq!(sent.iter().map(|sent| sent.ack).collect::<Vec<_>>(), [Some(THEIRS + 2)]);
    assert_eq!(end.received, b"");
}

#[test]
fn simultaneous_close() {
    let mut end = open();
    end.tcp.close();
    end.output();
    assert_eq!(end.ask(fin(0, 0))[0].ack, Some(THEIRS + 2), "crossing FINs");
    end.ask(data(1, &[], 1));
    assert_eq!(end.tcp.state(), State::TimeWait);
}

#[test]
fn only_a_reset_with_the_exact_number_ends_it() {
    let rst = |at: usize| Segment { rst: true, ack: None, ..data(at, &[], 0) };
    let mut end = open();
    assert_eq!(end.ask(rst(70_000)), [], "outside the window");
    assert_eq!(end.ask(rst(9)).len(), 1, "inside: the guest is asked (RFC 5961)");
    assert_eq!(end.tcp.state(), State::Established);
    // An acknowledgement that is due is not sent any more.
    end.handle(&data(0, b"x", 0));
    assert_eq!(end.ask(rst(1)), []);
    assert_eq!(end.tcp.state(), State::Reset);
}

#[test]
fn a_reset_after_both_ends_costs_the_host_nothing() {
    let mut end = open();
    end.takes = 1;
    end.tcp.close();
    end.output();
    end.ask(data(0, b"late", 1));
    end.ask(fin(4, 1));
    let rst = || Segment { rst: true, ack: None, ..data(5, &[], 1) };
    assert_eq!(end.ask(rst()), []);
    assert_eq!(end.tcp.state(), State::Closing);
    end.takes = usize::MAX;
    assert!(end.drain());
    end.output();
    end.ask(rst());
    assert_eq!((&end.received[..], end.tcp.state()), (&b"late"[..], State::Closed));
}

#[test]
fn segments_outside_the_window_are_answered_and_change_nothing() {
    let mut end = open();
    for at in [200_000, usize::MAX - 5000] {
        let sent = end.ask(data(at, b"wrong", 0));
        assert_eq!(sent.iter().map(|sent| sent.ack).collect::<Vec<_>>(), [Some(THEIRS + 1)]);
    }
    assert_eq!(end.ask(data(0, b"wrong", 9)).len(), 1, "of what was never sent");
    assert_eq!(end.ask(Segment { syn: true, ..data(5, &[], 0) }).len(), 1, "a forged SYN");
    assert_eq!((end.tcp.state(), &end.received[..]), (State::Established, &[][..]));
}

// spec-test: rfc9293 SHLD-31
#[test]
fn data_is_put_in_order_and_overlaps_are_cut() {
    let bytes: Vec<u8> = (0..100).collect();
    let mut end = open();
    for (from, to) in [(50, 60), (40, 70), (90, 100), (65, 80), (10, 20)] {
        end.handle(&data(from, &bytes[from..to], 0));
    }
    end.handle(&fin(100, 0));
    assert_eq!(end.received, b"");
    end.handle(&data(0, &bytes[..45], 0));
    assert_eq!(end.received, bytes[..60], "of two that overlap, the later is cut");
    end.handle(&data(30, &bytes[30..95], 0));
    assert_eq!(end.received, bytes);
    assert_eq!(end.tcp.state(), State::CloseWait);
}

// spec-test: rfc9293 MUST-39
#[test]
fn a_host_that_takes_nothing_closes_the_window_and_nothing_is_lost() {
    let mut end = open();
    end.takes = 10;
    let bytes: Vec<u8> = (0..200_000).map(|at| (at % 251) as u8).collect();
    let (mut at, mut window) = (0, 64_000);
    while window > 0 {
        let sent = end.ask(data(at, &bytes[at..at + 1000.min(window)], 0));
        let ack = sent.last().unwrap();
        at = (ack.ack.unwrap() - (THEIRS + 1)) as usize;
        window = usize::from(ack.window) << WINDOW_SCALE;
        assert!(at <= 70_000, "the window has an end");
    }
    assert_eq!(end.received, bytes[..10]);
    end.ask(data(at, &bytes[at..at + 1], 0));
    end.takes = usize::MAX;
    end.drain();
    let sent = end.output();
    assert!(sent[0].window > 0, "the guest wanted that there is room");
    // A window is advertised in steps: the probe may have found the rest of one.
    assert!(end.received == bytes[..at] || end.received == bytes[..at + 1]);
}

// spec-test: rfc9293 MUST-35 MUST-36 MUST-37
#[test]
fn a_closed_window_is_probed_forever() {
    let mut end = open();
    end.tcp.push(b"abc".to_vec());
    end.ask(Segment { window: 0, ..data(0, &[], 0) });
    for _ in 0..50 {
        let probe = end.wait();
        assert_eq!(probe.iter().map(|sent| &sent.data[..]).collect::<Vec<_>>(), [b"a"]);
        assert_eq!(end.ask(Segment { window: 0, ..data(0, &[], 0) }), []);
    }
    let sent = end.ask(data(0, &[], 0));
    assert_eq!(sent.iter().map(|sent| &sent.data[..]).collect::<Vec<_>>(), [b"abc"]);
}

// spec-test: rfc5681 duplicate fast-retransmit recovery-segment
#[test]
fn three_duplicate_acks_are_a_loss() {
    let mut end = open();
    end.tcp.push(vec![1; 10_000]);
    let sent = end.output();
    assert_eq!(sent[0].data.len(), LARGE);
    for _ in 0..2 {
        assert_eq!(end.ask(data(0, &[], 0)), []);
    }
    assert_eq!(end.ask(data(0, &[], 0))[0].sequence, OURS + 1, "at once, not by the timer");
}

// spec-test: rfc9293 MUST-20 SHLD-11 MUST-26 MUST-28 MUST-29 SHLD-12, rfc6298 5.5 5.6
#[test]
fn a_guest_that_is_gone_is_detected() {
    let mut end = open();
    end.tcp.push(b"abc".to_vec());
    end.output();
    assert!(end.waits_in(State::Established) < 20);
    assert!(end.now > Duration::from_secs(100), "{:?}", end.now);

    let mut idle = open();
    let question = idle.wait();
    assert_eq!((question[0].sequence, &question[0].data[..]), (OURS, &[][..]));
    assert!(idle.now >= Duration::from_secs(7200));
    idle.ask(data(0, &[], 0));
    assert!(idle.tcp.deadline().unwrap() >= idle.now + Duration::from_secs(7200));
    assert!(idle.waits_in(State::Established) < 20);
}

#[test]
fn an_active_open_can_be_refused() {
    let mut caller = End::new(Connection::connect(T0, OURS, 1460));
    assert!(matches!(caller.output()[0].control, Control::Syn { .. }));
    let no = Segment { rst: true, ..data(0, &[], 0) };
    caller.ask(Segment { ack: Some(OURS + 9), ..no.clone() });
    assert_eq!(caller.tcp.state(), State::SynSent, "a forged refusal");
    caller.ask(no);
    assert_eq!(caller.tcp.state(), State::Reset);
}

#[test]
fn an_unacceptable_ack_in_the_handshake_is_reset() {
    let callee = Connection::accept(T0, &syn(), OURS, 1460);
    let caller = Connection::connect(T0, OURS, 1460);
    for mut end in [callee, caller].map(End::new) {
        end.output();
        let state = end.tcp.state();
        for acked in [77, usize::MAX] {
            let resets = end.ask(data(0, b"evil", acked));
            let [reset] = &resets[..] else { panic!("{resets:?}") };
            let wanted = (OURS + 1 + acked, None, Control::Rst);
            assert_eq!((reset.sequence, reset.ack, reset.control), wanted);
        }
        assert_eq!((end.tcp.state(), end.received.len()), (state, 0));
        assert_eq!(end.output(), [], "once is enough");
    }
}

#[test]
fn a_half_open_connection_of_the_guest_is_reset() {
    let mut caller = End::new(Connection::connect(T0, OURS, 1460));
    let call = caller.output();
    let old = Segment { ack: Some(OURS + 5000), ..data(0, &[], 0) };
    let answer = caller.ask(old.clone());
    let shown: Vec<_> = answer.iter().map(|sent| (sent.sequence, sent.control)).collect();
    assert_eq!(shown, [(OURS + 5000, Control::Rst)], "RFC 9293, 3.10.7.3");
    assert_eq!(caller.tcp.state(), State::SynSent);
    assert_eq!(caller.ask(Segment { rst: true, ..old }), [], "no reset answers a reset");
    assert_eq!(caller.wait(), call, "and it is called again");
}

// spec-test: rfc9293 MUST-58 MUST-59
#[test]
fn the_segments_of_a_turn_are_acknowledged_at_once() {
    let mut end = open();
    for at in 0..5 {
        end.handle(&data(100 * at, &[7; 100], 0));
    }
    let sent = end.output();
    assert_eq!(sent.iter().map(|sent| sent.ack).collect::<Vec<_>>(), [Some(THEIRS + 501)]);
}

// spec-test: rfc9293 SHLD-27
#[test]
fn small_writes_are_coalesced() {
    let mut end = open();
    for _ in 0..100_000 {
        end.tcp.push(vec![5]);
    }
    assert_eq!(end.output()[0].data.len(), LARGE, "a large segment is sent");
}

/// A guest that sends byte by byte does not cost a write for each.
#[test]
fn many_small_segments_are_one_write_and_a_large_one_is_written_at_once() {
    let mut end = open();
    let (mut calls, mut received) = (0, Vec::new());
    let mut host = |bytes: &[u8]| {
        calls += 1;
        received.extend_from_slice(bytes);
        bytes.len()
    };
    let bytes: Vec<u8> = (0..40_064).map(|at| (at % 251) as u8).collect();
    for at in 0..64 {
        end.tcp.handle(T0, &data(at, &bytes[at..at + 1], 0), &mut host);
    }
    end.tcp.handle(T0, &data(64, &bytes[64..], 0), &mut host);
    assert!(end.tcp.drain(&mut host));
    assert_eq!(received, bytes);
    assert!(calls <= 3, "{calls} calls");
}

/// The SACK blocks that a connection sends, as offsets in the guest's stream.
fn sack(end: &mut End) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    end.tcp.output(T0, (LARGE, 100), &mut |segment| {
        blocks.extend(segment.sack.iter().flatten().copied());
        true
    });
    let place = |seq: Seq| seq.since(THEIRS + 1);
    blocks.into_iter().map(|(from, to)| (place(from), place(to))).collect()
}

/// RFC 2018, 4: the newest first, then the highest.
// spec-test: rfc2018 only-if-permitted always all-acks first-block
#[test]
fn out_of_order_data_is_reported_in_sack_blocks() {
    let mut end = open();
    let bytes = [7; 100];
    let mut check = |at, wanted: &[(usize, usize)]| {
        end.handle(&data(at, &bytes, 0));
        assert_eq!(sack(&mut end), wanted, "after {at}");
    };
    check(100, &[(100, 200)]);
    check(200, &[(100, 300)]);
    check(500, &[(500, 600), (100, 300)]);
    check(700, &[(700, 800), (500, 600), (100, 300)]);
    check(900, &[(900, 1000), (700, 800), (500, 600)]);
    check(400, &[(400, 600), (900, 1000), (700, 800)]);
    check(0, &[(400, 600), (900, 1000), (700, 800)]);
    check(300, &[(700, 800), (900, 1000)]);
    let mut plain = End::new(Connection::accept(T0, &Segment { sack: false, ..syn() }, OURS, 1460));
    assert!(matches!(plain.output()[0].control, Control::Syn { sack: false, .. }));
    plain.handle(&data(0, &[], 0));
    plain.handle(&data(100, &bytes, 0));
    assert_eq!(sack(&mut plain), []);
}

/// After the loss of one segment, only that one has to be sent again.
#[test]
fn all_that_follows_a_gap_is_kept() {
    let mut end = open();
    let bytes: Vec<u8> = (0..60_000).map(|at| (at % 251) as u8).collect();
    for at in (100..60_000).step_by(100) {
        end.handle(&data(at, &bytes[at..at + 100], 0));
    }
    assert!(end.received.is_empty());
    end.handle(&data(0, &bytes[..100], 0));
    assert!(end.received == bytes, "{} bytes were kept", end.received.len());
}

/// Most bytes in flight to a guest whose RTT is `near` at first and then, behind much data, 5 ms.
fn most_under_way(near: Duration) -> usize {
    let mut end = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    assert_eq!(end.output().len(), 1);
    end.now += near;
    end.ask(data(0, &[], 0));
    let mut acked = 0;
    for _ in 0..2000 {
        end.tcp.push(vec![7; 8 * MSS as usize]);
        acked += end.output().iter().map(|sent| sent.data.len()).sum::<usize>();
        end.now += Duration::from_millis(5);
        end.ask(data(0, &[], acked));
        end.tcp.autotune();
    }
    assert_eq!(end.tcp.buffered(), 0);
    end.tcp.room()
}

#[test]
fn queueing_delay_does_not_count_as_a_long_rtt() {
    assert_eq!(most_under_way(Duration::from_micros(100)), 1 << 20);
    assert_eq!(most_under_way(Duration::from_millis(5)), 4 << 20);
}
