//! An engine and its model.

use std::time::Duration;

use trama_frame::VnetHeader;
use trama_switch::counters::PortSnapshot;
use trama_switch::{
    Captured, Doorbell, DropReason, Engine, HdrLen, Lasting, MacTable, NetworkId, NetworkSettings,
    PortCounters, PortFilter, PortId, PortSettings, Time,
};

use super::Coverage;
use super::frames::Frame;
use super::plug::{Plug, PlugKind};
use super::rng::Rng;
use super::steps::{NETWORKS, PORTS, Step};
use crate::model::{self, FOREVER, Fdb, Model, Room};

/// Rounds after which an engine that still moves frames is considered stuck.
const MAX_ROUNDS: usize = 1000;
/// Rounds, of a microsecond each, for which an engine may hold frames back to form a batch.
const HOLD_ROUNDS: usize = 20;

/// A port of the engine.
struct Port {
    id: PortId,
    plug: Plug,
    counters: Lasting<PortCounters>,
    settings: PortSettings,
    stalled: bool,
}

/// An engine and its model.
pub(crate) struct World {
    engine: Engine,
    model: Model,
    networks: Vec<Option<NetworkId>>,
    ports: Vec<Option<Port>>,
    /// Random source for header fields that must be ignored.
    noise: Rng,
    rounds: u64,
    /// Final counters of removed ports.
    removed: Vec<PortSnapshot>,
}

impl World {
    /// An engine without networks and ports, seeded with `seed`.
    pub(crate) fn new(seed: u64) -> World {
        let mut model = Model::default();
        model.networks.resize(NETWORKS, None);
        model.ports.resize(PORTS, None);
        World {
            engine: Engine::new(seed),
            model,
            networks: vec![None; NETWORKS],
            ports: (0..PORTS).map(|_| None).collect(),
            noise: Rng::new(seed ^ 0x006e_6f69_7365),
            rounds: 0,
            removed: Vec::new(),
        }
    }

    /// Returns whole ticks, so that ages are exact, and a little progress within a tick for each
    /// round.
    fn now(&self) -> Time {
        Time((self.model.now * MacTable::TICK.as_nanos() as u64) + self.rounds * 1000)
    }

    /// Applies a step to both.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Send { port, frames } => self.send(*port, frames),
            Step::Wait { ticks } => {
                self.model.now += ticks;
                if *ticks > 0 {
                    self.rounds = 0;
                }
            }
            Step::SetNetwork { network, mtu, capacity, aging } => {
                self.set_network(*network, *mtu, *capacity, *aging);
            }
            Step::RemoveNetwork { network } => self.remove_network(*network),
            Step::Flush { network } => self.flush(*network),
            Step::Migrate => self.migrate(),
            Step::Add { port, .. } if self.ports[*port].is_none() => self.add(step),
            Step::Add { .. } => {}
            Step::Stall { port, stalled } => {
                if let Some(port) = &mut self.ports[*port] {
                    port.stalled = *stalled;
                }
            }
            Step::Remove { port }
            | Step::SetVlan { port, .. }
            | Step::Move { port, .. }
            | Step::Cable { port, .. }
            | Step::Block { port, .. }
            | Step::SetFilter { port, .. }
            | Step::Detach { port }
            | Step::Rings { port, .. }
            | Step::SetOffloads { port, .. } => {
                if self.ports[*port].is_some() {
                    self.change(*port, step);
                    self.model.forget_owned();
                }
            }
        }
    }

    fn add(&mut self, step: &Step) {
        let Step::Add { port, network, vlan, offloads, plug } = step else { return };
        let settings = PortSettings {
            name: format!("port{port}"),
            network: network.and_then(|network| self.networks[network]),
            vlan: vlan.clone(),
            cable: true,
            mark: 0,
            hdr_len: HdrLen::Headers,
            filter: PortFilter::default(),
        };
        let room = match *plug {
            PlugKind::Queues(count) => Room::Frames(count),
            PlugKind::Guest { buffers, buffer_size: size, features, .. } => {
                Room::Buffers { count: usize::from(buffers), size, features }
            }
        };
        let (device, mut plug) = plug.build(*offloads);
        let (id, counters) = self.engine.add_port(settings.clone(), device).unwrap();
        self.engine.set_offloads(id, *offloads);
        plug.start(&mut self.engine, id);
        self.ports[*port] = Some(Port { id, plug, counters, settings, stalled: false });
        self.model.ports[*port] = Some(model::Port {
            network: network.filter(|network| self.networks[*network].is_some()),
            vlan: vlan.clone(),
            cable: true,
            blocked: false,
            filter: PortFilter::default(),
            sources: Vec::new(),
            changed: None,
            flooded: [None; 3],
            offloads: *offloads,
            room,
            ready: true,
            queue: Vec::new(),
            counters: Default::default(),
        });
    }

    /// Changes an existing port.
    fn change(&mut self, index: usize, step: &Step) {
        let port = self.ports[index].as_mut().unwrap();
        let expected = self.model.ports[index].as_mut().unwrap();
        let flushes = match step {
            Step::SetVlan { vlan, .. } => {
                port.settings.vlan = vlan.clone();
                std::mem::replace(&mut expected.vlan, vlan.clone()) != *vlan
            }
            Step::Move { network, .. } => {
                let network = network.filter(|network| self.networks[*network].is_some());
                port.settings.network = network.and_then(|network| self.networks[network]);
                let moves = std::mem::replace(&mut expected.network, network) != network;
                expected.blocked &= !moves;
                moves
            }
            Step::Cable { is_in, .. } => {
                port.settings.cable = *is_in;
                let is_pulled = std::mem::replace(&mut expected.cable, *is_in) && !is_in;
                if is_pulled {
                    expected.forget_sources();
                }
                is_pulled
            }
            Step::SetFilter { filter, .. } => {
                port.settings.filter = *filter;
                expected.filter = *filter;
                false
            }
            Step::Block { blocked, .. } => {
                // Only a port of a network can be part of a loop.
                if expected.network.is_some() {
                    self.engine.block_port(port.id, *blocked).unwrap();
                    expected.blocked = *blocked;
                    self.model.flush_port(index);
                }
                return;
            }
            Step::SetOffloads { offloads, .. } => {
                self.engine.set_offloads(port.id, *offloads);
                expected.offloads = *offloads;
                return;
            }
            Step::Rings { run, .. } => {
                if *run {
                    port.plug.start(&mut self.engine, port.id);
                } else {
                    port.plug.stop(&mut self.engine, port.id);
                }
                expected.ready = *run || matches!(expected.room, Room::Frames(_));
                return;
            }
            Step::Detach { .. } => {
                port.plug.stop(&mut self.engine, port.id);
                self.engine.detach(port.id);
                if expected.ready {
                    port.plug.start(&mut self.engine, port.id);
                }
                expected.forget_sources();
                self.model.flush_port(index);
                return;
            }
            _ => {
                self.engine.remove_port(port.id).unwrap();
                self.ports[index] = None;
                self.removed.extend(self.model.ports[index].take().map(|port| port.counters));
                self.model.flush_port(index);
                return;
            }
        };
        self.engine.set_port(port.id, port.settings.clone()).unwrap();
        if flushes {
            self.model.flush_port(index);
        }
    }

    fn set_network(&mut self, index: usize, mtu: u16, capacity: usize, aging: u64) {
        let settings = NetworkSettings {
            name: format!("network{index}"),
            mtu,
            mac_table_size: capacity,
            mac_aging: MacTable::TICK * u32::try_from(aging).unwrap(),
        };
        let Some(id) = self.networks[index] else {
            self.networks[index] = Some(self.engine.add_network(settings));
            let mtu = usize::from(mtu);
            let learned = Fdb::new();
            self.model.networks[index] = Some(model::Network { mtu, capacity, aging, learned });
            return;
        };
        let now = self.model.now;
        let before = self.model.networks[index].as_ref().unwrap().live(now);
        self.engine.set_network(id, settings).unwrap();
        let observed = self.observed(index);
        let network = self.model.networks[index].as_mut().unwrap();
        (network.mtu, network.capacity, network.aging) = (usize::from(mtu), capacity, aging);
        if network.learned.len() <= capacity {
            let lost = |key| before.contains_key(key) && !observed.contains_key(key);
            assert!(!network.live(now).keys().any(lost), "an address that fits was lost");
        }
        // Which entries a smaller table evicts, and which a longer ageing time revives, is its
        // choice.
        let is_dead = |seen: u64| now - seen > aging;
        network.learned.retain(|key, (_, seen)| observed.contains_key(key) || is_dead(*seen));
    }

    fn remove_network(&mut self, index: usize) {
        let Some(id) = self.networks[index].take() else { return };
        self.engine.remove_network(id).unwrap();
        self.model.networks[index] = None;
        for port in self.model.ports.iter_mut().flatten() {
            port.blocked &= port.network != Some(index);
            port.network = port.network.filter(|network| *network != index);
        }
        for port in self.ports.iter_mut().flatten() {
            port.settings.network = port.settings.network.filter(|network| *network != id);
        }
    }

    /// Moves each network as a whole and each port without one by itself; this must have no effect.
    fn migrate(&mut self) {
        let mut there = self.engine.sibling();
        for id in self.networks.iter().flatten() {
            let network = self.engine.give_network(*id, &Doorbell::default()).unwrap();
            there.take_network(network, self.now());
        }
        for port in self.ports.iter().flatten().filter(|port| port.settings.network.is_none()) {
            let moving = self.engine.give_port(port.id, &Doorbell::default()).unwrap();
            there.take_port(moving, self.now()).unwrap();
        }
        self.engine = there;
        self.settle();
    }

    fn flush(&mut self, network: Option<usize>) {
        match network {
            Some(network) => {
                let Some(id) = self.networks[network] else { return };
                self.engine.flush_fdb(Some(id));
                self.model.networks[network].as_mut().unwrap().learned.clear();
            }
            None => {
                self.engine.flush_fdb(None);
                self.model.networks.iter_mut().flatten().for_each(|n| n.learned.clear());
            }
        }
    }

    /// Sends frames in one burst, or one by one where the MAC table may be full: there the model
    /// must see each eviction.
    fn send(&mut self, index: usize, frames: &[Frame]) {
        let Some(expected) = &self.model.ports[index] else { return };
        if !expected.ready {
            return;
        }
        let network = expected.network;
        let may_be_full = network.is_some_and(|network| {
            let network = self.model.networks[network].as_ref().unwrap();
            network.learned.len() + frames.len() > network.capacity
        });
        let plug = &self.ports[index].as_ref().unwrap().plug;
        let (room, longest) = (plug.room(), plug.longest());
        let can_send = |frame: &&Frame| frame.bytes().len() <= longest;
        let frames: Vec<Frame> = frames.iter().filter(can_send).cloned().collect();
        for frames in frames.chunks(if may_be_full { 1 } else { room }) {
            for frame in frames {
                let header = self.randomise_ignored_fields(frame.header());
                let port = self.ports[index].as_mut().unwrap();
                port.plug.send(header, &frame.bytes());
            }
            self.settle();
            self.ports[index].as_mut().unwrap().plug.reclaim(frames.len());
            let observed = may_be_full.then(|| self.observed(network.unwrap()));
            frames.iter().for_each(|frame| self.model.send(index, frame, observed.as_ref()));
        }
    }

    /// Returns the header with random values in fields that must be ignored.
    fn randomise_ignored_fields(&mut self, mut header: VnetHeader) -> VnetHeader {
        if self.noise.chance(1, 2) {
            return header;
        }
        let mut any = || self.noise.bits() as u16;
        header.num_buffers = any();
        header.hdr_len = any();
        header.flags |= any() as u8 & 0xfc;
        if header.gso_type == 0 {
            header.gso_size = any();
        }
        if header.flags & 1 == 0 && header.gso_type == 0 {
            (header.csum_start, header.csum_offset) = (any(), any());
        }
        header
    }

    /// Runs the engine until it is done: no frame moves for longer than it holds frames back under
    /// load.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..MAX_ROUNDS {
            self.rounds += 1;
            quiet = if self.engine.poll(self.now()) { 0 } else { quiet + 1 };
            if quiet > HOLD_ROUNDS {
                return;
            }
        }
        panic!("the engine still moves frames after {MAX_ROUNDS} rounds");
    }

    /// Returns what the switch has learned on a network.
    fn observed(&self, network: usize) -> Fdb {
        let Some(id) = self.networks[network] else { return Fdb::new() };
        let entries = self.engine.fdb(id, self.now());
        let fdb: Fdb = entries
            .iter()
            .map(|(port, entry)| {
                let is_it = |place: &Option<Port>| place.as_ref().is_some_and(|p| p.id == *port);
                let port = self.ports.iter().position(is_it).expect("a learned port exists");
                let ticks = |age: Duration| (age.as_nanos() / MacTable::TICK.as_nanos()) as u64;
                let seen = entry.age.map_or(FOREVER, |age| self.model.now - ticks(age));
                ((entry.vlan.get(), entry.mac), (port, seen))
            })
            .collect();
        assert_eq!(fdb.len(), entries.len(), "an address is listed twice");
        fdb
    }

    /// Adds the coverage so far.
    pub(crate) fn add_to(mut self, coverage: &mut Coverage) {
        self.removed.extend(self.model.ports.iter().flatten().map(|port| port.counters));
        self.removed.iter().for_each(|counters| coverage.add(counters));
        coverage.evictions += self.model.evictions;
        coverage.unicast += self.model.unicast;
        coverage.moves += self.model.moves;
    }

    /// Asserts that everything observable of the engine matches the model.
    pub(crate) fn compare(&mut self) {
        for network in 0..NETWORKS {
            assert_eq!(
                self.observed(network),
                self.model.shown(network),
                "addresses of network {network} (switch, model)"
            );
        }
        for index in 0..PORTS {
            let (Some(port), Some(expected)) =
                (&mut self.ports[index], &mut self.model.ports[index])
            else {
                continue;
            };
            compare_counters(index, &port.counters.snapshot(), &expected.counters);
            if !port.stalled {
                let got = port.plug.receive();
                compare_frames(index, &got, &std::mem::take(&mut expected.queue));
            }
        }
    }
}

fn compare_counters(port: usize, got: &PortSnapshot, expected: &PortSnapshot) {
    for reason in DropReason::ALL {
        let dropped = [got, expected].map(|counters| counters.dropped(*reason));
        let name = reason.name();
        assert_eq!(dropped[0], dropped[1], "{name} drops at port {port} (switch, model)");
    }
    assert_eq!(got, expected, "counters of port {port} (switch, model)");
}

fn compare_frames(port: usize, got: &[Captured], expected: &[Captured]) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(
            got.header, expected.header,
            "header of frame {index} at port {port} (switch, model)"
        );
        if got.bytes != expected.bytes {
            let differ = got.bytes.iter().zip(&expected.bytes).position(|(a, b)| a != b);
            let from = differ.unwrap_or(0);
            let show = |bytes: &[u8]| format!("{:02x?}", &bytes[from..bytes.len().min(from + 24)]);
            panic!(
                "frame {index} at port {port} differs from byte {from}: switch {} ({} bytes), \
                 model {} ({} bytes)",
                show(&got.bytes),
                got.bytes.len(),
                show(&expected.bytes),
                expected.bytes.len()
            );
        }
    }
    assert_eq!(got.len(), expected.len(), "frames out of port {port} (switch, model)");
}
