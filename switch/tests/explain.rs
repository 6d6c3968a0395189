//! An explanation foretells what happens: the same ports, tags and reasons.
#![cfg(test)]

use std::sync::Arc;

use proptest::prelude::*;
use trama_frame::{MacAddr, Offloads, VlanTag};
use trama_switch::counters::MirrorCounters;
use trama_switch::explain::{Explanation, Route};
use trama_switch::mirror::{Mirror, MirrorOutput};
use trama_switch::vlan::VlanSet;
use trama_switch::{
    DropReason, Engine, NetworkId, PortFilter, PortSettings, Promiscuous, Spoof, Station as Behind,
    StormLimits, Time, VlanMode,
};
use trama_test_kit::{Station, access, frame, mac, network, port, tagged, trunk, vid};

const PORTS: usize = 4;
/// A round of the clock, in nanoseconds.
const ROUND: u64 = 1_000_000;

struct Lab {
    engine: Engine,
    network: NetworkId,
    stations: Vec<Station>,
    clock: u64,
}

impl Lab {
    fn new(settings: &[PortSettings]) -> Lab {
        let mut engine = Engine::new(7);
        let network = network(&mut engine, 1500);
        let add = |settings: &PortSettings| {
            let settings = PortSettings { network: Some(network), ..settings.clone() };
            Station::add(&mut engine, settings, Offloads::ALL)
        };
        let stations = settings.iter().map(add).collect();
        Lab { engine, network, stations, clock: 0 }
    }

    /// Adds a port that takes the copies of a mirror.
    fn mirror(&mut self, seen: Seen) -> Arc<MirrorCounters> {
        let settings = PortSettings { network: Some(self.network), ..port_of_no_network(trunk()) };
        let output = Station::add(&mut self.engine, settings, Offloads::ALL).id;
        let ids = |ports: Vec<usize>| ports.iter().map(|port| self.stations[*port].id).collect();
        let counters = Arc::<MirrorCounters>::default();
        let mirror = Mirror {
            sources: seen.sources.map(ids),
            destinations: ids(seen.destinations),
            vlans: seen.vlans,
            filter: Some(Box::new(|glimpse| glimpse.len < 120)),
            output: MirrorOutput::Port(output),
            snaplen: None,
            counters: Arc::clone(&counters),
        };
        self.engine.set_mirrors(self.network, vec![mirror]).unwrap();
        counters
    }

    fn explain(&mut self, from: usize, bytes: &[u8]) -> Explanation {
        let now = Time(self.clock + ROUND);
        self.engine.explain(self.stations[from].id, bytes, now).unwrap()
    }

    fn send(&mut self, from: usize, bytes: &[u8]) {
        self.stations[from].send(bytes);
        self.clock += ROUND;
        while self.engine.poll(Time(self.clock)) {}
    }
}

/// What a mirror copies.
#[derive(Clone, Debug)]
struct Seen {
    sources: Option<Vec<usize>>,
    destinations: Vec<usize>,
    vlans: VlanSet,
}

fn some_mirror() -> impl Strategy<Value = Seen> {
    let ports = || prop::collection::vec(0..PORTS, 0..3);
    let vlans =
        prop_oneof![Just(VlanSet::all()), Just([vid(0), vid(10)].into_iter().collect::<VlanSet>())];
    (prop::option::of(ports()), ports(), vlans).prop_map(|(sources, destinations, vlans)| Seen {
        sources,
        destinations,
        vlans,
    })
}

fn some_port() -> impl Strategy<Value = PortSettings> {
    let vlan = prop_oneof![
        4 => (1..4u16).prop_map(|vlan| access(10 * vlan)),
        2 => Just(trunk()),
        1 => Just(VlanMode::Trunk { trunks: [vid(10), vid(20)].into_iter().collect::<VlanSet>() }),
        1 => Just(VlanMode::NativeUntagged { tag: vid(10), trunks: VlanSet::all() }),
        1 => Just(VlanMode::NativeTagged { tag: vid(20), trunks: VlanSet::all() }),
    ];
    let promiscuous = prop_oneof![
        6 => Just(Promiscuous::Deny),
        1 => Just(Promiscuous::AllowVms),
        1 => Just(Promiscuous::AllowAll),
    ];
    let station = prop_oneof![
        2 => Just(Behind::Many),
        2 => Just(Behind::Learned),
        1 => (0..6u8).prop_map(|station| Behind::Known(mac(station))),
    ];
    let storm = prop_oneof![
        4 => Just(StormLimits::NONE),
        1 => Just(StormLimits { broadcast: 2, multicast: 1, unknown: 3 }),
    ];
    let filter =
        (promiscuous, station, any::<bool>(), any::<bool>(), storm, prop::option::of(0..6u8));
    let filter =
        filter.prop_map(|(promiscuous, station, is_outside, forges, storm, own)| PortFilter {
            promiscuous,
            station,
            is_outside,
            spoof: if forges { Spoof::Allow } else { Spoof::Deny },
            own_address: own.map(mac),
            storm,
        });
    (vlan, filter, prop::bool::weighted(0.9)).prop_map(|(vlan, filter, cable)| PortSettings {
        cable,
        filter,
        ..port_of_no_network(vlan)
    })
}

fn port_of_no_network(vlan: VlanMode) -> PortSettings {
    let mut engine = Engine::new(1);
    PortSettings { network: None, ..port(network(&mut engine, 1500), vlan) }
}

fn some_address() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        12 => (0..6u8).prop_map(mac),
        2 => Just(MacAddr::BROADCAST),
        1 => Just(MacAddr([1, 0, 0x5e, 0, 0, 1])),
        1 => Just(MacAddr([1, 0x80, 0xc2, 0, 0, 3])),
        1 => Just(MacAddr([0; 6])),
    ]
}

fn some_frame() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let tags = prop::collection::vec((0..5u16, 0..8u16, any::<bool>()), 0..3);
    let len = prop_oneof![8 => 14..200usize, 1 => 1..14usize, 1 => 1500..1530usize];
    (0..PORTS, some_address(), some_address(), tags, len).prop_map(
        |(from, to, source, tags, len)| {
            let mut bytes = frame(to, source, len.max(14));
            for (vlan, priority, is_service) in tags {
                let tpid = if is_service { 0x88a8 } else { 0x8100 };
                bytes = tagged(VlanTag { tpid, tci: (priority << 13) | (vlan * 10) }, &bytes);
            }
            bytes.truncate(if len < 14 { len } else { usize::MAX });
            (from, bytes)
        },
    )
}

/// Returns a frame with `tag` in place of its outermost one.
fn with_tag(bytes: &[u8], had_tag: bool, tag: Option<VlanTag>) -> Vec<u8> {
    let rest = if had_tag { 16 } else { 12 };
    let tag = tag.map(|tag| [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat());
    [&bytes[..12], &tag.unwrap_or_default(), &bytes[rest..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// 10^5 frames: what is foretold of each happens.
    #[test]
    fn what_is_explained_happens(
        settings in prop::collection::vec(some_port(), PORTS),
        seen in prop::option::of(some_mirror()),
        frames in prop::collection::vec(some_frame(), 100),
    ) {
        let mut lab = Lab::new(&settings);
        let copies = seen.map(|seen| lab.mirror(seen));
        // Those that the output has room for, and those that it has none for.
        let done = |copies: &Arc<MirrorCounters>| copies.snapshot();
        let copied = || copies.as_ref().map(done).map_or(0, |done| done.frames + done.lost);
        for (from, bytes) in &frames {
            let before: Vec<_> = lab.stations.iter().map(|s| s.counters.snapshot()).collect();
            let told = lab.explain(*from, bytes);
            let unchanged: Vec<_> = lab.stations.iter().map(|s| s.counters.snapshot()).collect();
            prop_assert_eq!(&before, &unchanged, "an explanation counts nothing");
            prop_assert_eq!(&told, &lab.explain(*from, bytes), "nor does it learn");

            let copied_before = copied();
            lab.send(*from, bytes);
            prop_assert_eq!(copied() - copied_before, told.mirrors.len() as u64, "{:?}", &told);
            let had_tag = bytes.len() >= 14 && matches!(bytes[12..14], [0x81, 0] | [0x88, 0xa8]);
            for (place, station) in lab.stations.iter().enumerate() {
                let exit = told.exits.iter().find(|exit| exit.port == station.id);
                let wanted = exit.filter(|exit| exit.dropped.is_none());
                let wanted = wanted.map(|exit| with_tag(bytes, had_tag, exit.tag));
                let got = station.frames();
                prop_assert_eq!(got.first(), wanted.as_ref(), "port {}: {:?}", place, &told);
                let (after, before) = (station.counters.snapshot(), &before[place]);
                for reason in DropReason::ALL {
                    let here = place == *from && told.dropped == Some(*reason);
                    let there = exit.is_some_and(|exit| exit.dropped == Some(*reason));
                    let dropped = after.dropped(*reason) - before.dropped(*reason);
                    prop_assert_eq!(dropped, u64::from(here || there), "{}: {:?}", reason.name(), &told);
                }
            }
        }
    }
}

#[test]
fn it_says_what_is_known() {
    let settings = [access(10), trunk(), access(10)].map(port_of_no_network);
    let mut lab = Lab::new(&settings);
    let ids: Vec<_> = lab.stations.iter().map(|station| station.id).collect();
    let there = frame(mac(2), mac(1), 60);
    let told = lab.explain(0, &there);
    assert_eq!((told.vlan, told.route, told.dropped), (Some(vid(10)), Some(Route::Unknown), None));
    assert_eq!(told.exits.iter().map(|exit| exit.port).collect::<Vec<_>>(), ids[1..]);
    lab.send(2, &frame(mac(9), mac(2), 60));
    let told = lab.explain(0, &there);
    assert!(matches!(told.route, Some(Route::Port { port, age: Some(_) }) if port == ids[2]));
    assert_eq!(told.exits.len(), 1);
    let told = lab.explain(2, &frame(mac(2), mac(3), 60));
    assert!(matches!(told.route, Some(Route::Port { port, .. }) if port == ids[2]));
    assert_eq!(told.dropped, Some(DropReason::Hairpin));
    lab.engine.remove_network(lab.network).unwrap();
    assert_eq!(lab.explain(0, &there).dropped, Some(DropReason::NotAttached));
}
