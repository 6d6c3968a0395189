//! A reference model of a network with VLANs, as simple as possible.
//!
//! The simulation compares the switch with this specification. It has no bursts, rings, hashes or
//! offsets: one frame at a time, in lists and maps that are searched linearly. Where a full MAC
//! table must evict an entry, several choices are correct; the model checks that the switch's
//! choice is one of them and follows it.

use std::collections::BTreeMap;

use trama_frame::{MacAddr, Offloads, VlanId, VlanTag, VnetHeader};
use trama_switch::counters::PortSnapshot;
use trama_switch::{
    Captured, DropReason, PortFilter, Promiscuous, Spoof, Station, VlanMode, VlanSet,
};
use trama_virtqueue::RingFeatures;

use crate::sim::frames::{Frame, MAX_LEN, MAX_TAGS, Work};

/// Most source addresses remembered for a port.
const MAX_SOURCES: usize = 8;

/// When an address that belongs to a port was last seen.
pub(crate) const FOREVER: u64 = u64::MAX;

/// Ticks of the MAC table in a second, rounded up.
const TICKS_PER_SECOND: u64 = 4;

/// VLAN and address.
pub(crate) type Key = (u16, MacAddr);
/// Learned addresses: port, and time last seen.
pub(crate) type Fdb = BTreeMap<Key, (usize, u64)>;

/// One network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// MTU.
    pub mtu: usize,
    /// Capacity of the MAC table.
    pub capacity: usize,
    /// Ageing time, in ticks.
    pub aging: u64,
    /// Learned addresses. Aged ones stay here until something removes them, because they may still
    /// occupy the switch's table.
    pub learned: Fdb,
}

/// Where a port's receiver stores frames that it has not processed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// In a queue with room for this many.
    Frames(usize),
    /// In buffers on a ring.
    Buffers {
        /// How many there are.
        count: usize,
        /// Size of each in bytes, including the virtio-net header.
        size: usize,
        /// Decides the header's length, and whether a frame may span several buffers.
        features: RingFeatures,
    },
}

/// One port.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// Its network, if it has one.
    pub network: Option<usize>,
    /// Its VLAN mode.
    pub vlan: VlanMode,
    /// Whether the cable is connected.
    pub cable: bool,
    /// Whether it is blocked because of a loop.
    pub blocked: bool,
    /// Its filter of received and sent frames.
    pub filter: PortFilter,
    /// Source addresses used since it was connected, the latest last; not recorded where many are
    /// allowed.
    pub sources: Vec<MacAddr>,
    /// When it last sent from another address than before, if it counts as having several.
    pub changed: Option<u64>,
    /// When it last sent a broadcast, multicast or unknown unicast frame under a limit, in ticks.
    pub flooded: [Option<u64>; 3],
    /// Offloads that its receiver has negotiated.
    pub offloads: Offloads,
    /// Its room for received frames.
    pub room: Room,
    /// Whether its receiver takes frames.
    pub ready: bool,
    /// Frames in its queue.
    pub queue: Vec<Captured>,
    /// The expected counters.
    pub counters: PortSnapshot,
}

/// All networks and ports, and the clock.
#[derive(Default)]
pub(crate) struct Model {
    /// Networks by number.
    pub networks: Vec<Option<Network>>,
    /// Ports by number.
    pub ports: Vec<Option<Port>>,
    /// The time, in the MAC table's ticks.
    pub now: u64,
    /// Entries evicted so far.
    pub evictions: u64,
    /// Frames forwarded to a learned port so far.
    pub unicast: u64,
    /// Addresses that moved to another port so far.
    pub moves: u64,
}

impl Network {
    fn is_live(&self, seen: u64, now: u64) -> bool {
        now - seen <= self.aging
    }

    /// Returns the addresses not aged out at `now`.
    pub(crate) fn live(&self, now: u64) -> Fdb {
        let live = self.learned.iter().filter(|(_, (_, seen))| self.is_live(*seen, now));
        live.map(|(key, entry)| (*key, *entry)).collect()
    }

    /// Removes the entry that the switch evicted to stay within its capacity, after checking the
    /// choice; returns whether there was one.
    fn follow_eviction(&mut self, newcomer: Key, port: usize, observed: &Fdb, now: u64) -> bool {
        let live = self.live(now);
        let gone: Vec<Key> =
            live.keys().filter(|key| !observed.contains_key(key)).copied().collect();
        let [gone] = gone[..] else {
            assert!(gone.is_empty(), "one newcomer cost several entries: {gone:?}");
            return false;
        };
        assert!(!live.contains_key(&newcomer), "{newcomer:?} was known and still cost {gone:?}");
        assert!(self.learned.len() >= self.capacity, "{gone:?} evicted although there was room");
        let held = |of: usize| self.learned.values().filter(|(port, _)| *port == of).count();
        let loser = live[&gone].0;
        for (other, _) in live.values() {
            let holds = live.values().filter(|(port, _)| port == other).count();
            assert!(
                held(loser) >= holds,
                "{newcomer:?} on port {port} evicted {gone:?} of port {loser}, but port {other} \
                 holds {holds} entries"
            );
        }
        self.learned.remove(&gone);
        true
    }
}

fn lists(trunks: &VlanSet, vid: u16) -> bool {
    trunks.is_all() || trunks.iter().any(|listed| listed.get() == vid)
}

/// Returns whether a port is a member of a VLAN.
fn is_member_of(mode: &VlanMode, vid: u16) -> bool {
    match mode {
        VlanMode::Access { tag } => tag.get() == vid,
        VlanMode::Trunk { trunks } => lists(trunks, vid),
        VlanMode::NativeTagged { tag, trunks } | VlanMode::NativeUntagged { tag, trunks } => {
            tag.get() == vid || (vid != 0 && lists(trunks, vid))
        }
    }
}

/// Returns the VLAN of a frame that arrives with this VID (0: untagged or priority-tagged).
fn ingress_vlan(mode: &VlanMode, vid: u16) -> Option<u16> {
    let vlan = match (mode, vid) {
        (VlanMode::Access { .. }, 1..) => return None,
        (VlanMode::Trunk { .. }, 0) => 0,
        (VlanMode::Access { tag }, 0)
        | (VlanMode::NativeTagged { tag, .. } | VlanMode::NativeUntagged { tag, .. }, 0) => {
            tag.get()
        }
        (_, vid) => vid,
    };
    is_member_of(mode, vlan).then_some(vlan)
}

/// Returns whether a frame of this VLAN leaves tagged.
fn leaves_tagged(mode: &VlanMode, vlan: u16) -> bool {
    match mode {
        VlanMode::Access { .. } => false,
        VlanMode::NativeUntagged { tag, .. } if tag.get() == vlan => false,
        _ => vlan != 0,
    }
}

impl Model {
    /// Handles a frame received from `from`. `observed` is the switch's table afterwards, if the
    /// MAC table may be full.
    pub(crate) fn send(&mut self, from: usize, frame: &Frame, observed: Option<&Fdb>) {
        match self.route(from, frame, observed) {
            Ok((vlan, to)) => {
                let is_flood = self.destination(from, vlan, frame.dst).is_none();
                self.unicast += u64::from(!is_flood);
                let port = self.ports[from].as_mut().unwrap();
                port.counters.rx_frames += 1;
                port.counters.rx_bytes += frame.bytes().len() as u64;
                port.counters.rx_gso_frames += u64::from(frame.header().is_gso());
                port.counters.flooded_frames += u64::from(is_flood);
                for to in to {
                    self.ports[to].as_mut().unwrap().receive(frame.clone(), vlan);
                }
            }
            Err(reason) => {
                self.ports[from].as_mut().unwrap().counters.drops[reason as usize] += 1;
            }
        }
    }

    /// Returns the frame's VLAN and its egress ports.
    fn route(
        &mut self,
        from: usize,
        frame: &Frame,
        observed: Option<&Fdb>,
    ) -> Result<(u16, Vec<usize>), DropReason> {
        let port = self.ports[from].as_ref().unwrap();
        if !port.cable {
            return Err(DropReason::CableOut);
        }
        if port.blocked {
            return Err(DropReason::Loop);
        }
        let network = port.network.ok_or(DropReason::NotAttached)?;
        match &frame.work {
            Work::Runt(_) => return Err(DropReason::Runt),
            _ if frame.bytes().len() > MAX_LEN => return Err(DropReason::Giant),
            Work::Malformed(_) => return Err(DropReason::HeaderMalformed),
            Work::Segmentation(_) if frame.tags.len() > MAX_TAGS => {
                return Err(DropReason::HeaderMalformed);
            }
            _ => {}
        }
        if frame.packet_len() > self.networks[network].as_ref().unwrap().mtu {
            return Err(DropReason::MtuExceeded);
        }
        let vid = frame.tags.first().map_or(0, |tag| tag.vid().get());
        let vlan = ingress_vlan(&port.vlan, vid).ok_or(DropReason::VlanNotAllowed)?;
        if frame.dst.to_string().starts_with("01:80:c2:00:00:0") {
            return Err(DropReason::ReservedMulticast);
        }
        let filter = port.filter;
        if matches!(filter.station, Station::Known(mac) if filter.spoof == Spoof::Deny && mac != frame.src)
        {
            return Err(DropReason::SourceForged);
        }
        if frame.src.is_multicast() || frame.src.is_zero() {
            return Err(DropReason::SourceInvalid);
        }
        match self.owner(network, (vlan, frame.src)) {
            None => self.learn(network, (vlan, frame.src), from, observed),
            Some(owner) if owner == from => {}
            Some(_) => return Err(DropReason::OwnAddress),
        }
        let destination = self.destination(from, vlan, frame.dst);
        if destination == Some(from) {
            return Err(DropReason::Hairpin);
        }
        if destination.is_none() && !self.admits(from, frame.dst) {
            return Err(DropReason::Storm);
        }
        let is_member = |to: &usize| {
            let port = self.ports[*to].as_ref();
            *to != from
                && port.is_some_and(|p| p.network == Some(network) && is_member_of(&p.vlan, vlan))
        };
        let members: Vec<usize> = (0..self.ports.len()).filter(is_member).collect();
        let is_there = destination.is_none_or(|to| members.contains(&to));
        if members.is_empty() || !is_there {
            return Err(DropReason::NoMember);
        }
        let should_receive = |to: &usize| self.should_receive(*to, from, destination, frame.dst);
        let receivers: Vec<usize> = members.into_iter().filter(should_receive).collect();
        if receivers.is_empty() { Err(DropReason::UnknownUnicast) } else { Ok((vlan, receivers)) }
    }

    /// Returns whether a port may send this flooded frame: the limits of the simulation are none or
    /// one a second.
    fn admits(&mut self, from: usize, dst: MacAddr) -> bool {
        let now = self.now;
        let port = self.ports[from].as_mut().unwrap();
        let limits = port.filter.storm;
        let (limit, last) = match dst {
            MacAddr::BROADCAST => (limits.broadcast, &mut port.flooded[0]),
            dst if dst.is_multicast() => (limits.multicast, &mut port.flooded[1]),
            _ => (limits.unknown, &mut port.flooded[2]),
        };
        let admits = limit == 0 || last.is_none_or(|last| now - last >= TICKS_PER_SECOND);
        if limit != 0 && admits {
            *last = Some(now);
        }
        admits
    }

    /// Returns whether a member of the frame's VLAN should receive it.
    fn should_receive(
        &self,
        to: usize,
        from: usize,
        destination: Option<usize>,
        dst: MacAddr,
    ) -> bool {
        let is_outside = |port: usize| self.ports[port].as_ref().unwrap().filter.is_outside;
        let port = self.ports[to].as_ref().unwrap();
        let is_for_it = match destination {
            _ if dst.is_multicast() => true,
            Some(destination) => destination == to,
            None => port.may_have_station(dst),
        };
        let is_between_guests = !is_outside(from) && !destination.is_some_and(is_outside);
        match port.filter.promiscuous {
            Promiscuous::Deny => is_for_it,
            Promiscuous::AllowVms => is_for_it || is_between_guests,
            Promiscuous::AllowAll => true,
        }
    }

    fn learn(&mut self, network: usize, key: Key, port: usize, observed: Option<&Fdb>) {
        let now = self.now;
        let network = self.networks[network].as_mut().unwrap();
        if let Some(observed) = observed {
            self.evictions += u64::from(network.follow_eviction(key, port, observed, now));
        }
        let old = network.learned.insert(key, (port, now));
        self.moves +=
            u64::from(old.is_some_and(|(on, seen)| on != port && network.is_live(seen, now)));
        // A repeated entry is not recorded again.
        if old != Some((port, now)) {
            self.ports[port].as_mut().unwrap().record_source(key.1, now, network.aging);
        }
    }

    /// Returns the port where `dst` was learned; `None` means flooding.
    fn destination(&self, from: usize, vlan: u16, dst: MacAddr) -> Option<usize> {
        let network = self.ports[from].as_ref().unwrap().network.unwrap();
        if let Some(owner) = self.owner(network, (vlan, dst)) {
            return Some(owner);
        }
        let network = self.networks[network].as_ref().unwrap();
        let (port, seen) = network.learned.get(&(vlan, dst))?;
        network.is_live(*seen, self.now).then_some(*port)
    }

    /// Returns the port to which an address belongs. No two ports of the simulation have the same.
    fn owner(&self, network: usize, (vlan, mac): Key) -> Option<usize> {
        self.ports.iter().position(|port| {
            port.as_ref().is_some_and(|port| {
                port.network == Some(network)
                    && port.filter.own_address == Some(mac)
                    && ingress_vlan(&port.vlan, 0) == Some(vlan)
            })
        })
    }

    /// Forgets that addresses were learned which now belong to a port.
    pub(crate) fn forget_owned(&mut self) {
        for index in 0..self.networks.len() {
            let Some(mut network) = self.networks[index].take() else { continue };
            network.learned.retain(|key, _| self.owner(index, *key).is_none());
            self.networks[index] = Some(network);
        }
    }

    /// Returns the addresses that the switch should show: those learned, and those that belong to a
    /// port, as seen [`FOREVER`].
    pub(crate) fn shown(&self, index: usize) -> Fdb {
        let Some(network) = &self.networks[index] else { return Fdb::new() };
        let mut shown = network.live(self.now);
        for (number, port) in self.ports.iter().enumerate() {
            if let Some(port) = port.as_ref().filter(|port| port.network == Some(index))
                && let (Some(vlan), Some(mac)) =
                    (ingress_vlan(&port.vlan, 0), port.filter.own_address)
            {
                shown.insert((vlan, mac), (number, FOREVER));
            }
        }
        shown
    }

    /// Removes the addresses learned on a port.
    pub(crate) fn flush_port(&mut self, port: usize) {
        for network in self.networks.iter_mut().flatten() {
            network.learned.retain(|_, (on, _)| *on != port);
        }
    }
}

impl Port {
    /// Records a source address.
    fn record_source(&mut self, mac: MacAddr, now: u64, aging: u64) {
        if self.filter.station == Station::Many {
            return;
        }
        let last = self.sources.last().copied();
        if last == Some(mac) {
            // It has used one address for long enough.
            self.changed = self.changed.filter(|since| now - since <= aging);
            return;
        }
        if last.is_some() {
            self.changed = Some(now);
        }
        self.sources.retain(|source| *source != mac);
        self.sources.push(mac);
        self.sources.drain(..self.sources.len().saturating_sub(MAX_SOURCES));
    }

    /// Returns whether an address that was not learned may be behind the port.
    fn may_have_station(&self, mac: MacAddr) -> bool {
        let has_shown = self.sources.contains(&mac);
        match self.filter.station {
            Station::Many => true,
            Station::Known(own) if self.filter.spoof == Spoof::Deny => own == mac,
            Station::Known(own) => own == mac || has_shown || self.changed.is_some(),
            Station::Learned => self.sources.is_empty() || has_shown || self.changed.is_some(),
        }
    }

    /// Forgets the source addresses, as the port's guest may have changed.
    pub(crate) fn forget_sources(&mut self) {
        self.sources.clear();
        self.changed = None;
    }

    /// Delivers a frame to this port.
    fn receive(&mut self, mut frame: Frame, vlan: u16) {
        if !self.cable {
            self.counters.drops[DropReason::EgressDown as usize] += 1;
            return;
        }
        if self.blocked {
            self.counters.drops[DropReason::Loop as usize] += 1;
            return;
        }
        if !self.ready {
            self.counters.drops[DropReason::EgressNotReady as usize] += 1;
            return;
        }
        self.retag(&mut frame, vlan);
        if self.offloads.contains(frame.needs()) {
            let mut header = frame.header();
            if !self.offloads.contains(Offloads::CSUM) {
                header.flags &= !2;
            }
            self.enqueue(header, frame.with_rest(&frame.rest));
            return;
        }
        match &frame.work {
            Work::Segmentation(large) => {
                self.counters.software_gso_frames += 1;
                for rest in &large.done {
                    self.enqueue(VnetHeader::default(), frame.with_rest(rest));
                }
            }
            Work::Checksum { done, .. } => {
                self.counters.software_checksum_frames += 1;
                self.enqueue(VnetHeader::default(), frame.with_rest(done));
            }
            _ => unreachable!("a complete frame needs no offload"),
        }
    }

    /// Sets the outermost tag to the VLAN, or removes it. A rewritten tag keeps its TPID and
    /// priority, but not its DEI.
    fn retag(&self, frame: &mut Frame, vlan: u16) {
        let old = (!frame.tags.is_empty()).then(|| frame.tags.remove(0));
        if !leaves_tagged(&self.vlan, vlan) {
            return;
        }
        let tag = match old {
            Some(tag) if tag.vid().get() == vlan => tag,
            Some(tag) => VlanTag { tpid: tag.tpid, tci: u16::from(tag.pcp()) << 13 | vlan },
            None => VlanTag { tpid: 0x8100, tci: VlanId::new(vlan).unwrap().get() },
        };
        frame.tags.insert(0, tag);
    }

    fn enqueue(&mut self, mut header: VnetHeader, bytes: Vec<u8>) {
        match self.buffers(bytes.len()) {
            Ok(buffers) => header.num_buffers = buffers,
            Err(reason) => {
                self.counters.drops[reason as usize] += 1;
                return;
            }
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += bytes.len() as u64;
        self.counters.tx_gso_frames += u64::from(header.is_gso());
        self.queue.push(Captured { header, bytes });
    }

    /// Returns how many buffers a frame of `len` bytes takes now; 0 in a queue of frames.
    fn buffers(&self, len: usize) -> Result<u16, DropReason> {
        let (count, needed) = match self.room {
            Room::Frames(count) if self.queue.len() < count => return Ok(0),
            Room::Frames(_) => return Err(DropReason::EgressFull),
            Room::Buffers { count, size, features } if features.mergeable => {
                (count, (12 + len).div_ceil(size))
            }
            Room::Buffers { count, size, features } => {
                let header = if features.short_header { 10 } else { 12 };
                (count, if header + len <= size { 1 } else { usize::MAX })
            }
        };
        let taken: usize = self.queue.iter().map(|f| usize::from(f.header.num_buffers)).sum();
        match count - taken {
            0 => Err(DropReason::EgressFull),
            free if needed <= free => Ok(needed as u16),
            // A frame may be too large for one buffer, or for all buffers.
            free if needed == usize::MAX || free == count => Err(DropReason::EgressTooLarge),
            _ => Err(DropReason::EgressFull),
        }
    }
}
