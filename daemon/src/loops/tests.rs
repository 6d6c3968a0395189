//! The decisions of loop detection, on a clock of the tests.

use std::collections::BTreeSet;

use proptest::prelude::*;
use trama_switch::ports::dummy;
use trama_switch::{Device, Engine, NetworkSettings, PortFilter, PortSettings, VlanMode, VlanSet};

use super::*;

const BLOCK: PortFacts = PortFacts { mode: LoopMode::Block, is_uplink: false };
const UPLINK: PortFacts = PortFacts { is_uplink: true, ..BLOCK };
const DETECT: PortFacts = PortFacts { mode: LoopMode::Detect, ..BLOCK };

/// A network of ports, and the world outside that joins some of them.
struct Lab {
    loops: Loops,
    segment: Segment,
    ports: Vec<PortId>,
    facts: Vec<PortFacts>,
    /// Pairs of ports: what is sent at the first comes in at the second.
    joined: BTreeSet<(usize, usize)>,
    /// Ports that the actions have blocked.
    blocked: BTreeSet<usize>,
    now: Duration,
    /// What happened, with its time in tenths of a second.
    log: Vec<(u64, Event)>,
    probes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Blocked(usize, u64),
    Opened(usize),
    WarnedOfMoves,
    WarnedOfLoop,
}

use Event::*;

impl Lab {
    fn new(facts: &[PortFacts]) -> Lab {
        let (network, ports) = ids(facts.len());
        Lab {
            loops: Loops::new(|_| Duration::ZERO),
            segment: Segment { network, vlan: VlanId::NONE },
            ports,
            facts: facts.to_vec(),
            joined: BTreeSet::new(),
            blocked: BTreeSet::new(),
            now: Duration::from_secs(1000),
            log: Vec::new(),
            probes: 0,
        }
    }

    /// Joins two ports in both directions.
    fn join(&mut self, a: usize, b: usize) {
        self.joined.extend([(a, b), (b, a)]);
    }

    fn index(&self, port: PortId) -> usize {
        self.ports.iter().position(|other| *other == port).unwrap()
    }

    fn suspect(&mut self, cause: Cause) {
        self.loops.suspect(self.segment, cause, self.now);
    }

    fn moves(&self, a: usize, b: usize) -> Cause {
        Cause::Moves([self.ports[a], self.ports[b]])
    }

    /// Whether a frame can circle: along joined pairs of open ports.
    fn has_loop(&self) -> bool {
        let is_open = |port: &usize| !self.blocked.contains(port);
        self.joined.iter().any(|(a, b)| is_open(a) && is_open(b))
    }

    /// Lets time pass. While a loop lasts, it is suspected again each second.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.loops.deadline().filter(|next| *next <= end) {
            assert!(next >= self.now, "no time is waited for twice");
            self.now = next;
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        for action in self.loops.due(self.now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let event = match action {
            Action::Probe(segment) => {
                assert_eq!(segment, self.segment);
                self.probes += 1;
                for (sent, received) in self.joined.clone() {
                    self.returned(sent, received);
                }
                return;
            }
            Action::Block { port, hold, .. } => {
                let port = self.index(port);
                assert!(self.blocked.insert(port), "blocked twice");
                Blocked(port, hold.as_secs())
            }
            Action::Open(port) => {
                let port = self.index(port);
                assert!(self.blocked.remove(&port), "was not blocked");
                Opened(port)
            }
            Action::WarnOfMoves(_) => WarnedOfMoves,
            Action::WarnOfLoop(_) => WarnedOfLoop,
        };
        self.log.push((self.now.as_millis() as u64 / 100 - 10_000, event));
    }

    fn returned(&mut self, sent: usize, received: usize) {
        let proof = Proof { sent: self.ports[sent], received: self.ports[received] };
        let (ports, facts) = (self.ports.clone(), self.facts.clone());
        let facts =
            |port: PortId| Some(facts[ports.iter().position(|other| *other == port).unwrap()]);
        if let Some(action) = self.loops.prove(self.segment, proof, facts, self.now) {
            self.act(action);
        }
    }

    fn events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.log)
    }
}

/// Makes IDs of a network and its ports.
fn ids(ports: usize) -> (NetworkId, Vec<PortId>) {
    let mut engine = Engine::new(1);
    let settings = NetworkSettings {
        name: String::new(),
        mtu: 1500,
        mac_table_size: 16,
        mac_aging: Duration::from_secs(300),
    };
    let network = engine.add_network(settings);
    let settings = PortSettings {
        name: String::new(),
        network: Some(network),
        vlan: VlanMode::Trunk { trunks: VlanSet::all() },
        cable: true,
        filter: PortFilter::default(),
        mark: 0,
        hdr_len: trama_switch::HdrLen::Headers,
    };
    let add = |_| {
        let device = Device::Dummy(dummy::dummy(1).0);
        engine.add_port(settings.clone(), device).unwrap().0
    };
    (network, (0..ports).map(add).collect())
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn nothing_is_waited_for_while_nothing_is_suspected() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    assert_eq!(lab.loops.deadline(), None);
    lab.suspect(lab.moves(0, 1));
    lab.pass(seconds(10));
    assert_eq!((lab.loops.deadline(), lab.probes), (None, 10));
    assert_eq!(lab.events(), [(12, WarnedOfMoves)]);
}

#[test]
fn a_loop_of_two_ports_blocks_one_until_it_is_gone() {
    let mut lab = Lab::new(&[BLOCK, BLOCK, BLOCK]);
    lab.join(1, 2);
    lab.suspect(lab.moves(1, 2));
    lab.pass(seconds(29));
    assert_eq!(lab.events(), [(0, Blocked(2, 30))]);
    // It stays, so the port stays blocked, for longer each time.
    lab.pass(seconds(3600));
    assert_eq!(lab.events(), []);
    assert_eq!(lab.loops.block(lab.ports[2]).unwrap().hold, seconds(1920));
    lab.pass(seconds(100_000));
    assert_eq!(lab.loops.block(lab.ports[2]).unwrap().hold, seconds(3600));
    assert_eq!(lab.events(), []);
    lab.joined.clear();
    lab.pass(seconds(3602));
    assert!(matches!(lab.events()[..], [(_, Opened(2))]));
    assert_eq!(lab.loops.deadline(), None);
}

#[test]
fn a_port_opens_after_thirty_seconds_and_blocks_for_longer_the_next_time() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    for (hold, quiet) in [(30, 60), (60, 60), (120, 599), (240, 600), (30, 0)] {
        lab.join(0, 1);
        let began = lab.now;
        lab.suspect(lab.moves(0, 1));
        lab.pass(seconds(1));
        lab.joined.clear();
        lab.pass(seconds(hold));
        let events: Vec<_> = lab.events().into_iter().map(|(_, event)| event).collect();
        assert_eq!(events, [Blocked(1, hold)]);
        lab.pass(Duration::from_millis(200));
        assert!(matches!(lab.events()[..], [(_, Opened(1))]));
        assert!(lab.now - began < seconds(hold + 2));
        lab.pass(seconds(quiet));
    }
}

#[test]
fn a_storm_is_probed_again_soon_and_then_seldom() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    let storm = Cause::Storm(lab.ports[0]);
    let mut probes = Vec::new();
    for second in 0..1000 {
        lab.suspect(storm);
        lab.pass(seconds(1));
        if [2, 60, 999].contains(&second) {
            probes.push(lab.probes);
        }
    }
    assert_eq!(lab.events(), [], "the storm has a line of its own");
    assert!(probes[0] > 10, "a second round within three seconds");
    assert!(probes[1] <= 80 && probes[2] <= 250, "{probes:?}");
    // A loop is then found within the longest pause.
    lab.join(0, 1);
    for _ in 0..62 {
        lab.suspect(storm);
        lab.pass(seconds(1));
    }
    assert!(matches!(lab.events()[..], [(_, Blocked(1, 30))]));
}

#[test]
fn a_bond_whose_addresses_move_is_warned_of_once() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    for _ in 0..7200 {
        lab.suspect(lab.moves(0, 1));
        lab.pass(seconds(1));
    }
    assert_eq!(lab.events(), [(12, WarnedOfMoves)]);
    // After ten minutes without, it is news again.
    lab.pass(seconds(600));
    lab.suspect(lab.moves(0, 1));
    lab.pass(seconds(2));
    assert!(matches!(lab.events()[..], [(_, WarnedOfMoves)]));
}

#[test]
fn an_uplink_is_never_blocked_and_a_loop_behind_it_only_warned_of() {
    for (a, b) in [(0, 1), (1, 0)] {
        let mut lab = Lab::new(&[UPLINK, BLOCK]);
        lab.joined.insert((a, b));
        lab.suspect(lab.moves(0, 1));
        lab.pass(seconds(3));
        assert_eq!(lab.events(), [(0, Blocked(1, 30))]);
    }
    let mut lab = Lab::new(&[UPLINK, BLOCK]);
    lab.joined.insert((0, 0));
    for _ in 0..100 {
        lab.suspect(Cause::Storm(lab.ports[0]));
        lab.pass(seconds(1));
    }
    assert_eq!(lab.events(), [(0, WarnedOfLoop)]);
}

#[test]
fn a_port_behind_which_a_loop_is_is_blocked() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    lab.joined.insert((1, 1));
    lab.suspect(Cause::Storm(lab.ports[1]));
    lab.pass(seconds(200));
    assert_eq!(lab.events(), [(0, Blocked(1, 30))]);
    lab.joined.clear();
    lab.pass(seconds(200));
    assert!(matches!(lab.events()[..], [(_, Opened(1))]));
}

#[test]
fn a_port_that_only_detects_is_warned_of_and_not_blocked() {
    let mut lab = Lab::new(&[BLOCK, DETECT]);
    lab.joined.insert((0, 1));
    for _ in 0..300 {
        lab.suspect(lab.moves(0, 1));
        lab.pass(seconds(1));
    }
    assert_eq!(lab.events(), [(0, WarnedOfLoop)]);
}

#[test]
fn a_proof_beside_a_blocked_port_changes_nothing() {
    let mut lab = Lab::new(&[BLOCK, BLOCK, BLOCK]);
    lab.join(0, 1);
    lab.suspect(lab.moves(0, 1));
    lab.pass(seconds(2));
    assert_eq!(lab.events(), [(0, Blocked(1, 30))]);
    // A probe that is still under way.
    lab.returned(0, 1);
    lab.returned(1, 0);
    lab.returned(2, 1);
    assert_eq!(lab.events(), []);
    assert_eq!(lab.loops.block(lab.ports[1]).unwrap().hold, HOLD);
}

#[test]
fn a_changed_port_is_released() {
    let mut lab = Lab::new(&[BLOCK, BLOCK]);
    lab.join(0, 1);
    lab.suspect(lab.moves(0, 1));
    lab.pass(seconds(2));
    let blocked = lab.ports[1];
    assert_eq!(lab.loops.release(|_, block| block.segment == lab.segment), []);
    assert_eq!(lab.loops.release(|port, _| port != blocked), [blocked]);
    assert_eq!(lab.loops.release(|_, _| false), []);
    assert!(!lab.loops.has_blocks() && lab.loops.deadline().is_none());
}

#[test]
fn a_bridge_of_three_ports_keeps_one_and_each_comes_back() {
    let mut lab = Lab::new(&[BLOCK; 3]);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        lab.join(a, b);
    }
    lab.suspect(lab.moves(0, 1));
    lab.pass(seconds(300));
    assert_eq!(lab.blocked.len(), 2);
    // Its open port is unplugged: one of the others takes over.
    let open = (0..3).find(|port| !lab.blocked.contains(port)).unwrap();
    lab.joined.retain(|(a, b)| *a != open && *b != open);
    lab.pass(seconds(1000));
    assert_eq!(lab.blocked.len(), 1);
    lab.joined.clear();
    lab.pass(seconds(4000));
    assert!(lab.blocked.is_empty());
}

/// Two networks, each with the ports 0 and 1, that two cables join: a probe that leaves at a port
/// crosses the other network and comes back at the other port.
struct Cables {
    ends: [(Segment, Vec<PortId>); 2],
    blocked: BTreeSet<(usize, usize)>,
}

impl Cables {
    fn new() -> Cables {
        let (network, ports) = ids(4);
        let segment = |vlan| Segment { network, vlan: VlanId::new(vlan).unwrap() };
        let ends = [(segment(1), ports[..2].to_vec()), (segment(2), ports[2..].to_vec())];
        Cables { ends, blocked: BTreeSet::new() }
    }

    /// Whether frames cross a cable.
    fn crosses(&self, cable: usize) -> bool {
        [0, 1].iter().all(|end| !self.blocked.contains(&(*end, cable)))
    }

    /// Does what `loops` wants by now. Whatever leaves at one time is seen before anything is
    /// blocked, as a block comes late for a probe that is on its way.
    fn step(&mut self, loops: &mut [&mut Loops], now: Duration) {
        let mut proofs = Vec::new();
        for (i, loops) in loops.iter_mut().enumerate() {
            for action in loops.due(now) {
                match action {
                    Action::Probe(segment) => proofs.extend(self.returned(i, segment)),
                    Action::Open(port) => drop(self.blocked.remove(&self.place(port))),
                    _ => {}
                }
            }
        }
        for (i, segment, proof) in proofs {
            let block = loops[i].prove(segment, proof, |_| Some(BLOCK), now);
            if let Some(Action::Block { port, .. }) = block {
                self.blocked.insert(self.place(port));
            }
        }
    }

    /// A blocked port still sends and takes probes, the other end's blocked port passes none on.
    fn returned(&self, by: usize, segment: Segment) -> Vec<(usize, Segment, Proof)> {
        let end = self.ends.iter().position(|(of, _)| *of == segment).unwrap();
        let is_open = |cable| !self.blocked.contains(&(1 - end, cable));
        if !is_open(0) || !is_open(1) {
            return Vec::new();
        }
        let ports = &self.ends[end].1;
        let proof = |sent: usize| Proof { sent: ports[sent], received: ports[1 - sent] };
        // Which of the two comes back first is a matter of chance; here they differ.
        [end, 1 - end].map(|sent| (by, segment, proof(sent))).to_vec()
    }

    fn place(&self, port: PortId) -> (usize, usize) {
        let place = |end: usize| self.ends[end].1.iter().position(|of| *of == port);
        [0, 1].into_iter().find_map(|end| Some((end, place(end)?))).unwrap()
    }

    /// Lets time pass; both ends suspect a loop each second while there is one. Returns how long
    /// nothing crossed.
    fn pass(&mut self, loops: &mut [&mut Loops], time: Duration) -> Duration {
        const STEP: Duration = Duration::from_millis(50);
        let (mut now, end) = (seconds(1000), seconds(1000) + time);
        let mut cut = Duration::ZERO;
        while now < end {
            let crossing = [0, 1].map(|cable| self.crosses(cable));
            if crossing == [true; 2] {
                for (i, (segment, ports)) in self.ends.iter().enumerate() {
                    let of = i % loops.len();
                    loops[of].suspect(*segment, Cause::Moves([ports[0], ports[1]]), now);
                }
            }
            self.step(loops, now);
            now += STEP;
            if crossing == [false; 2] {
                cut += STEP;
            }
        }
        cut
    }
}

#[test]
fn of_two_networks_that_two_cables_join_one_blocks() {
    let mut cables = Cables::new();
    let mut loops = Loops::new(|_| Duration::ZERO);
    assert_eq!(cables.pass(&mut [&mut loops], seconds(10_000)), Duration::ZERO);
    assert_eq!(cables.blocked.len(), 1);
}

#[test]
fn two_switches_that_block_at_once_do_not_try_again_at_once() {
    let mut cables = Cables::new();
    let mut a = Loops::new(|_| Duration::ZERO);
    let mut b = Loops::new(|hold| hold / 4);
    let cut = cables.pass(&mut [&mut a, &mut b], seconds(10_000));
    assert_eq!(cables.blocked.len(), 1, "nothing crossed for {cut:?}");
    assert!(seconds(30) < cut && cut < seconds(35), "nothing crossed for {cut:?}");
    for _ in 0..1000 {
        assert!(up_to_half(seconds(60)) < seconds(30));
    }
    assert!((0..20).any(|_| up_to_half(seconds(60)) > seconds(10)));
}

proptest! {
    /// Whatever is joined outside: within 1.3 s after the suspicion no frame circles, whatever is
    /// blocked is part of a loop, and after the longest time all ports are open again.
    #[test]
    fn loops_are_cut_and_ports_come_back(
        joined in prop::collection::btree_set((0usize..6, 0usize..6), 0..8),
        start in 0usize..6,
    ) {
        let mut lab = Lab::new(&[BLOCK; 6]);
        lab.joined = joined.clone();
        lab.suspect(Cause::Storm(lab.ports[start]));
        lab.pass(Duration::from_millis(1300));
        prop_assert!(!lab.has_loop(), "{:?} with {:?} blocked", joined, lab.blocked);
        for port in &lab.blocked {
            prop_assert!(joined.iter().any(|(a, b)| a == port || b == port));
        }
        // It stays cut while the loop lasts.
        lab.pass(seconds(1000));
        lab.joined.clear();
        lab.pass(seconds(2 * 3600));
        prop_assert!(lab.blocked.is_empty());
        prop_assert_eq!(lab.loops.deadline(), None);
    }
}
