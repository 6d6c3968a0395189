//! vhost-user ports, driven by DPDK's testpmd or by trama's driver side.

use trama_bench::generator::Direction;

use super::{
    Entrant, GBPS, HOSTS, MICROSECONDS, MPPS, PLAIN, Scenario, TRAMA_ONLY, entrant, hosts, trama,
    with_target,
};
use crate::load::Load;
use crate::peers::{
    DPDK_IO, LINUX_BRIDGE, NULL_DEVICE, NULL_DEVICE_BY_ADDRESS, NULL_DEVICE_TO_ALL, OVS_DPDK, Port,
    TRAMA, VIRTIO_QUEUE, Variant,
};

const WITH_126_PORTS: Variant = Variant { silent_ports: 126, ..PLAIN };
const VLAN: Variant = Variant { vlan: true, ..PLAIN };
const VLAN_FRAME_SIZES: Variant = Variant { vlan_frame_sizes: true, ..PLAIN };
const SPINNING: Variant = Variant { spins_always: true, ..PLAIN };
const PROMISCUOUS: Variant = Variant { promiscuous: true, ..PLAIN };
const WITH_1K_MACS: Variant = Variant { macs: 1000, ..PLAIN };
const WITH_1M_MACS: Variant = Variant { macs: 1_000_000, ..PLAIN };

const VHOST: [Port; 8] = [Port::Vhost; 8];

const LATENCY_PEERS: &[Entrant] = &[
    entrant(&TRAMA),
    trama("trama-polling", SPINNING),
    with_target(&DPDK_IO, 1.5),
    entrant(&OVS_DPDK),
];
const LATENCY_PEERS_90: &[Entrant] =
    &[entrant(&TRAMA), trama("trama-polling", SPINNING), entrant(&DPDK_IO), entrant(&OVS_DPDK)];
/// The kernel's bridge has no vhost-user port, so both ends are hosts there.
const STREAM_PEERS: &[Entrant] = &[
    entrant(&TRAMA),
    Entrant { ports: Some(HOSTS.split_at(2).0), ..with_target(&LINUX_BRIDGE, 1.25) },
];
const VHOST_PEERS: &[Entrant] = &[entrant(&TRAMA), entrant(&OVS_DPDK), entrant(&DPDK_IO)];

/// Known unicast in both directions between two vhost-user ports.
const fn circulation(name: &'static str, title: &'static str, bytes: usize) -> Scenario {
    Scenario {
        name,
        title,
        unit: MPPS,
        ports: VHOST.split_at(2).0,
        mtu: 1500,
        load: Load::Circulate { bytes },
        entrants: VHOST_PEERS,
        against_best: false,
        ceiling: Some(&NULL_DEVICE),
        target: None,
    }
}

/// trama's generator on the first `ports` vhost-user ports.
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

/// Latency at a percentage of each switch's own loss-free rate.
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

/// A TCP stream between trama's driver side and a host, compared with one between two hosts on the
/// kernel's bridge.
const fn driver_stream(
    name: &'static str,
    title: &'static str,
    ports: &'static [Port],
) -> Scenario {
    Scenario { ports, entrants: STREAM_PEERS, ceiling: None, ..hosts(name, title, 2, Load::Stream) }
}

/// In the order of the report.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        entrants: &[
            entrant(&TRAMA),
            with_target(&OVS_DPDK, 1.5),
            with_target(&DPDK_IO, 1.0),
            entrant(&VIRTIO_QUEUE),
        ],
        ..circulation("vhost-64", "vhost-user <-> vhost-user, known unicast both ways, 64 B", 64)
    },
    circulation("vhost-128", "vhost-user <-> vhost-user, known unicast both ways, 128 B", 128),
    circulation("vhost-256", "vhost-user <-> vhost-user, known unicast both ways, 256 B", 256),
    circulation("vhost-512", "vhost-user <-> vhost-user, known unicast both ways, 512 B", 512),
    circulation("vhost-1024", "vhost-user <-> vhost-user, known unicast both ways, 1024 B", 1024),
    Scenario {
        entrants: &[
            entrant(&TRAMA),
            with_target(&OVS_DPDK, 1.5),
            with_target(&DPDK_IO, 1.2),
            entrant(&VIRTIO_QUEUE),
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
        entrants: &[trama("trama", PROMISCUOUS), with_target(&OVS_DPDK, 2.5), entrant(&DPDK_IO)],
        ..circulation(
            "vhost-flood-move",
            "vhost-user <-> vhost-user, every frame flooded, every source moving, 64 B",
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
        entrants: &[trama("trama", PROMISCUOUS), entrant(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_TO_ALL),
        ..circulation(
            "vhost-flood8",
            "eight vhost-user ports, every frame flooded to seven, 64 B",
            64,
        )
    },
    Scenario {
        entrants: &[trama("trama-128-ports", WITH_126_PORTS), with_target(&TRAMA, 0.9)],
        ..circulation("vhost-ports", "vhost-user <-> vhost-user, 128 ports vs 2, 64 B", 64)
    },
    driven("vhost-uni", "vhost-user -> vhost-user, one way, 64 B", 2, Direction::Uni),
    Scenario {
        entrants: &[entrant(&TRAMA), entrant(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-nxn", "four vhost-user ports, each to all others, 64 B", 4, Direction::Mesh)
    },
    Scenario {
        entrants: &[entrant(&TRAMA), entrant(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-fan-in", "two vhost-user ports -> one, 64 B", 3, Direction::FanIn)
    },
    Scenario {
        entrants: &[entrant(&TRAMA), entrant(&OVS_DPDK)],
        ceiling: Some(&NULL_DEVICE_BY_ADDRESS),
        ..driven("vhost-fan-out", "one vhost-user port -> four, 64 B", 5, Direction::FanOut)
    },
    Scenario {
        entrants: &[
            trama("trama-vlan", VLAN),
            Entrant { target: Some(0.97), ..trama("trama-68-60", VLAN_FRAME_SIZES) },
            with_target(&TRAMA, 0.9),
        ],
        ..driven("vhost-vlan", "access port <-> trunk vs untagged, 64 B", 2, Direction::Both)
    },
    Scenario {
        entrants: &[
            trama("trama-1M-macs", WITH_1M_MACS),
            Entrant { target: Some(0.7), ..trama("trama-1k-macs", WITH_1K_MACS) },
        ],
        ..driven("vhost-macs", "1M vs 1k MAC addresses, 64 B", 2, Direction::Both)
    },
    Scenario {
        unit: GBPS,
        load: Load::LargeSegments,
        entrants: TRAMA_ONLY,
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
        "latency at 10 % load, 64 B: p99 of the median 10 ms window",
        10,
        LATENCY_PEERS,
    ),
    latency(
        "vhost-latency-50",
        "latency at 50 % load, 64 B: p99 of the median 10 ms window",
        50,
        LATENCY_PEERS,
    ),
    latency(
        "vhost-latency-90",
        "latency at 90 % load, 64 B: p99 of the median 10 ms window",
        90,
        LATENCY_PEERS_90,
    ),
];
