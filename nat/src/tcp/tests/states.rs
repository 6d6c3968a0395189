//! The states of a connection: each transition that the head of `state.rs` draws, and against a
//! model that derives the state from what crossed the wire, that there is no other.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::tcp::connection::TIME_WAIT;
use crate::tcp::state::Event;

const STATES: [State; 12] = [
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
    State::Closed,
    State::Aborted,
    State::Reset,
];
/// From SYN-SENT to LAST-ACK.
const LIVE: usize = 8;

/// A connection in a state, reached by the shortest way. The guest has sent no data, and the host
/// takes all.
fn in_state(state: State) -> End {
    let mut end = match state {
        State::SynSent => End::new(Connection::connect(T0, OURS, MSS)),
        State::SynReceived => End::new(Connection::accept(T0, &syn(), OURS, MSS)),
        State::Established => open(),
        State::FinWait1 | State::Aborted => in_state(State::Established),
        State::FinWait2 | State::Closing => in_state(State::FinWait1),
        State::CloseWait => in_state(State::Established),
        State::LastAck => in_state(State::CloseWait),
        State::TimeWait => in_state(State::Closing),
        State::Closed => in_state(State::LastAck),
        State::Reset => in_state(State::Aborted),
    };
    match state {
        State::FinWait1 | State::LastAck => end.tcp.close(),
        State::FinWait2 => end.handle(&data(0, &[], 1)),
        State::CloseWait | State::Closing => end.handle(&fin(0, 0)),
        State::TimeWait | State::Closed => end.handle(&data(1, &[], 1)),
        State::Aborted => end.tcp.abort(),
        _ => {}
    }
    if state != State::Aborted {
        end.output();
    }
    assert_eq!(end.tcp.state(), state);
    end
}

/// The reset that a connection in this state accepts.
fn rst(state: State) -> Segment<'static> {
    let has_closed =
        [State::CloseWait, State::Closing, State::LastAck, State::TimeWait].contains(&state);
    Segment { rst: true, ..data(has_closed.into(), &[], 0) }
}

#[test]
fn each_transition_of_the_diagram() {
    type Step = fn(&mut End);
    let steps: [(State, Step, State); 12] = [
        (State::SynSent, |end| end.handle(&syn()), State::SynReceived),
        (
            State::SynSent,
            |end| end.handle(&Segment { ack: Some(OURS + 1), ..syn() }),
            State::Established,
        ),
        (State::SynReceived, |end| end.handle(&data(0, &[], 0)), State::Established),
        (State::Established, |end| end.tcp.close(), State::FinWait1),
        (State::Established, |end| end.handle(&fin(0, 0)), State::CloseWait),
        (State::FinWait1, |end| end.handle(&data(0, &[], 1)), State::FinWait2),
        (State::FinWait1, |end| end.handle(&fin(0, 0)), State::Closing),
        (
            State::FinWait2,
            |end| {
                end.takes = 0;
                end.handle(&Segment { fin: true, ..data(0, b"late", 1) });
            },
            State::Closing,
        ),
        (State::CloseWait, |end| end.tcp.close(), State::LastAck),
        (State::Closing, |end| end.handle(&data(1, &[], 1)), State::TimeWait),
        (State::LastAck, |end| end.handle(&data(1, &[], 1)), State::Closed),
        (State::TimeWait, |end| drop(end.wait()), State::Closed),
    ];
    for (from, step, to) in steps {
        let mut end = in_state(from);
        step(&mut end);
        end.output();
        assert_eq!(end.tcp.state(), to, "from {from:?}");
    }
    for from in &STATES[..LIVE] {
        let mut end = in_state(*from);
        end.handle(&rst(*from));
        assert_eq!(end.tcp.state(), State::Reset, "from {from:?}");
        let mut end = in_state(*from);
        end.tcp.abort();
        assert_eq!(end.tcp.state(), State::Aborted, "from {from:?}");
        assert_eq!(end.output().last().unwrap().control, Control::Rst);
        assert_eq!(end.tcp.state(), State::Reset, "from {from:?}");
    }
    let mut end = in_state(State::TimeWait);
    end.handle(&rst(State::TimeWait));
    assert_eq!(end.tcp.state(), State::Closed);
}

/// The transitions of the diagram by event: in all other states, an event changes nothing.
#[test]
fn events_make_no_other_transition() {
    let live = |to: State| STATES[..LIVE].iter().map(move |from| (*from, to)).collect();
    let drawn: [(Event, Vec<(State, State)>); 10] = [
        (Event::SynReceived, vec![(State::SynSent, State::SynReceived)]),
        (
            Event::SynAcked,
            vec![(State::SynSent, State::Established), (State::SynReceived, State::Established)],
        ),
        (
            Event::FinSent,
            vec![(State::Established, State::FinWait1), (State::CloseWait, State::LastAck)],
        ),
        (Event::FinAcked, vec![(State::FinWait1, State::FinWait2)]),
        (
            Event::FinReceived,
            vec![
                (State::Established, State::CloseWait),
                (State::FinWait1, State::Closing),
                (State::FinWait2, State::Closing),
            ],
        ),
        (Event::Done, vec![(State::Closing, State::TimeWait), (State::LastAck, State::Closed)]),
        (Event::TimeWaitExpired, vec![(State::TimeWait, State::Closed)]),
        (Event::RstReceived, [live(State::Reset), vec![(State::TimeWait, State::Closed)]].concat()),
        (Event::Abort, live(State::Aborted)),
        (Event::RstSent, vec![(State::Aborted, State::Reset)]),
    ];
    for (event, arrows) in drawn {
        for from in STATES {
            let arrow = arrows.iter().find(|arrow| arrow.0 == from);
            let to = arrow.map_or(from, |arrow| arrow.1);
            assert_eq!(from.after(event), to, "{event:?} in {from:?}");
        }
    }
}

/// Bytes that the guest of the model sends, each in a segment of its own. Its FIN follows.
const BYTES: usize = 3;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A segment with these flags. `far` moves its place in the stream away from the next byte, and
    /// `ack` away from all that was sent; without `ack`, it acknowledges nothing.
    Segment {
        syn: bool,
        rst: bool,
        fin: bool,
        data: bool,
        far: isize,
        ack: Option<isize>,
    },
    /// The host takes a byte, sends one, closes, or fails.
    Take,
    Push,
    Close,
    Fail,
    /// The connection's timer expires.
    Wait,
}

/// The state of a connection, derived from what crossed the wire and what the host took. Sequence
/// numbers count from the SYN of each side.
struct Model {
    /// Set as long as the handshake lasts, and at the end of the connection.
    fixed: Option<State>,
    /// Which bytes of the guest have arrived, and whether its FIN has.
    arrived: [bool; BYTES],
    fin_arrived: bool,
    /// The guest closed before we did.
    guest_closed_first: bool,
    /// The end of all that we sent, and all that the guest acknowledged; where our FIN was.
    sent: usize,
    acked: usize,
    fin_sent: Option<usize>,
    time_wait_since: Duration,
}

impl Model {
    fn new(state: State) -> Model {
        Model {
            fixed: Some(state),
            arrived: [false; BYTES],
            fin_arrived: false,
            guest_closed_first: false,
            sent: 0,
            acked: 0,
            fin_sent: None,
            time_wait_since: T0,
        }
    }

    fn guest_closed(&self) -> bool {
        self.fin_arrived && self.arrived == [true; BYTES]
    }

    fn fin_acked(&self) -> bool {
        self.fin_sent.is_some_and(|fin| self.acked > fin)
    }

    /// The next sequence number of the guest.
    fn next(&self) -> usize {
        let in_order = self.arrived.iter().take_while(|arrived| **arrived).count();
        1 + in_order + usize::from(self.guest_closed())
    }

    fn state(&self) -> State {
        if let Some(state) = self.fixed {
            return state;
        }
        match (self.fin_sent.is_some(), self.guest_closed()) {
            (false, false) => State::Established,
            (false, true) => State::CloseWait,
            (true, false) if self.fin_acked() => State::FinWait2,
            (true, false) => State::FinWait1,
            (true, true) if self.guest_closed_first => State::LastAck,
            (true, true) => State::Closing,
        }
    }

    /// Notes whether the connection has ended in order: the host took `taken` bytes.
    fn finish(&mut self, now: Duration, taken: usize) {
        if self.fixed.is_none() && self.fin_acked() && self.guest_closed() && taken == BYTES {
            let first = self.guest_closed_first;
            self.fixed = Some(if first { State::Closed } else { State::TimeWait });
            self.time_wait_since = now;
        }
    }

    /// A segment of the guest.
    fn receive(&mut self, sequence: usize, ack: Option<usize>, segment: &Segment<'_>) {
        let acks_syn = ack == Some(1);
        match self.fixed {
            Some(State::Closed | State::Aborted | State::Reset) => {}
            Some(State::SynSent) => match (segment.syn, segment.rst) {
                (_, true) if acks_syn => self.fixed = Some(State::Reset),
                (true, false) if acks_syn => {
                    (self.fixed, self.acked) = (None, 1);
                }
                (true, false) if ack.is_none() => self.fixed = Some(State::SynReceived),
                _ => {}
            },
            _ => self.receive_synchronized(sequence, ack, segment),
        }
    }

    fn receive_synchronized(&mut self, first: usize, ack: Option<usize>, segment: &Segment<'_>) {
        let next = self.next();
        // The window is larger than the stream.
        let is_new = if segment.len() == 0 { first >= next } else { first + segment.len() > next };
        if !is_new {
            return;
        }
        if segment.rst && first == next {
            match self.state() {
                State::TimeWait => self.fixed = Some(State::Closed),
                State::Closing | State::LastAck if self.fin_acked() => {}
                _ => self.fixed = Some(State::Reset),
            }
            return;
        }
        let Some(ack) = ack.filter(|ack| !segment.rst && !segment.syn && *ack <= self.sent) else {
            return;
        };
        if self.fixed == Some(State::SynReceived) {
            if ack != 1 {
                return;
            }
            self.fixed = None;
        }
        self.acked = self.acked.max(ack);
        for at in first..first + segment.payload.len() {
            self.arrived[at - 1] = true;
        }
        self.fin_arrived |= segment.fin;
        self.guest_closed_first |= self.guest_closed() && self.fin_sent.is_none();
    }

    /// Segments to the guest.
    fn observe(&mut self, sent: &[Sent]) {
        for segment in sent {
            let (is_syn, fin) = match segment.control {
                Control::Syn { .. } => (true, false),
                Control::Fin => (false, true),
                Control::None | Control::Push => (false, false),
                Control::Rst => {
                    // One without an acknowledgement is for another connection of the guest.
                    if segment.ack.is_some() {
                        self.fixed = Some(State::Reset);
                    }
                    continue;
                }
            };
            let end = (segment.sequence + segment.data.len()).since(OURS);
            self.fin_sent = self.fin_sent.or(fin.then_some(end));
            self.sent = self.sent.max(end + usize::from(is_syn || fin));
        }
    }
}

/// Plays a step with both. Checks their state after each call.
#[track_caller]
fn play(end: &mut End, model: &mut Model, step: Step) {
    match step {
        Step::Segment { syn: is_syn, rst, fin, data: has_data, far, ack } => {
            let is_call = is_syn && model.fixed == Some(State::SynSent);
            let sequence = if is_call { 0 } else { model.next().saturating_add_signed(far) };
            let has_byte = has_data && !is_syn && (1..=BYTES).contains(&sequence);
            let bytes = if has_byte { &b"?"[..] } else { &[] };
            let fin = fin && !is_syn && sequence + bytes.len() == BYTES + 1;
            let ack = ack.map(|far| model.sent.saturating_add_signed(far));
            let sent = Segment {
                sequence: THEIRS + sequence,
                ack: ack.map(|ack| OURS + ack),
                syn: is_syn,
                rst,
                fin,
                payload: bytes,
                ..if is_syn { syn() } else { data(0, &[], 0) }
            };
            end.handle(&sent);
            model.receive(sequence, ack, &sent);
            model.finish(end.now, end.received.len());
        }
        Step::Take => {
            end.takes = 1;
            end.drain();
            end.takes = 0;
        }
        Step::Push if end.tcp.room() > 0 => end.tcp.push(vec![7]),
        Step::Push => {}
        Step::Close => end.tcp.close(),
        Step::Fail => {
            end.tcp.abort();
            if !matches!(model.fixed, Some(State::TimeWait | State::Closed | State::Reset)) {
                model.fixed = Some(State::Aborted);
            }
        }
        Step::Wait => {
            let Some(at) = end.tcp.deadline() else { return };
            end.now = at.max(end.now);
            end.tcp.expire(end.now);
            match model.fixed {
                Some(State::TimeWait) if end.now >= model.time_wait_since + TIME_WAIT => {
                    model.fixed = Some(State::Closed);
                }
                Some(State::TimeWait | State::Closed | State::Reset) => {}
                // When it gives up is not modelled.
                _ if end.tcp.state() == State::Aborted => model.fixed = Some(State::Aborted),
                _ => {}
            }
        }
    }
    assert_eq!(end.tcp.state(), model.state(), "after {step:?}");
    model.observe(&end.output());
    model.finish(end.now, end.received.len());
    assert_eq!(end.tcp.state(), model.state(), "after the output that follows {step:?}");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flag = |percent: f64| prop::bool::weighted(percent / 100.0);
    let far = prop_oneof![6 => Just(0), 1 => -3isize..=3];
    let ack = prop::option::weighted(0.9, far.clone());
    let flags = (flag(15.0), flag(4.0), flag(50.0), flag(70.0));
    let segment = (flags, far, ack).prop_map(|((syn, rst, fin, data), far, ack)| Step::Segment {
        syn,
        rst,
        fin,
        data,
        far,
        ack,
    });
    let step = prop_oneof![
        60 => segment,
        20 => Just(Step::Take),
        6 => Just(Step::Push),
        4 => Just(Step::Close),
        1 => Just(Step::Fail),
        8 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

#[test]
fn a_connection_is_in_the_state_that_follows_from_its_segments() {
    let seen = RefCell::new(Vec::new());
    let config = ProptestConfig { cases: 2000, ..ProptestConfig::default() };
    proptest!(config, |(calls: bool, steps in steps())| {
        let (first, mut end) = match calls {
            true => (State::SynSent, End::new(Connection::connect(T0, OURS, MSS))),
            false => (State::SynReceived, End::new(Connection::accept(T0, &syn(), OURS, MSS))),
        };
        end.takes = 0;
        let mut model = Model::new(first);
        model.observe(&end.output());
        for step in steps {
            play(&mut end, &mut model, step);
            seen.borrow_mut().push(end.tcp.state());
        }
    });
    let seen = seen.into_inner();
    for state in STATES.iter().filter(|state| **state != State::Aborted) {
        assert!(seen.contains(state), "{state:?} was never reached");
    }
}
