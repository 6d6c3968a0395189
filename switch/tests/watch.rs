//! Watches: what a capture gets to see, and that nothing else changes.
#![cfg(test)]

use std::num::NonZeroU32;

use proptest::prelude::*;
use trama_frame::MacAddr;
use trama_switch::watch::{
    Egress, MAX_WATCHES, Reader, Sampling, Watch, WatchId, Way, Ways, queue,
};
use trama_switch::{DropReason, EngineError, PortId, VlanMode};
use trama_test_kit::{Lab, access, c_tag, frame, mac, tagged, trunk, watch_of};

/// A record without what depends on the run.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    port: usize,
    way: Way,
    id: u64,
    drop: Option<DropReason>,
    len: usize,
    bytes: Vec<u8>,
}

/// Watches these ports; `change` alters what is watched.
fn watch(lab: &mut Lab, ports: &[usize], change: impl FnOnce(&mut Watch)) -> (WatchId, Reader) {
    let (writer, reader) = queue(1 << 20).unwrap();
    let mut watch = watch_of(ports.iter().map(|port| lab.stations[*port].id).collect(), writer);
    change(&mut watch);
    (lab.engine.watch(lab.network, watch).unwrap(), reader)
}

/// Returns what was seen since the last call.
fn read_all(lab: &Lab, reader: &mut Reader) -> Vec<Seen> {
    let place = |id: PortId| lab.stations.iter().position(|station| station.id == id).unwrap();
    std::iter::from_fn(|| {
        let record = reader.read()?;
        Some(Seen {
            port: place(record.port),
            way: record.way,
            id: record.id,
            drop: record.drop,
            len: record.len,
            bytes: record.bytes.to_vec(),
        })
    })
    .collect()
}

/// Has a watch look at one way alone.
fn only(watch: &mut Watch, way: Way) {
    let ways = Ways { received: way == Way::Received, sent: way == Way::Sent };
    (watch.frames, watch.dropped) = (ways, ways);
}

#[test]
fn a_frame_is_seen_as_its_machine_sees_it_with_one_id_everywhere() {
    let mut lab = Lab::new(&[access(10), trunk(), access(10), access(20)]);
    let (_, mut reader) = watch(&mut lab, &[0, 1, 2, 3], |_| {});
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    lab.stations[0].send(&bytes);
    lab.stations[0].send(&bytes);
    lab.settle();
    let seen = read_all(&lab, &mut reader);
    let of = |seen: &Seen| (seen.port, seen.way, seen.bytes.clone());
    let entry = (0, Way::Received, bytes.clone());
    let exits = [(1, Way::Sent, tagged(c_tag(10), &bytes)), (2, Way::Sent, bytes.clone())];
    // What enters in a burst is seen before what leaves.
    assert_eq!(
        seen.iter().map(of).collect::<Vec<_>>(),
        [
            entry.clone(),
            entry,
            exits[0].clone(),
            exits[0].clone(),
            exits[1].clone(),
            exits[1].clone(),
        ]
    );
    let ids: Vec<u64> = seen.iter().map(|seen| seen.id).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2..], [ids[0], ids[1], ids[0], ids[1]]);
    // A later burst has others.
    lab.stations[0].send(&bytes);
    lab.settle();
    assert!(read_all(&lab, &mut reader).iter().all(|seen| !ids.contains(&seen.id)));
}

#[test]
fn a_dropped_frame_is_seen_with_its_reason_where_it_is_counted() {
    let mut lab = Lab::new(&[access(10), access(10), access(20)]);
    let (_, mut reader) = watch(&mut lab, &[0, 1, 2], |watch| watch.frames = Ways::default());
    let mut expect = |lab: &mut Lab, from: usize, bytes: &[u8], at: usize, reason: DropReason| {
        lab.stations[from].send(bytes);
        lab.settle();
        let seen = read_all(lab, &mut reader);
        let of = |seen: &Seen| (seen.port, seen.drop, seen.bytes.clone());
        let wanted = [(at, Some(reason), bytes.to_vec())];
        assert_eq!(seen.iter().map(of).collect::<Vec<_>>(), wanted);
        assert_eq!(lab.stations[at].counters.snapshot().dropped(reason), 1);
    };
    let hello = frame(mac(9), mac(1), 60);
    let bad_vlan = tagged(c_tag(30), &hello);
    expect(&mut lab, 0, &bad_vlan, 0, DropReason::VlanNotAllowed);
    expect(&mut lab, 0, &[1; 10], 0, DropReason::Runt);
    expect(&mut lab, 2, &frame(MacAddr::BROADCAST, mac(3), 60), 2, DropReason::NoMember);
    expect(&mut lab, 0, &frame(mac(9), MacAddr::BROADCAST, 60), 0, DropReason::SourceInvalid);
    // The receiver's cable: counted where the frame would leave.
    lab.stations[1].send(&frame(mac(9), mac(2), 60));
    lab.settle();
    lab.set(1, |settings| (settings.vlan, settings.cable) = (access(10), false));
    let broadcast = frame(MacAddr::BROADCAST, mac(1), 61);
    expect(&mut lab, 0, &broadcast, 1, DropReason::EgressDown);
    // And the sender's own.
    expect(&mut lab, 1, &broadcast, 1, DropReason::CableOut);
}

#[test]
fn drops_of_either_way_are_seen_beside_frames_of_one() {
    let mut lab = Lab::new(&[access(10), access(10), access(10)]);
    let (_, mut reader) = watch(&mut lab, &[0, 1, 2], |watch| watch.frames.sent = false);
    lab.set(1, |settings| settings.cable = false);
    lab.stations[0].send(&frame(MacAddr::BROADCAST, mac(1), 60));
    lab.settle();
    let seen = read_all(&lab, &mut reader);
    let of = |seen: &Seen| (seen.port, seen.way, seen.drop);
    // It enters, and one of two receivers does not get it.
    let mut seen: Vec<_> = seen.iter().map(of).collect();
    seen.sort_by_key(|(port, ..)| *port);
    let down = Some(DropReason::EgressDown);
    assert_eq!(seen, [(0, Way::Received, None), (1, Way::Sent, down)]);
}

#[test]
fn only_the_chosen_frames_are_seen() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let [there, back] = [frame(mac(2), mac(1), 60), frame(mac(1), mac(2), 200)];
    let mut readers = [
        watch(&mut lab, &[0], |watch| only(watch, Way::Received)).1,
        watch(&mut lab, &[0], |watch| only(watch, Way::Sent)).1,
        watch(&mut lab, &[0], |watch| watch.filter = Some(Box::new(|glimpse| glimpse.len > 100))).1,
        watch(&mut lab, &[2], |watch| watch.snaplen = 20).1,
    ];
    lab.stations[0].send(&there);
    lab.settle();
    lab.stations[1].send(&back);
    lab.settle();
    let mut lengths = |i: usize| {
        let seen = read_all(&lab, &mut readers[i]);
        seen.iter().map(|seen| (seen.way, seen.len, seen.bytes.len())).collect::<Vec<_>>()
    };
    assert_eq!(lengths(0), [(Way::Received, 60, 60)]);
    assert_eq!(lengths(1), [(Way::Sent, 200, 200)]);
    assert_eq!(lengths(2), [(Way::Sent, 200, 200)]);
    assert_eq!(lengths(3), [(Way::Sent, 60, 20)], "the first was flooded");
}

#[test]
fn a_watch_ends_with_its_counts_and_its_reader_learns_it() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let (id, mut reader) = watch(&mut lab, &[0], |_| {});
    lab.stations[0].send(&frame(mac(2), mac(1), 60));
    lab.settle();
    let (writer, counts) = lab.engine.unwatch(lab.network, id).unwrap();
    assert_eq!((counts[0].port, counts[0].captured, counts[0].missed), (lab.stations[0].id, 1, 0));
    assert!(!reader.is_over());
    drop(writer);
    assert!(!reader.is_over(), "a record is left");
    assert_eq!(read_all(&lab, &mut reader).len(), 1);
    assert!(reader.is_over());
    assert!(lab.engine.unwatch(lab.network, id).is_none());
    // Its place is free again, and the port is as before.
    let watches: Vec<_> = (0..MAX_WATCHES).map(|_| watch(&mut lab, &[0], |_| {})).collect();
    let (writer, _reader) = queue(1 << 16).unwrap();
    let one_more = lab.engine.watch(lab.network, watch_of(Vec::new(), writer));
    assert!(matches!(one_more, Err(EngineError::TooManyWatches(MAX_WATCHES))));
    // With its network, too.
    drop(lab.engine.remove_network(lab.network).unwrap());
    assert!(watches.iter().all(|(_, reader)| reader.is_over()));
}

#[test]
fn a_port_can_join_a_watch_and_leaves_it_with_its_network() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let (id, mut reader) = watch(&mut lab, &[0], |_| {});
    lab.engine.extend_watch(id, lab.stations[1].id).unwrap();
    lab.stations[0].send(&frame(mac(2), mac(1), 60));
    lab.settle();
    let ports: Vec<usize> = read_all(&lab, &mut reader).iter().map(|seen| seen.port).collect();
    assert_eq!(ports, [0, 1]);
    lab.set(1, |settings| settings.network = None);
    lab.set(1, |_| {});
    lab.stations[1].send(&frame(mac(1), mac(2), 60));
    lab.settle();
    let ports: Vec<usize> = read_all(&lab, &mut reader).iter().map(|seen| seen.port).collect();
    assert_eq!(ports, [0]);
}

/// A step of a random run: a frame of some kind, or a change.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send { from: usize, to: u8, source: u8, vlan: u16, len: usize },
    Cable { port: usize, plugged: bool },
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0..4usize, 0..8u8, 0..6u8, 0..4u16, 10..200usize).prop_map(
        |(from, to, source, vlan, len)| Step::Send { from, to, source, vlan: vlan * 10, len },
    );
    let cable =
        (0..4usize, any::<bool>()).prop_map(|(port, plugged)| Step::Cable { port, plugged });
    prop_oneof![8 => send, 1 => cable, 2 => Just(Step::Settle)]
}

fn modes() -> [VlanMode; 4] {
    [access(10), trunk(), access(10), access(20)]
}

/// Runs the steps; returns the frames that each station got.
fn run(lab: &mut Lab, steps: &[Step]) -> Vec<Vec<Vec<u8>>> {
    let mut got = vec![Vec::new(); lab.stations.len()];
    for step in steps {
        match *step {
            Step::Send { from, to, source, vlan, len } => {
                let to = if to == 7 { MacAddr::BROADCAST } else { mac(to) };
                let bytes = frame(to, mac(source), len.max(14));
                let bytes = if vlan == 0 { bytes } else { tagged(c_tag(vlan), &bytes) };
                lab.stations[from].send(&bytes[..len.min(bytes.len())]);
            }
            Step::Cable { port, plugged } => {
                let vlan = modes()[port].clone();
                lab.set(port, |settings| (settings.vlan, settings.cable) = (vlan, plugged));
            }
            Step::Settle => {
                lab.settle();
                for (got, station) in got.iter_mut().zip(&lab.stations) {
                    got.extend(station.frames());
                }
            }
        }
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Every frame that is counted is seen or missed, at its port and with its reason; what leaves
    /// is what the machine gets; and the switch does the same as without a watch.
    #[test]
    fn what_is_seen_and_missed_is_what_is_counted(
        mut steps in prop::collection::vec(step(), 1..120),
        watched in prop::collection::vec(any::<bool>(), 4),
        bytes in prop_oneof![Just(1usize << 20), 200..2000usize],
    ) {
        steps.push(Step::Settle);
        let mut unwatched = Lab::new(&modes());
        let wanted = run(&mut unwatched, &steps);

        let mut lab = Lab::new(&modes());
        let (writer, mut reader) = queue(bytes).unwrap();
        let ports = (0..4).filter(|port| watched[*port]).map(|port| lab.stations[port].id);
        let watch = watch_of(ports.collect(), writer);
        let id = lab.engine.watch(lab.network, watch).unwrap();
        let got = run(&mut lab, &steps);
        prop_assert_eq!(&got, &wanted);

        let seen = read_all(&lab, &mut reader);
        let (_, counts) = lab.engine.unwatch(lab.network, id).unwrap();
        for (place, station) in lab.stations.iter().enumerate() {
            let counted = station.counters.snapshot();
            prop_assert_eq!(counted, unwatched.stations[place].counters.snapshot());
            let Some(count) = counts.iter().find(|count| count.port == station.id) else {
                prop_assert!(!watched[place]);
                prop_assert!(seen.iter().all(|seen| seen.port != place));
                continue;
            };
            let total = counted.rx_frames + counted.tx_frames + counted.dropped_total();
            prop_assert_eq!(count.captured + count.missed, total);
            let here: Vec<&Seen> = seen.iter().filter(|seen| seen.port == place).collect();
            prop_assert_eq!(here.len() as u64, count.captured);
            if count.missed != 0 {
                continue;
            }
            for reason in DropReason::ALL {
                let dropped = here.iter().filter(|seen| seen.drop == Some(*reason)).count();
                prop_assert_eq!(dropped as u64, counted.dropped(*reason), "{}", reason.name());
            }
            let sent = here.iter().filter(|seen| seen.way == Way::Sent && seen.drop.is_none());
            let sent: Vec<Vec<u8>> = sent.map(|seen| seen.bytes.clone()).collect();
            prop_assert_eq!(&sent, &got[place]);
        }
    }
}

#[test]
fn a_sample_says_where_a_frame_leaves_and_has_no_more_than_its_part() {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let sampled = |lab: &mut Lab, rate: u32| {
        watch(lab, &[0], |watch| {
            only(watch, Way::Received);
            watch.snaplen = 20;
            let rate = NonZeroU32::new(rate).unwrap();
            watch.sampling = Some(Sampling { rate, seed: 7 });
        })
        .1
    };
    let (mut all, mut some) = (sampled(&mut lab, 1), sampled(&mut lab, 10));
    let second = lab.stations[1].id;
    // Known at 1; unknown to all; forbidden.
    lab.stations[1].send(&frame(mac(9), mac(2), 60));
    lab.settle();
    let reserved = MacAddr([1, 0x80, 0xc2, 0, 0, 0]);
    for (to, len) in [(mac(2), 60), (mac(8), 90), (reserved, 70)] {
        lab.stations[0].send(&frame(to, mac(1), len));
        lab.settle();
    }
    let found: Vec<_> =
        std::iter::from_fn(|| all.read().map(|it| (it.egress, it.len, it.bytes.len(), it.drop)))
            .collect();
    assert_eq!(
        found,
        [
            (Egress::Port(second), 60, 20, None),
            (Egress::Several, 90, 20, None),
            (Egress::Unknown, 70, 20, Some(DropReason::ReservedMulticast)),
        ]
    );
    for _ in 0..5000 {
        lab.stations[0].send(&frame(mac(2), mac(1), 60));
        lab.settle();
    }
    let part = std::iter::from_fn(|| some.read().map(drop)).count();
    assert!((400..600).contains(&part), "{part}");
}
