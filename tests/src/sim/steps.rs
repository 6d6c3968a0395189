//! The steps of a simulation, drawn at random: traffic, faults, commands.

use std::fmt;

use trama_frame::{MacAddr, Offloads, VlanId, VlanTag};
use trama_switch::{PortFilter, Promiscuous, Spoof, Station, StormLimits, VlanMode, VlanSet};
use trama_virtqueue::{ChainShape, HEADER_LEN, RingFeatures};

use super::frames::{Frame, MAX_LEN, Work, large, malformed, partial_checksum, plain};
use super::plug::PlugKind;
use super::rng::Rng;

/// Number of port slots.
pub(crate) const PORTS: usize = 6;
/// Number of network slots.
pub(crate) const NETWORKS: usize = 2;
/// Number of stations' addresses, small so that they meet again.
const STATIONS: usize = 2 * PORTS;

/// A step. Ports and networks are slots; on an empty slot a step does nothing. So a simulation
/// remains valid when steps are left out.
#[derive(Clone)]
pub(crate) enum Step {
    /// Frames arrive in one burst.
    Send { port: usize, frames: Vec<Frame> },
    /// Time passes, in ticks of the MAC table.
    Wait { ticks: u64 },
    /// A port is added to an empty slot.
    Add { port: usize, network: Option<usize>, vlan: VlanMode, offloads: Offloads, plug: PlugKind },
    /// A port is removed.
    Remove { port: usize },
    /// A port's VLANs change.
    SetVlan { port: usize, vlan: VlanMode },
    /// A port moves to another network, or to none.
    Move { port: usize, network: Option<usize> },
    /// A cable is connected or disconnected.
    Cable { port: usize, is_in: bool },
    /// A port is blocked because of a loop, or opened.
    Block { port: usize, blocked: bool },
    /// A port's filter changes.
    SetFilter { port: usize, filter: PortFilter },
    /// A port's frontend goes away (and comes back at once).
    Detach { port: usize },
    /// A receiver negotiates other offloads.
    SetOffloads { port: usize, offloads: Offloads },
    /// A guest's driver stops its rings, or starts them again.
    Rings { port: usize, run: bool },
    /// A receiver stops taking frames, or takes them again.
    Stall { port: usize, stalled: bool },
    /// A network is added to an empty slot, or its limits change.
    SetNetwork { network: usize, mtu: u16, capacity: usize, aging: u64 },
    /// A network is removed.
    RemoveNetwork { network: usize },
    /// Learned addresses are flushed, of one network or of all.
    Flush { network: Option<usize> },
    /// All networks and ports move to another engine.
    Migrate,
}

/// Returns the first steps: two networks, and a port in every slot.
pub(crate) fn initial(rng: &mut Rng) -> Vec<Step> {
    let networks = (0..NETWORKS).map(|network| {
        let capacity = if network == 0 { 8192 } else { 6 };
        Step::SetNetwork { network, mtu: 1500, capacity, aging: 1000 }
    });
    let mut steps: Vec<Step> = networks.collect();
    for port in 0..PORTS {
        steps.push(add(rng, port));
    }
    steps
}

/// Returns a random step.
pub(crate) fn random(rng: &mut Rng) -> Step {
    let port = rng.below(PORTS);
    match rng.below(100) {
        0..72 => {
            let count = if rng.chance(1, 10) { 1 + rng.below(40) } else { 1 + rng.below(4) };
            Step::Send { port, frames: (0..count).map(|_| frame(rng, port)).collect() }
        }
        72..75 => Step::SetFilter { port, filter: filter(rng, port) },
        75..80 => Step::Wait { ticks: rng.pick(&[0, 1, 1, 1, 5, 50, 300, 1001]) },
        80..84 => Step::SetVlan { port, vlan: vlan_mode(rng) },
        84..85 => Step::Move { port, network: place(rng) },
        85..87 => Step::Cable { port, is_in: rng.chance(4, 5) },
        87..88 => Step::Block { port, blocked: rng.chance(1, 2) },
        88..89 => Step::Detach { port },
        89..91 => Step::SetOffloads { port, offloads: offloads(rng) },
        91..93 => Step::Stall { port, stalled: rng.chance(1, 3) },
        93..95 => Step::Rings { port, run: rng.chance(3, 4) },
        95..96 => Step::Remove { port },
        96..97 => add(rng, port),
        97..99 => Step::SetNetwork {
            network: rng.below(NETWORKS),
            mtu: rng.pick(&[576, 1500, 1500, 9000]),
            capacity: rng.pick(&[1, 2, 6, 12, 8192]),
            aging: rng.pick(&[1, 100, 1000]),
        },
        _ if rng.chance(1, 3) => Step::Migrate,
        _ if rng.chance(1, 5) => Step::RemoveNetwork { network: rng.below(NETWORKS) },
        _ => Step::Flush { network: place(rng) },
    }
}

fn add(rng: &mut Rng, port: usize) -> Step {
    let (network, vlan, offloads, plug) = (place(rng), vlan_mode(rng), offloads(rng), plug(rng));
    Step::Add { port, network, vlan, offloads, plug }
}

fn filter(rng: &mut Rng, port: usize) -> PortFilter {
    let (learned, many) = (Station::Learned, Station::Many);
    PortFilter {
        promiscuous: rng.pick(&[
            Promiscuous::Deny,
            Promiscuous::Deny,
            Promiscuous::AllowVms,
            Promiscuous::AllowAll,
        ]),
        station: match rng.below(3) {
            0 => Station::Known(station(rng)),
            _ => rng.pick(&[learned, learned, many]),
        },
        is_outside: rng.chance(1, 4),
        spoof: if rng.chance(1, 3) { Spoof::Deny } else { Spoof::Allow },
        own_address: rng.chance(3, 4).then(|| home(port, 0)),
        storm: storm(rng),
    }
}

fn storm(rng: &mut Rng) -> StormLimits {
    let mut limit = || u32::from(rng.chance(1, 4));
    StormLimits { broadcast: limit(), multicast: limit(), unknown: limit() }
}

fn plug(rng: &mut Rng) -> PlugKind {
    if rng.chance(1, 2) {
        return PlugKind::Queues(rng.pick(&[256, 256, 3]));
    }
    let shape = rng.pick(&[
        ChainShape::Single,
        ChainShape::HeaderSplit,
        ChainShape::Scattered(4),
        ChainShape::Indirect(1),
        ChainShape::Indirect(5),
    ]);
    let mergeable = rng.chance(2, 3);
    let features = RingFeatures {
        event_idx: rng.chance(1, 2),
        indirect: true,
        in_order: rng.chance(1, 2),
        mergeable,
        short_header: !mergeable && rng.chance(1, 2),
    };
    // Too small for large frames, or for many, or large enough for all.
    let (buffers, buffer_size) = if features.mergeable {
        rng.pick(&[(256, 1536), (256, 1536), (8, 300)])
    } else {
        rng.pick(&[(64, HEADER_LEN + MAX_LEN + 4), (128, 1600), (4, 1600)])
    };
    PlugKind::Guest { shape, features, buffers, buffer_size }
}

fn place(rng: &mut Rng) -> Option<usize> {
    // Mostly the first network, so that ports have peers.
    match rng.below(20) {
        0 => None,
        1..6 => Some(1),
        _ => Some(0),
    }
}

fn offloads(rng: &mut Rng) -> Offloads {
    rng.pick(&[
        Offloads::ALL,
        Offloads::ALL,
        Offloads::NONE,
        Offloads::CSUM,
        Offloads::CSUM | Offloads::TSO4,
        Offloads::CSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::ECN,
        Offloads::CSUM | Offloads::USO,
    ])
}

fn vid(rng: &mut Rng) -> VlanId {
    VlanId::new(rng.pick(&[0, 10, 10, 10, 10, 10, 10, 20, 20, 4095])).unwrap()
}

fn vlan_mode(rng: &mut Rng) -> VlanMode {
    let listed = rng.pick(&[0, 0, 0, 2, 3]);
    let trunks: VlanSet = (0..listed).map(|_| vid(rng)).collect();
    let tag = vid(rng);
    match rng.below(4) {
        0 => VlanMode::Access { tag },
        1 => VlanMode::Trunk { trunks },
        2 => VlanMode::NativeTagged { tag, trunks },
        _ => VlanMode::NativeUntagged { tag, trunks },
    }
}

/// Returns a unicast address: usually one of the few stations, rarely one of many.
fn station(rng: &mut Rng) -> MacAddr {
    let crowd = if rng.chance(1, 30) { 1000 } else { STATIONS };
    MacAddr::from_u64(0x0200_0000_0000 + rng.below(crowd) as u64)
}

/// Returns one of the two stations that are mostly behind a port.
fn home(port: usize, which: usize) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 + (port + PORTS * which) as u64)
}

fn tag(rng: &mut Rng) -> VlanTag {
    let tci = vid(rng).get() | (rng.bits() as u16 & 0xf000);
    VlanTag { tpid: rng.pick(&[0x8100, 0x8100, 0x8100, 0x88a8]), tci }
}

/// Returns a frame of any kind, valid or not, that `port` sends.
fn frame(rng: &mut Rng, port: usize) -> Frame {
    let dst = match rng.below(40) {
        0..7 => MacAddr::BROADCAST,
        7..9 => MacAddr([0x33, 0x33, 0, 0, 0, rng.below(4) as u8]),
        9 => MacAddr([0x01, 0x80, 0xc2, 0, 0, rng.below(18) as u8]),
        _ => station(rng),
    };
    let src = match rng.below(50) {
        0 => rng.pick(&[MacAddr::ZERO, MacAddr([0x33, 0x33, 0, 0, 0, 1]), MacAddr::BROADCAST]),
        1..10 => station(rng),
        // Most stations stay on their port.
        _ => home(port, rng.below(2)),
    };
    let tags = match rng.below(40) {
        0..25 => 0,
        25..36 => 1,
        36..38 => 2,
        // Up to the maximum of parsed tags, and beyond.
        _ => rng.pick(&[3, 7, 8, 9, 12]),
    };
    let tags: Vec<VlanTag> = (0..tags).map(|_| tag(rng)).collect();
    let (rest, work) = match rng.below(40) {
        0..3 => {
            // Sizes at which the switch behaves differently: padding, headers, MTUs, the longest
            // packets.
            let sizes =
                [0, 46, 52, 53, 110, 576, 577, 1496, 1500, 1501, 9000, 9001, 65_535, 66_000];
            let len = rng.pick(&sizes);
            plain(rng, len)
        }
        3..8 => {
            let len = rng.below(1600);
            partial_checksum(rng, len)
        }
        8..13 => large(rng),
        13..15 => malformed(rng, &tags),
        15..16 => {
            let header = if tags.is_empty() { 14 } else { 18 };
            (plain(rng, 50).0, Work::Runt(rng.below(header)))
        }
        _ => {
            let len = rng.below(200);
            plain(rng, len)
        }
    };
    Frame { dst, src, tags, rest, work }
}

impl Step {
    /// Returns the step without one of its several frames.
    pub(crate) fn without_frame(&self, index: usize) -> Option<Step> {
        let Step::Send { port, frames } = self else { return None };
        if frames.len() < 2 || index >= frames.len() {
            return None;
        }
        let mut frames = frames.clone();
        frames.remove(index);
        Some(Step::Send { port: *port, frames })
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Send { port, frames } => {
                write!(f, "port {port} sends")?;
                frames.iter().try_for_each(|frame| write!(f, "\n        {frame:?}"))
            }
            Step::Wait { ticks } => write!(f, "{ticks} ticks pass"),
            Step::Add { port, network, vlan, offloads, plug } => write!(
                f,
                "add port {port} to network {network:?}: {vlan:?}, {offloads:?}, {plug:?}"
            ),
            Step::Remove { port } => write!(f, "remove port {port}"),
            Step::SetVlan { port, vlan } => write!(f, "set port {port}: {vlan:?}"),
            Step::Move { port, network } => write!(f, "move port {port} to network {network:?}"),
            Step::Cable { port, is_in } => write!(f, "set port {port}: cable {is_in}"),
            Step::Block { port, blocked } => write!(f, "set port {port}: blocked {blocked}"),
            Step::SetFilter { port, filter } => write!(f, "set port {port}: {filter:?}"),
            Step::Detach { port } => write!(f, "detach port {port}"),
            Step::SetOffloads { port, offloads } => write!(f, "set port {port}: {offloads:?}"),
            Step::Rings { port, run } => write!(f, "port {port} runs its rings: {run}"),
            Step::Stall { port, stalled } => write!(f, "port {port} stalled: {stalled}"),
            Step::SetNetwork { network, mtu, capacity, aging } => write!(
                f,
                "set network {network}: mtu {mtu}, {capacity} addresses, ageing {aging} ticks"
            ),
            Step::RemoveNetwork { network } => write!(f, "remove network {network}"),
            Step::Flush { network } => write!(f, "flush network {network:?}"),
            Step::Migrate => write!(f, "move everything to another engine"),
        }
    }
}
