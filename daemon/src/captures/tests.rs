//! The ring against watches of a real switch: what it gives for a capture is what the capture would
//! have seen itself, and at the seam each frame is there once.

use std::sync::Arc;
use std::time::Duration;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use trama_api::capture::{Direction, Request};
use trama_frame::VlanId;
use trama_switch::watch::{Egress, Reader, Record, Watch, Way, queue};
use trama_switch::{
    Device, DropReason, DummyHandle, Engine, NetworkId, NetworkSettings, PortId, PortSettings,
    Time, VlanMode,
};

use super::ring::{SNAPLEN, Store};
use super::session::is_before;
use super::{Wanted, WatchedPort};
use crate::config::parse;

const CONFIGURATION: &str = "[[network]]\nname = \"lab\"\n\
     [[port]]\nname = \"a\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
     [[port]]\nname = \"b\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n";
const BROADCAST: [u8; 6] = [0xff; 6];
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A network `lab` with the ports `a` and `b`.
struct Lab {
    engine: Engine,
    network: NetworkId,
    ports: Vec<Arc<WatchedPort>>,
    stations: Vec<DummyHandle>,
}

impl Lab {
    fn new() -> Lab {
        let mut engine = Engine::new(1);
        let settings = NetworkSettings {
            name: "lab".into(),
            mtu: 1500,
            mac_table_size: 64,
            mac_aging: Duration::from_secs(300),
        };
        let network = engine.add_network(settings);
        let mut lab = Lab { engine, network, ports: Vec::new(), stations: Vec::new() };
        lab.add("a");
        lab.add("b");
        lab
    }

    fn add(&mut self, name: &str) {
        let settings = PortSettings {
            name: name.into(),
            network: Some(self.network),
            vlan: VlanMode::Access { tag: VlanId::NONE },
            cable: true,
            filter: Default::default(),
            mark: 0,
            hdr_len: Default::default(),
        };
        let (device, station) = trama_switch::dummy(64);
        let (id, _) = self.engine.add_port(settings, Device::Dummy(device)).unwrap();
        self.stations.push(station);
        self.ports.push(Arc::new(WatchedPort {
            name: name.into(),
            id,
            network: self.network,
            network_name: "lab".into(),
            description: "lab, access".into(),
        }));
    }

    fn port(&self, id: PortId) -> &Arc<WatchedPort> {
        self.ports.iter().find(|port| port.id == id).unwrap()
    }

    /// Begins the watch of a capture, or of the ring.
    fn watch(&mut self, wanted: &Wanted) -> Reader {
        let (writer, reader) = queue(1 << 20).unwrap();
        let ports = self.ports.iter();
        let ports = ports.filter(|port| wanted.targets.include(&port.name, &port.network_name));
        let watch = Watch {
            ports: ports.map(|port| port.id).collect(),
            frames: wanted.frames,
            dropped: wanted.dropped,
            drops: wanted.drops,
            snaplen: wanted.snaplen as usize,
            filter: wanted.filter(),
            sampling: None,
            queue: writer,
        };
        self.engine.watch(self.network, watch).unwrap();
        reader
    }

    fn send(&self, from: usize, frame: &[u8]) {
        self.stations[from].inject(Default::default(), frame).unwrap();
    }

    fn store(&self, reader: &mut Reader, store: &mut Store) {
        while let Some(record) = reader.read() {
            store.push(self.port(record.port), &record, record.bytes);
        }
    }
}

/// What a file would have of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shown {
    port: PortId,
    is_received: bool,
    id: u64,
    drop: Option<DropReason>,
    len: usize,
    bytes: Vec<u8>,
}

impl Shown {
    fn of(record: &Record<'_>) -> Shown {
        Shown {
            port: record.port,
            is_received: record.way == Way::Received,
            id: record.id,
            drop: record.drop,
            len: record.len,
            bytes: record.bytes.to_vec(),
        }
    }
}

fn shown(reader: &mut Reader) -> Vec<Shown> {
    std::iter::from_fn(|| reader.read().map(|record| Shown::of(&record))).collect()
}

/// Returns the frames of the ring that are of the time before a capture.
fn recalled(store: &mut Store, wanted: &Wanted, begun: Time, last: Duration) -> Vec<Shown> {
    let filter = wanted.filter();
    let mut all = Vec::new();
    for segment in store.all() {
        for (port, record) in segment.records() {
            let is_wanted = wanted.targets.include(&port.name, &port.network_name)
                && is_before(begun, last, record.time)
                && wanted.takes(&record, filter.as_ref());
            if is_wanted {
                all.push(Shown::of(&record));
            }
        }
    }
    all
}

fn wanted(words: &str, change: impl FnOnce(&mut Request)) -> Wanted {
    let mut request = Request {
        version: 1,
        words: words.split_whitespace().map(str::to_owned).collect(),
        direction: None,
        frames: true,
        drops: None,
        snaplen: 0,
        count: None,
        last: None,
    };
    change(&mut request);
    Wanted::read(&request, &parse(CONFIGURATION, "").unwrap()).unwrap()
}

/// A frame of TCP to this L4 port, of which the ring does not keep the end.
fn tcp(from: usize, to: [u8; 6], port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATIONS[from], to)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1000, port, 1, 1000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[7; 500]).unwrap();
    frame
}

#[test]
fn the_ring_gives_what_the_capture_would_have_seen() {
    let drops = |request: &mut Request| request.drops = Some(Vec::new());
    // As many as a network can have watches beside the ring's.
    let captures = [
        wanted("a", |_| {}),
        wanted("lab", |_| {}),
        wanted("any tcp port 80", |_| {}),
        wanted("b not tcp port 80", |_| {}),
        wanted("a", |request| request.direction = Some(Direction::Out)),
        wanted("lab", |request| request.direction = Some(Direction::InOut)),
        wanted("lab", drops),
        wanted("lab greater 500", drops),
        wanted("lab drop vlan_not_allowed or port 443", drops),
        wanted("a", |request| {
            (request.frames, request.drops) = (false, Some(vec!["source_invalid".into()]));
        }),
    ];
    let mut lab = Lab::new();
    let mut ring = lab.watch(&Wanted::everything(SNAPLEN));
    let mut watches: Vec<Reader> = captures.iter().map(|wanted| lab.watch(wanted)).collect();
    let mut tagged = tcp(0, BROADCAST, 80);
    tagged.splice(12..12, [0x81, 0, 0, 30]);
    let mut invalid = tcp(0, STATIONS[1], 80);
    invalid[6..12].fill(0xff);
    for (from, frame) in [
        (0, tcp(0, BROADCAST, 80)),
        (1, tcp(1, STATIONS[0], 443)),
        (0, tcp(0, STATIONS[1], 80)),
        (0, tagged),
        (0, invalid),
        (1, vec![1; 10]),
    ] {
        lab.send(from, &frame);
        lab.engine.poll(Time(1));
    }
    let mut store = Store::default();
    store.resize(1 << 20);
    lab.store(&mut ring, &mut store);
    for (i, (wanted, watch)) in captures.iter().zip(&mut watches).enumerate() {
        let mut seen = shown(watch);
        assert!(!seen.is_empty(), "capture {i}");
        seen.iter_mut().for_each(|seen| seen.bytes.truncate(SNAPLEN as usize));
        assert_eq!(recalled(&mut store, wanted, Time(2), Duration::MAX), seen, "capture {i}");
    }
}

proptest! {
    /// Rounds as a worker makes them: jobs run at the time at which the next round begins.
    #[test]
    fn each_frame_is_there_once(
        before in proptest::collection::vec(1usize..5, 0..20),
        after in proptest::collection::vec(1usize..5, 0..20),
    ) {
        let everything = Wanted::everything(SNAPLEN);
        let mut lab = Lab::new();
        let mut ring = lab.watch(&everything);
        let mut now = 1;
        let mut round = |lab: &mut Lab, frames: &usize| {
            (0..*frames).for_each(|_| lab.send(0, &tcp(0, BROADCAST, 80)));
            lab.engine.poll(Time(now));
            now += 1;
            Time(now)
        };
        let begun = before.iter().fold(Time(1), |_, frames| round(&mut lab, frames));
        let mut live = lab.watch(&everything);
        for frames in &after {
            round(&mut lab, frames);
        }
        let mut store = Store::default();
        store.resize(1 << 20);
        lab.store(&mut ring, &mut store);
        let mut file = recalled(&mut store, &everything, begun, Duration::MAX);
        file.extend(shown(&mut live));
        let all = recalled(&mut store, &everything, Time(u64::MAX), Duration::MAX);
        prop_assert_eq!(all.len(), 2 * before.iter().chain(&after).sum::<usize>());
        prop_assert_eq!(file, all);
    }

    /// What does not fit goes, the oldest first, and not much more of it than must.
    #[test]
    fn the_ring_takes_no_more_than_it_may(
        limit in 64usize << 10..512 << 10,
        smaller in 64usize << 10..512 << 10,
        lengths in proptest::collection::vec(0usize..=SNAPLEN as usize, 1..8),
    ) {
        let lab = Lab::new();
        let bytes = [7; SNAPLEN as usize];
        let mut store = Store::default();
        store.resize(limit);
        for id in 0..12_000 {
            let bytes = &bytes[..lengths[id as usize % lengths.len()]];
            store.push(&lab.ports[0], &record(lab.ports[0].id, id, bytes), bytes);
            prop_assert!(store.memory() <= limit);
        }
        prop_assert!(store.memory() > limit * 3 / 4, "{} of {limit}", store.memory());
        prop_assert_eq!(last_of(&mut store), 11_999);
        store.resize(smaller);
        prop_assert!(store.memory() <= smaller);
        prop_assert_eq!(last_of(&mut store), 11_999);
        store.resize(0);
        prop_assert!(store.all().is_empty());
    }
}

fn record(port: PortId, id: u64, bytes: &[u8]) -> Record<'_> {
    Record {
        port,
        way: Way::Received,
        id,
        queue: None,
        egress: Egress::Unknown,
        time: Time(id),
        drop: None,
        missed: 0,
        len: bytes.len(),
        header: Default::default(),
        bytes,
    }
}

/// Checks that no frame is missing between the first and the last one; returns the last one's ID.
fn last_of(store: &mut Store) -> u64 {
    let ids: Vec<u64> = store
        .all()
        .iter()
        .flat_map(|segment| segment.records().map(|(_, record)| record.id).collect::<Vec<_>>())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    ids[ids.len() - 1]
}

#[test]
fn a_wanted_time_has_a_unit_or_is_in_seconds() {
    let last = |text: &str| wanted("a", |request| request.last = Some(text.into())).last;
    assert_eq!(last("30s"), Some(Duration::from_secs(30)));
    assert_eq!(last("5m"), Some(Duration::from_secs(300)));
    assert_eq!(last("90"), Some(Duration::from_secs(90)));
    assert!(!is_before(Time(9), Duration::from_nanos(3), Time(5)));
    assert!(is_before(Time(9), Duration::from_nanos(3), Time(6)));
}
