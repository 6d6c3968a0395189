//! Mirrors: what an analyser gets, and that everybody else gets what they would without one.
#![cfg(test)]

use std::sync::Arc;

use proptest::prelude::*;
use trama_frame::{MacAddr, Offloads, VnetHeader};
use trama_switch::counters::{MirrorCounters, MirrorSnapshot};
use trama_switch::mirror::{MAX_MIRRORS, Mirror, MirrorOutput};
use trama_switch::ports::dummy::dummy_with_offloads;
use trama_switch::watch::{Reader, Way, queue};
use trama_switch::{Device, DropReason, Engine, EngineError, PortId, VlanMode, VlanSet};
use trama_test_kit::{
    Lab, access, c_tag, frame, large_segment, mac, network, port, tagged, trunk, vid, watch_of,
};

/// A mirror of all that enters, to this port.
fn everything(lab: &Lab, output: usize) -> (Mirror, Arc<MirrorCounters>) {
    let counters = Arc::<MirrorCounters>::default();
    let mirror = Mirror {
        sources: None,
        destinations: Vec::new(),
        vlans: VlanSet::all(),
        filter: None,
        output: MirrorOutput::Port(lab.stations[output].id),
        snaplen: None,
        counters: Arc::clone(&counters),
    };
    (mirror, counters)
}

fn ids(lab: &Lab, ports: &[usize]) -> Vec<PortId> {
    ports.iter().map(|port| lab.stations[*port].id).collect()
}

fn count(frames: u64, bytes: u64, lost: u64) -> MirrorSnapshot {
    MirrorSnapshot { frames, bytes, lost }
}

#[test]
fn a_frame_that_is_selected_twice_is_copied_once() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk(), trunk()]);
    let (mut mirror, counters) = everything(&lab, 3);
    (mirror.sources, mirror.destinations) = (Some(ids(&lab, &[0])), ids(&lab, &[0, 1, 2]));
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    // It enters from a source, and leaves to two destinations.
    let hello = frame(MacAddr::BROADCAST, mac(1), 60);
    let got = lab.send(0, &hello);
    assert_eq!(got, [vec![], vec![hello.clone()], vec![hello.clone()], vec![hello]]);
    // It leaves to a destination alone; then the other way.
    let there = frame(mac(1), mac(2), 61);
    assert_eq!(lab.send(1, &there), [vec![there.clone()], vec![], vec![], vec![there]]);
    let back = frame(mac(2), mac(1), 62);
    assert_eq!(lab.send(0, &back), [vec![], vec![back.clone()], vec![], vec![back]]);
    assert_eq!(counters.snapshot(), count(3, 60 + 61 + 62, 0));
}

#[test]
fn an_output_takes_nothing_else_and_sends_nothing() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    // Its station was known, and has an address of its own.
    lab.set(2, |settings| settings.filter.own_address = Some(mac(3)));
    lab.send(2, &frame(mac(1), mac(4), 60));
    let (mut mirror, _) = everything(&lab, 2);
    mirror.sources = Some(Vec::new());
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    for to in [MacAddr::BROADCAST, mac(3), mac(4)] {
        let bytes = frame(to, mac(1), 60);
        assert_eq!(lab.send(0, &bytes), [vec![], vec![bytes], vec![]], "{to}");
    }
    assert_eq!(lab.send(2, &frame(MacAddr::BROADCAST, mac(4), 60)).concat().concat(), [0; 0]);
    assert_eq!(lab.dropped(2, DropReason::MirrorOutput), 1);
    // Its settings can change meanwhile; it is an ordinary port again afterwards.
    lab.set(2, |settings| settings.vlan = access(10));
    lab.engine.set_mirrors(lab.network, Vec::new()).unwrap();
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    assert_eq!(lab.send(0, &bytes), [vec![], vec![bytes.clone()], vec![]]);
    assert_eq!(lab.send(0, &tagged(c_tag(10), &bytes))[2], [bytes]);
}

#[test]
fn copies_leave_tagged_as_the_output_does() {
    let native = VlanMode::NativeUntagged { tag: vid(10), trunks: VlanSet::from_iter([vid(30)]) };
    let plain = frame(MacAddr::BROADCAST, mac(1), 60);
    let with = |vlan| tagged(c_tag(vlan), &plain);
    for (mode, wanted) in [
        (trunk(), [with(10), with(20)]),
        // It carries neither.
        (access(99), [plain.clone(), plain.clone()]),
        (native, [plain.clone(), with(20)]),
    ] {
        let mut lab = Lab::new(&[access(10), access(20), mode]);
        let (mirror, _) = everything(&lab, 2);
        lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
        let got = [0, 1].map(|from| lab.send(from, &plain)[2].concat());
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_capture_at_an_output_sees_the_copies() {
    let plain = frame(MacAddr::BROADCAST, mac(1), 60);
    for mode in [trunk(), access(99)] {
        let mut lab = Lab::new(&[access(10), access(10), mode]);
        let (writer, mut reader) = queue(1 << 16).unwrap();
        lab.engine.watch(lab.network, watch_of(ids(&lab, &[2]), writer)).unwrap();
        let (mirror, counters) = everything(&lab, 2);
        lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
        let got = lab.send(0, &plain)[2].concat();
        let record = reader.read().unwrap();
        let wanted = (Way::Sent, None, got.as_slice());
        assert_eq!((record.way, record.drop, record.bytes), wanted);
        lab.set(2, |settings| settings.cable = false);
        lab.send(0, &plain);
        assert_eq!(reader.read().unwrap().drop, Some(DropReason::EgressDown));
        assert!(reader.read().is_none());
        assert_eq!(counters.snapshot(), count(1, 60, 1));
    }
}

#[test]
fn a_vlan_takes_copies_to_all_its_ports() {
    let mut lab = Lab::new(&[access(10), access(10), trunk(), access(99)]);
    let (mut mirror, counters) = everything(&lab, 3);
    mirror.output = MirrorOutput::Vlan(vid(99));
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    let plain = frame(MacAddr::BROADCAST, mac(1), 60);
    let with = |vlan| tagged(c_tag(vlan), &plain);
    let got = lab.send(0, &plain);
    assert_eq!(got, [vec![], vec![plain.clone()], vec![with(99), with(10)], vec![plain.clone()]]);
    assert_eq!(counters.snapshot().frames, 2);
    // Frames of the VLAN itself are not copied to it again.
    assert_eq!(lab.send(3, &plain), [vec![], vec![], vec![with(99)], vec![]]);
    assert_eq!(counters.snapshot().frames, 2);
}

#[test]
fn filter_vlans_and_length_choose_what_is_copied() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk(), trunk(), trunk()]);
    let [mut few, mut short, mut one] = [2, 3, 4].map(|output| everything(&lab, output).0);
    few.filter = Some(Box::new(|glimpse| glimpse.len > 70));
    short.snaplen = Some(64);
    one.vlans = VlanSet::from_iter([vid(7)]);
    lab.engine.set_mirrors(lab.network, vec![few, short, one]).unwrap();
    let [small, large] = [60, 80].map(|len| frame(MacAddr::BROADCAST, mac(1), len));
    let in_vlan = tagged(c_tag(7), &large);
    for bytes in [&small, &large, &in_vlan] {
        lab.stations[0].send(bytes);
    }
    lab.settle();
    let got: Vec<_> = lab.stations[2..].iter().map(|station| station.frames()).collect();
    assert_eq!(got[0], [large.clone(), in_vlan.clone()]);
    assert_eq!(got[1], [small, large[..64].to_vec(), in_vlan[..64].to_vec()]);
    assert_eq!(got[2], [in_vlan]);
}

/// A segment that is cut loses the offloads that it asked for; a whole one keeps them.
#[test]
fn a_large_segment_is_copied_whole_or_cut() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk(), trunk()]);
    let [mut cut, whole] = [2, 3].map(|output| everything(&lab, output).0);
    cut.snaplen = Some(100);
    lab.engine.set_mirrors(lab.network, vec![cut, whole]).unwrap();
    let (header, bytes) = large_segment(MacAddr::BROADCAST, mac(1), 8000);
    lab.stations[0].handle.inject(header, &bytes).unwrap();
    lab.settle();
    let got = |port: usize| lab.stations[port].handle.captured().remove(0);
    let (cut, whole) = (got(2), got(3));
    assert_eq!((cut.header, &cut.bytes), (VnetHeader::default(), &bytes[..100].to_vec()));
    assert_eq!((whole.header.gso_size, &whole.bytes), (header.gso_size, &bytes));
    let sent = lab.stations[2].counters.snapshot();
    assert_eq!((sent.tx_frames, sent.tx_bytes, sent.tx_gso_frames), (1, 100, 0));
}

#[test]
fn what_the_output_cannot_take_is_lost_and_delays_nobody() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let (device, _handle) = dummy_with_offloads(2, Offloads::ALL);
    let settings = port(lab.network, trunk());
    let (output, port_counters) = lab.engine.add_port(settings, Device::Dummy(device)).unwrap();
    let (mut mirror, counters) = everything(&lab, 0);
    mirror.output = MirrorOutput::Port(output);
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    (0..5).for_each(|_| lab.stations[0].send(&bytes));
    lab.settle();
    assert_eq!(lab.stations[1].frames().len(), 5);
    assert_eq!(counters.snapshot(), count(2, 120, 3));
    assert_eq!(port_counters.snapshot().dropped(DropReason::EgressFull), 3);
    // Without its cable it takes none.
    let unplugged = trama_switch::PortSettings { cable: false, ..port(lab.network, trunk()) };
    lab.engine.set_port(output, unplugged).unwrap();
    lab.send(0, &bytes);
    assert_eq!(counters.snapshot(), count(2, 120, 4));
    assert_eq!(port_counters.snapshot().dropped(DropReason::EgressDown), 1);
}

#[test]
fn a_mirror_waits_for_its_ports() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let (mut mirror, counters) = everything(&lab, 2);
    mirror.sources = Some(ids(&lab, &[0]));
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    for gone in [0, 2] {
        lab.set(gone, |settings| settings.network = None);
        lab.send(0, &bytes);
        assert_eq!(counters.snapshot().frames + counters.snapshot().lost, 0);
        lab.set(gone, |_| {});
    }
    assert_eq!(lab.send(0, &bytes)[2], std::slice::from_ref(&bytes));
    // It moves with its network.
    let mut other = lab.engine.sibling();
    let doorbell = trama_switch::Doorbell::default();
    let moved = lab.engine.give_network(lab.network, &doorbell).unwrap();
    other.take_network(moved, trama_switch::Time(lab.clock));
    lab.engine = other;
    assert_eq!(lab.send(0, &bytes)[2], [bytes]);
    let too_many = (0..=MAX_MIRRORS).map(|_| everything(&lab, 2).0).collect();
    let refused = lab.engine.set_mirrors(lab.network, too_many);
    assert!(matches!(refused, Err(EngineError::TooManyMirrors(MAX_MIRRORS))));
    let elsewhere = network(&mut Engine::new(1), 1500);
    assert!(Engine::new(2).set_mirrors(elsewhere, Vec::new()).is_err());
}

/// Each engine counts its bursts: that of the same number on another one has other frames.
#[test]
fn the_first_burst_on_another_worker_is_copied() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let (mut mirror, _) = everything(&lab, 2);
    mirror.sources = Some(ids(&lab, &[0]));
    lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    for _ in 0..2 {
        assert_eq!(lab.send(0, &bytes)[2], std::slice::from_ref(&bytes));
        let mut other = lab.engine.sibling();
        let moved = lab.engine.give_network(lab.network, &Default::default()).unwrap();
        other.take_network(moved, trama_switch::Time(lab.clock));
        lab.engine = other;
    }
}

/// A random mirror.
#[derive(Clone, Debug)]
struct Plan {
    sources: Option<Vec<usize>>,
    destinations: Vec<usize>,
    vlans: Vec<u16>,
    /// A port, or this VLAN.
    output: Result<usize, u16>,
}

/// The analyser's port in the property below; the others are 0 to 3.
const OUTPUT: usize = 4;

fn modes(output: &VlanMode) -> [VlanMode; 5] {
    [access(10), trunk(), access(10), access(20), output.clone()]
}

fn plan() -> impl Strategy<Value = Plan> {
    let ports = || prop::collection::vec(0..4usize, 0..4);
    let output = prop_oneof![Just(Ok(OUTPUT)), Just(Err(30u16)), Just(Err(10))];
    let vlans = prop::collection::vec((0..4u16).prop_map(|vlan| vlan * 10), 0..3);
    (prop::option::of(ports()), ports(), vlans, output).prop_map(
        |(sources, destinations, vlans, output)| Plan { sources, destinations, vlans, output },
    )
}

/// One frame: its port, destination, source, VLAN, length.
type Sent = (usize, u8, u8, u16, usize);

fn sent() -> impl Strategy<Value = Sent> {
    (0..5usize, 0..8u8, 0..6u8, (0..4u16).prop_map(|vlan| vlan * 10), 20..200usize)
}

fn send(lab: &mut Lab, &(from, to, source, vlan, len): &Sent) {
    let to = if to == 7 { MacAddr::BROADCAST } else { mac(to) };
    let bytes = frame(to, mac(source), len);
    lab.stations[from].send(&if vlan == 0 { bytes } else { tagged(c_tag(vlan), &bytes) });
}

/// A copy that a mirror owes: the port that the frame entered from, its VLAN, itself without tag.
type Owed = (usize, u16, Vec<u8>);

/// The model: watches a switch without mirrors, and says what the mirror owes.
fn owed(lab: &Lab, reader: &mut Reader, plan: &Plan) -> Vec<Owed> {
    let mut frames: Vec<(u64, Owed, bool)> = Vec::new();
    while let Some(record) = reader.read() {
        let at = lab.stations.iter().position(|station| station.id == record.port).unwrap();
        let port_vlan = [10, 0, 10, 20, 0][at];
        let is_tagged = record.bytes[12..14] == [0x81, 0];
        let tag = u16::from_be_bytes([record.bytes[14], record.bytes[15]]);
        let vlan = if is_tagged { tag } else { port_vlan };
        let mut plain = record.bytes.to_vec();
        if is_tagged {
            plain.drain(12..16);
        }
        let has_vlan = !matches!(
            record.drop,
            Some(DropReason::VlanNotAllowed | DropReason::NotAttached | DropReason::Runt)
        );
        let selects = match record.way {
            Way::Received => {
                has_vlan && plan.sources.as_ref().is_none_or(|sources| sources.contains(&at))
            }
            Way::Sent => record.drop.is_none() && plan.destinations.contains(&at),
        };
        match frames.iter_mut().find(|(id, ..)| *id == record.id) {
            Some((.., is_owed)) => *is_owed |= selects,
            None => frames.push((record.id, (at, vlan, plain), selects)),
        }
    }
    let is_wanted = |vlan: u16| {
        (plan.vlans.is_empty() || plan.vlans.contains(&vlan)) && plan.output != Err(vlan)
    };
    let owed = frames.into_iter().filter(|(_, (_, vlan, _), is_owed)| *is_owed && is_wanted(*vlan));
    owed.map(|(_, owed, _)| owed).collect()
}

fn form(mode: &VlanMode, vlan: u16, plain: &[u8]) -> Vec<u8> {
    match mode {
        VlanMode::Trunk { .. } if vlan != 0 => tagged(c_tag(vlan), plain),
        _ => plain.to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_station_gets_what_it_would_and_the_analyser_what_is_owed(
        plan in plan(),
        output_mode in prop_oneof![Just(access(0)), Just(trunk())],
        rounds in prop::collection::vec(prop::collection::vec(sent(), 1..8), 1..20),
    ) {
        let modes = modes(&output_mode);
        let mut model = Lab::new(&modes);
        let mut lab = Lab::new(&modes);
        if plan.output.is_ok() {
            // To the others, an analyser's port is one that is not there.
            model.set(OUTPUT, |settings| settings.network = None);
        }
        let (writer, mut reader) = queue(1 << 20).unwrap();
        let watched = watch_of(ids(&model, &[0, 1, 2, 3, 4]), writer);
        model.engine.watch(model.network, watched).unwrap();
        let (mut mirror, counters) = everything(&lab, OUTPUT);
        mirror.sources = plan.sources.as_ref().map(|sources| ids(&lab, sources));
        mirror.destinations = ids(&lab, &plan.destinations);
        mirror.vlans = plan.vlans.iter().map(|vlan| vid(*vlan)).collect();
        if let Err(vlan) = plan.output {
            mirror.output = MirrorOutput::Vlan(vid(vlan));
        }
        lab.engine.set_mirrors(lab.network, vec![mirror]).unwrap();
        let mut copies = 0;
        for round in &rounds {
            for frame in round {
                send(&mut model, frame);
                send(&mut lab, frame);
            }
            model.settle();
            lab.settle();
            let owed = owed(&model, &mut reader, &plan);
            for (place, mode) in modes.iter().enumerate() {
                let mut wanted = model.stations[place].frames();
                for (from, vlan, plain) in &owed {
                    let to = match plan.output {
                        Ok(output) => (place == output).then_some(*vlan),
                        Err(vlan) => (place != *from && mode.carries(vid(vlan))).then_some(vlan),
                    };
                    if let Some(vlan) = to {
                        copies += 1;
                        wanted.push(form(mode, vlan, plain));
                    }
                }
                let mut got = lab.stations[place].frames();
                wanted.sort();
                got.sort();
                prop_assert_eq!(got, wanted, "port {} in {:?}", place, round);
            }
        }
        prop_assert_eq!(counters.snapshot().frames, copies);
        for place in 0..4 {
            let [one, other] = [&lab, &model].map(|lab| lab.stations[place].counters.snapshot());
            prop_assert_eq!(one.drops, other.drops);
            prop_assert_eq!(one.rx_frames, other.rx_frames);
        }
    }
}
