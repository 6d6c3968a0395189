//! What is measured: the table of scenarios.
//!
//! A scenario is a load, the ports it needs, and who does it: ours first, then those it is compared
//! with. To add one is to add an entry to [`SCENARIOS`].

use serde::{Deserialize, Serialize};

use trama_bench::generator::Direction;

use crate::load::Load;
use crate::peers::{
    DIRECT, DPDK_IO, LINUX_BRIDGE, NULL_DEVICE, NULL_DEVICE_BY_ADDRESS, OVS_DPDK, OVS_USERSPACE,
    OVS_USERSPACE_TSO, Peer, Port, TRAMA, Twist, VDE, VIRTIO_QUEUE,
};

/// One thing that is measured.
pub struct Scenario {
    /// Its name on the command line; a group's name in front of the first `-` selects it too.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What its figures are in.
    pub unit: Unit,
    /// What is plugged into the switch.
    pub ports: &'static [Port],
    /// The network's MTU.
    pub mtu: u32,
    /// What is done.
    pub load: Load,
    /// Who does it. All others are compared with the first.
    pub entrants: &'static [Entrant],
    /// What the same load is given to find the generator's own limit. None where the load finds
    /// it itself or there is no generator.
    pub ceiling: Option<&'static Peer>,
    /// What the first entrant's figure has to reach, in the unit.
    pub target: Option<f64>,
}

/// One that takes part in a scenario.
pub struct Entrant {
    /// Its name on the command line and in reports.
    pub label: &'static str,
    /// The switch.
    pub peer: &'static Peer,
    /// What is asked of trama beside.
    pub twist: Twist,
    /// Its ports, where they are not the scenario's.
    pub ports: Option<&'static [Port]>,
    /// What the first entrant's ratio to it has to reach.
    pub target: Option<f64>,
}

/// Which figures are the better ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times, sizes.
    Lower,
}

/// A unit of figures.
pub struct Unit {
    /// Its sign.
    pub name: &'static str,
    /// How many base units (frames or bits a second, seconds, bytes) it is.
    pub scale: f64,
    /// Which end is the good one.
    pub better: Better,
    /// Whether a figure counts frames a second.
    pub frames: bool,
}

const MPPS: Unit = Unit { name: "Mpps", scale: 1e6, better: Better::Higher, frames: true };
const GBPS: Unit = Unit { name: "Gb/s", scale: 1e9, better: Better::Higher, frames: false };
const MICROSECONDS: Unit = lower("µs", 1e-6);
const MILLISECONDS: Unit = lower("ms", 1e-3);
const PERCENT: Unit = lower("% of a core", 1e-2);
const A_SECOND: Unit = lower("a second", 1.0);
const MIB: Unit = lower("MiB", 1_048_576.0);
const BYTES: Unit = lower("bytes", 1.0);
const KIB: Unit = lower("KiB", 1024.0);

const fn lower(name: &'static str, scale: f64) -> Unit {
    Unit { name, scale, better: Better::Lower, frames: false }
}

const fn us(label: &'static str, twist: Twist) -> Entrant {
    Entrant { label, peer: &TRAMA, twist, ports: None, target: None }
}

const fn beside(peer: &'static Peer) -> Entrant {
    Entrant { label: peer.name, peer, twist: PLAIN, ports: None, target: None }
}

const fn against(peer: &'static Peer, target: f64) -> Entrant {
    Entrant { target: Some(target), ..beside(peer) }
}

const PLAIN: Twist =
    Twist { vlan: false, silent_ports: 0, macs: 0, polls: false, hears_all: false };
const WITH_126_PORTS: Twist = Twist { silent_ports: 126, ..PLAIN };
const VLAN: Twist = Twist { vlan: true, ..PLAIN };
const POLLING: Twist = Twist { polls: true, ..PLAIN };
const HEARING_ALL: Twist = Twist { hears_all: true, ..PLAIN };
const WITH_1K_MACS: Twist = Twist { macs: 1000, ..PLAIN };
const WITH_1M_MACS: Twist = Twist { macs: 1_000_000, ..PLAIN };
const WITH_100_PORTS: Twist = Twist { silent_ports: 100, ..PLAIN };

const VHOST: [Port; 8] = [Port::Vhost; 8];
const HOSTS: [Port; 9] = [Port::Host; 9];

const LATENCY_PEERS: &[Entrant] =
    &[beside(&TRAMA), us("trama-polling", POLLING), against(&DPDK_IO, 1.5), beside(&OVS_DPDK)];
const LATENCY_PEERS_90: &[Entrant] =
    &[beside(&TRAMA), us("trama-polling", POLLING), beside(&DPDK_IO), beside(&OVS_DPDK)];
/// The kernel's bridge has no vhost-user port: there, hosts have both ends.
const STREAM_PEERS: &[Entrant] =
    &[beside(&TRAMA), Entrant { ports: Some(HOSTS.split_at(2).0), ..against(&LINUX_BRIDGE, 1.25) }];
const US: &[Entrant] = &[beside(&TRAMA)];
const VHOST_PEERS: &[Entrant] = &[beside(&TRAMA), beside(&OVS_DPDK), beside(&DPDK_IO)];

/// Known unicast both ways between two vhost-user ports.
const fn circulation(name: &'static str, title: &'static str, bytes: usize) -> Scenario {
    Scenario {
        name,
        title,
        unit: MPPS,
        ports: VHOST.split_at(2).0,
        mtu: 1500,
        load: Load::Circulate { bytes },
        entrants: VHOST_PEERS,
        ceiling: Some(&NULL_DEVICE),
        target: None,
    }
}

/// Our own generator on the first `ports` vhost-user ports.
const fn driven(
    name: &'static str,
    title: &'static str,
    ports: usize,
    direction: Direction,
) -> Scenario {
    Scenario {
        ports: VHOST.split_at(ports).0,
        load: Load::Driven { bytes: 64, direction },
        entrants: VHOST_PEERS,
        ..circulation(name, title, 64)
    }
}

/// Latency at a share of each one's own loss-free rate.
const fn latency(
    name: &'static str,
    title: &'static str,
    percent: u8,
    entrants: &'static [Entrant],
) -> Scenario {
    Scenario {
        unit: MICROSECONDS,
        load: Load::Latency { bytes: 64, percent },
        entrants,
        ..circulation(name, title, 64)
    }
}

/// Hosts on TAPs.
const fn hosts(name: &'static str, title: &'static str, ports: usize, load: Load) -> Scenario {
    Scenario {
        name,
        title,
        unit: GBPS,
        ports: HOSTS.split_at(ports).0,
        mtu: 1500,
        load,
        entrants: &[],
        ceiling: Some(&DIRECT),
        target: None,
    }
}

/// A TCP stream between our driver side and a host, beside one between two hosts on the kernel's
/// bridge.
const fn driver_stream(
    name: &'static str,
    title: &'static str,
    ports: &'static [Port],
) -> Scenario {
    Scenario { ports, entrants: STREAM_PEERS, ceiling: None, ..hosts(name, title, 2, Load::Stream) }
}

/// Our own cost, with a target in its unit.
const fn footprint(
    name: &'static str,
    title: &'static str,
    load: Load,
    unit: Unit,
    target: f64,
) -> Scenario {
    Scenario {
        name,
        title,
        unit,
        ports: HOSTS.split_at(2).0,
        mtu: 1500,
        load,
        entrants: US,
        ceiling: None,
        target: Some(target),
    }
}

/// Everything that can be measured, in the order of the report.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        entrants: &[
            beside(&TRAMA),
            against(&OVS_DPDK, 1.5),
            against(&DPDK_IO, 1.0),
            beside(&VIRTIO_QUEUE),
        ],
        ..circulation("vhost-64", "vhost-user <-> vhost-user, known unicast both ways, 64 B", 64)
    },
    circulation("vhost-128", "vhost-user <-> vhost-user, known unicast both ways, 128 B", 128),
    circulation("vhost-256", "vhost-user <-> vhost-user, known unicast both ways, 256 B", 256),
    circulation("vhost-512", "vhost-user <-> vhost-user, known unicast both ways, 512 B", 512),
    circulation("vhost-1024", "vhost-user <-> vhost-user, known unicast both ways, 1024 B", 1024),
    Scenario {
        entrants: &[
            beside(&TRAMA),
            against(&OVS_DPDK, 1.5),
            against(&DPDK_IO, 1.2),
            beside(&VIRTIO_QUEUE),
        ],
        ..circulation(
            "vhost-1500",
            "vhost-user <-> vhost-user, known unicast both ways, 1500 B",
            1500,
        )
    },
    Scenario {
        mtu: 9000,
        ..circulation(
            "vhost-9000",
            "vhost-user <-> vhost-user, known unicast both ways, 9000 B",
            9000,
        )
    },
    Scenario {
        load: Load::FloodMove { bytes: 64 },
        entrants: &[us("trama", HEARING_ALL), against(&OVS_DPDK, 2.5), beside(&DPDK_IO)],
        ..circulation(
            "vhost-flood-move",
            "vhost-user <-> vhost-user, all flooded and sources moving, 64 B",
            64,
        )
    },
    Scenario {
        ports: VHOST.split_at(4).0,
        ..circulation("vhost-pairs", "four vhost-user ports in pairs, 64 B", 64)
    },
    Scenario {
        ports: &VHOST,
        load: Load::FloodMove { bytes: 64 },
        entrants: &[us("trama", HEARING_ALL), beside(&OVS_DPDK)],
        ceiling: None,
        ..circulation("vhost-flood8", "eight vhost-user ports, all flooded to seven, 64 B", 64)
    },
    Scenario {
        entrants: &[us("trama-128-ports", WITH_126_PORTS), against(&TRAMA, 0.9)],
        ..circulation("vhost-ports", "vhost-user <-> vhost-user, 128 ports beside 2, 64 B", 64)
    },
    driven("vhost-uni", "vhost-user -> vhost-user, one way, 64 B", 2, Direction::Uni),
    Scenario {
        entrants: &[beside(&TRAMA), beside(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-nxn", "four vhost-user ports, each to all others, 64 B", 4, Direction::Mesh)
    },
    Scenario {
        entrants: &[beside(&TRAMA), beside(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-fan-in", "two vhost-user ports -> one, 64 B", 3, Direction::FanIn)
    },
    Scenario {
        entrants: &[beside(&TRAMA), beside(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-fan-out", "one vhost-user port -> four, 64 B", 5, Direction::FanOut)
    },
    Scenario {
        entrants: &[us("trama-vlan", VLAN), against(&TRAMA, 0.95)],
        ..driven("vhost-vlan", "VLAN access <-> trunk beside untagged, 64 B", 2, Direction::Both)
    },
    Scenario {
        entrants: &[
            us("trama-1M-macs", WITH_1M_MACS),
            Entrant { target: Some(0.7), ..us("trama-1k-macs", WITH_1K_MACS) },
        ],
        ..driven("vhost-macs", "1M MAC addresses beside 1k, 64 B", 2, Direction::Both)
    },
    Scenario {
        unit: GBPS,
        load: Load::LargeSegments,
        entrants: US,
        ..driven("vhost-gso", "vhost-user -> vhost-user, 64 KiB segments", 2, Direction::Uni)
    },
    driver_stream(
        "vhost-tap-tcp",
        "vhost-user -> TAP, one TCP stream, 64 KiB segments",
        &[Port::Vhost, Port::Host],
    ),
    driver_stream(
        "vhost-tcp-from-tap",
        "TAP -> vhost-user, one TCP stream, 64 KiB segments",
        &[Port::Host, Port::Vhost],
    ),
    Scenario {
        load: Load::LossFree { bytes: 64 },
        ..circulation("vhost-loss-free", "highest rate without loss, both ways, 64 B", 64)
    },
    latency(
        "vhost-latency-10",
        "latency at 10 % load, 64 B: p99 of the median 10 ms",
        10,
        LATENCY_PEERS,
    ),
    latency(
        "vhost-latency-50",
        "latency at 50 % load, 64 B: p99 of the median 10 ms",
        50,
        LATENCY_PEERS,
    ),
    latency(
        "vhost-latency-90",
        "latency at 90 % load, 64 B: p99 of the median 10 ms",
        90,
        LATENCY_PEERS_90,
    ),
    Scenario {
        entrants: &[
            beside(&TRAMA),
            against(&OVS_USERSPACE_TSO, 1.2),
            against(&LINUX_BRIDGE, 0.8),
            beside(&VDE),
        ],
        ..hosts("tap-tcp", "TAP <-> TAP, one TCP stream, segments to 64 KiB", 2, Load::TcpFanOut)
    },
    Scenario {
        mtu: 9000,
        entrants: &[beside(&TRAMA), beside(&OVS_USERSPACE_TSO), beside(&LINUX_BRIDGE)],
        ..hosts("tap-tcp-9000", "TAP <-> TAP, one TCP stream, MTU 9000", 2, Load::TcpFanOut)
    },
    Scenario {
        entrants: &[beside(&TRAMA), beside(&OVS_USERSPACE_TSO), beside(&LINUX_BRIDGE)],
        ..hosts("tap-fan-in", "two TAPs -> one TAP, a TCP stream each", 3, Load::TcpFanIn)
    },
    Scenario {
        entrants: &[beside(&TRAMA), beside(&OVS_USERSPACE_TSO), beside(&LINUX_BRIDGE)],
        ..hosts("tap-fan-out", "one TAP -> four TAPs, a TCP stream each", 5, Load::TcpFanOut)
    },
    Scenario {
        unit: MPPS,
        entrants: &[beside(&TRAMA), beside(&OVS_USERSPACE), beside(&VDE), beside(&LINUX_BRIDGE)],
        ceiling: None,
        ..hosts("tap-flood8", "TAP flooded to eight TAPs, frames delivered", 9, Load::Broadcast)
    },
    Scenario {
        unit: MICROSECONDS,
        entrants: &[
            beside(&TRAMA),
            against(&OVS_USERSPACE, 0.6),
            beside(&VDE),
            beside(&LINUX_BRIDGE),
        ],
        ..hosts("tap-ping", "TAP <-> TAP, flood ping round trip, average", 2, Load::Ping)
    },
    Scenario {
        ports: &[Port::Vhost, Port::Host],
        entrants: &[
            beside(&TRAMA),
            Entrant { label: "e1000", ports: Some(&[Port::Tap, Port::Host]), ..beside(&TRAMA) },
        ],
        ceiling: None,
        ..hosts(
            "guest-tap-tcp",
            "virtual machine (TCG) -> TAP, one TCP stream: virtio beside e1000",
            2,
            Load::GuestTcp,
        )
    },
    Scenario {
        ports: &[Port::Vhost, Port::Beyond],
        entrants: &[
            beside(&TRAMA),
            Entrant { ports: Some(&[Port::Machine, Port::Beyond]), ..beside(&LINUX_BRIDGE) },
        ],
        ceiling: None,
        ..hosts(
            "guest-bridged-tcp",
            "virtual machine (TCG) -> uplink, one TCP stream: mode bridged beside a bridged TAP",
            2,
            Load::GuestTcp,
        )
    },
    Scenario {
        entrants: &[us("trama", WITH_100_PORTS)],
        ..footprint("footprint-cpu", "idle, 100 silent ports", Load::IdleCpu, PERCENT, 0.2)
    },
    Scenario {
        entrants: &[us("trama", WITH_100_PORTS)],
        ..footprint(
            "footprint-wakeups",
            "wake-ups, 100 silent ports",
            Load::IdleWakeups,
            A_SECOND,
            0.0,
        )
    },
    footprint("footprint-memory", "memory of the daemon, 2 ports", Load::Memory, MIB, 12.0),
    footprint("footprint-port", "memory of a further port", Load::MemoryPerPort, KIB, 96.0),
    Scenario {
        ports: VHOST.split_at(2).0,
        ..footprint(
            "footprint-mac",
            "memory of a MAC address, 1M of them",
            Load::MemoryPerMac,
            BYTES,
            24.0,
        )
    },
    Scenario {
        ports: &[],
        entrants: &[us("trama", WITH_100_PORTS)],
        ..footprint(
            "footprint-ready",
            "ready after start, 50 TAPs and 50 vhost-user ports",
            Load::Ready,
            MILLISECONDS,
            100.0,
        )
    },
    Scenario {
        ports: &[Port::Vhost; 100],
        ..footprint(
            "footprint-ready-vhost",
            "ready after start, 100 vhost-user ports",
            Load::Ready,
            MILLISECONDS,
            100.0,
        )
    },
];

impl Scenario {
    /// Whether `word` of the command line means this one: its name or its group's.
    pub fn is_meant_by(&self, word: &str) -> bool {
        self.name == word || self.group() == word
    }

    /// The first word of its name.
    pub fn group(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Roughly the seconds that one round takes, each measurement being of so many.
    pub fn round_takes(&self, seconds: u64) -> u64 {
        let measurements = self.entrants.len() + usize::from(self.ceiling.is_some());
        measurements as u64 * (self.load.overhead() + seconds)
    }

    /// The ports of one of its entrants.
    pub fn ports_of(&self, entrant: &Entrant) -> &'static [Port] {
        entrant.ports.unwrap_or(self.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_scenario_has_somebody_who_does_it() {
        let names: HashSet<_> = SCENARIOS.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for scenario in SCENARIOS {
            let labels: HashSet<_> = scenario.entrants.iter().map(|e| e.label).collect();
            assert_eq!(labels.len(), scenario.entrants.len(), "{}", scenario.name);
            assert_eq!(scenario.entrants[0].peer.name, "trama", "{}", scenario.name);
        }
    }

    #[test]
    fn every_peer_of_the_table_is_one_that_the_command_line_knows() {
        let known: HashSet<_> = peers::ALL.iter().map(|p| p.name).collect();
        for entrant in SCENARIOS.iter().flat_map(|s| s.entrants) {
            assert!(known.contains(entrant.peer.name));
        }
    }

    #[test]
    fn a_group_means_all_its_scenarios() {
        let meant = |word| SCENARIOS.iter().filter(|s| s.is_meant_by(word)).count();
        assert_eq!(meant("tap-ping"), 1);
        assert!(meant("footprint") >= 6);
        assert_eq!(meant("nonsense"), 0);
    }
}
