//! NAT and DHCP.

use super::{Better, Entrant, PLAIN, Scenario, Unit, against, beside, hosts};
use crate::load::{Load, PIECE};
use crate::peers::{DNSMASQ, PASTA, Port, SLIRP4NETNS, TRAMA_DHCP, TRAMA_NAT, Twist};

const EACH_SECOND: Unit = higher("a second");
const PERCENT: Unit = higher("%");

const TRAMA: Entrant = Entrant { label: "trama", ..beside(&TRAMA_NAT) };
/// With the gateway on the load core: trama's two processes have a core each, unlike any peer.
const APART: Entrant =
    Entrant { label: "trama-apart", twist: Twist { apart: true, ..PLAIN }, ..TRAMA };
/// pasta at its best: with a large window it drops what its socket has no room for, and almost
/// stalls.
const fn small_window(target: f64) -> Entrant {
    let twist = Twist { small_window: true, ..PLAIN };
    Entrant { label: "pasta-small-window", twist, ..against(&PASTA, target) }
}

/// For figures that should beat every peer's best.
const RIVALS: &[Entrant] = &[TRAMA, APART, against(&PASTA, 1.5), against(&SLIRP4NETNS, 1.5)];
/// The same for uploads.
const RIVALS_UP: &[Entrant] =
    &[TRAMA, APART, against(&PASTA, 1.5), small_window(1.5), against(&SLIRP4NETNS, 1.5)];
/// For figures that should be no worse than pasta's.
const PEERS: &[Entrant] = &[TRAMA, against(&PASTA, 1.0), beside(&SLIRP4NETNS)];
/// Arrivals of hundreds of thousands of datagrams vary by some tenths of a percent between rounds.
const PACED: &[Entrant] = &[TRAMA, against(&PASTA, 0.99), beside(&SLIRP4NETNS)];
const PEERS_UP: &[Entrant] =
    &[TRAMA, against(&PASTA, 1.0), small_window(1.0), beside(&SLIRP4NETNS)];
/// trama compared with itself.
const IDLE: &[Entrant] = &[
    Entrant {
        label: "trama-10k-idle",
        twist: Twist { idle_flows: 10_000, ..PLAIN },
        ..beside(&TRAMA_NAT)
    },
    Entrant { label: "trama", ..against(&TRAMA_NAT, 0.95) },
];
const DISTANT: &[Entrant] = &[TRAMA, beside(&PASTA), against(&SLIRP4NETNS, 5.0)];
const LEASING: &[Entrant] =
    &[Entrant { label: "trama", ..beside(&TRAMA_DHCP) }, against(&DNSMASQ, 1.0)];

const ONE_UP: Load = Load::NatStreams { streams: 1, write: PIECE, down: false };
const ONE_DOWN: Load = Load::NatStreams { streams: 1, write: PIECE, down: true };

const fn higher(name: &'static str) -> Unit {
    Unit { name, scale: 1.0, better: Better::Higher, frames: false }
}

/// A host behind a NAT, and a server.
const fn nat(name: &'static str, title: &'static str, load: Load) -> Scenario {
    Scenario { ports: &[Port::Host, Port::Beyond], entrants: PEERS, ..hosts(name, title, 2, load) }
}

/// One TCP stream.
const fn stream(
    name: &'static str,
    title: &'static str,
    load: Load,
    entrants: &'static [Entrant],
) -> Scenario {
    Scenario { entrants, against_best: true, ..nat(name, title, load) }
}

/// One TCP stream of a host that is far from its NAT.
const fn distant(name: &'static str, title: &'static str, load: Load) -> Scenario {
    Scenario { ports: &[Port::Afar, Port::Beyond], ..stream(name, title, load, DISTANT) }
}

/// One TCP stream of a host whose server is far from the NAT; the host's own TCP handles the delay.
const fn to_afar(name: &'static str, title: &'static str, load: Load) -> Scenario {
    Scenario { ports: &[Port::Host, Port::Afar], ..nat(name, title, load) }
}

/// DHCP clients of one port.
const fn dhcp(name: &'static str, title: &'static str, renew: bool) -> Scenario {
    Scenario {
        unit: EACH_SECOND,
        entrants: LEASING,
        ceiling: None,
        ..hosts(name, title, 1, Load::Dhcp { renew })
    }
}

/// In the order of the report.
pub const ALL: &[Scenario] = &[
    stream("nat-tcp-up", "host behind NAT -> server, one TCP stream", ONE_UP, RIVALS_UP),
    stream("nat-tcp-down", "server -> host behind NAT, one TCP stream", ONE_DOWN, RIVALS),
    distant("nat-tcp-rtt10-up", "host 10 ms from its NAT -> server, one TCP stream", ONE_UP),
    distant("nat-tcp-rtt10-down", "server -> host 10 ms from its NAT, one TCP stream", ONE_DOWN),
    to_afar("nat-tcp-far-up", "host behind NAT -> server 10 ms away, one TCP stream", ONE_UP),
    to_afar("nat-tcp-far-down", "server 10 ms away -> host behind NAT, one TCP stream", ONE_DOWN),
    Scenario {
        entrants: PEERS_UP,
        ..nat(
            "nat-streams-up",
            "host behind NAT -> server, 16 TCP streams",
            Load::NatStreams { streams: 16, write: PIECE, down: false },
        )
    },
    nat(
        "nat-streams-down",
        "server -> host behind NAT, 16 TCP streams",
        Load::NatStreams { streams: 16, write: PIECE, down: true },
    ),
    // Without a NAT the sender does the receiver's work in the kernel, so this is not a ceiling.
    Scenario {
        entrants: PEERS_UP,
        ceiling: None,
        ..nat(
            "nat-writes-up",
            "host behind NAT -> server, writes of 64 B, one TCP stream",
            Load::NatStreams { streams: 1, write: 64, down: false },
        )
    },
    Scenario {
        ceiling: None,
        ..nat(
            "nat-writes-down",
            "server -> host behind NAT, writes of 64 B, one TCP stream",
            Load::NatStreams { streams: 1, write: 64, down: true },
        )
    },
    Scenario {
        entrants: IDLE,
        ..nat("nat-idle-up", "host behind NAT -> server, 10,000 idle flows beside none", ONE_UP)
    },
    Scenario {
        entrants: IDLE,
        ..nat("nat-idle-down", "server -> host behind NAT, 10,000 idle flows beside none", ONE_DOWN)
    },
    Scenario {
        unit: EACH_SECOND,
        ..nat("nat-connect", "connect, 64 B there and back, close: 1000 at once", Load::NatConnects)
    },
    Scenario {
        unit: EACH_SECOND,
        ..nat("nat-request", "1 B there and back on one connection", Load::NatRequests)
    },
    // The same holds for datagrams.
    Scenario {
        ceiling: None,
        ..nat(
            "nat-udp-1400",
            "host behind NAT -> server, datagrams of 1400 B received",
            Load::NatDatagrams { bytes: 1400, each_second: None },
        )
    },
    Scenario {
        unit: PERCENT,
        entrants: PACED,
        ceiling: None,
        ..nat(
            "nat-udp-paced",
            "host behind NAT -> server, datagrams of 1400 B, 100,000 a second: what arrives",
            Load::NatDatagrams { bytes: 1400, each_second: Some(100_000) },
        )
    },
    dhcp("dhcp-fresh", "leases for new clients, none failed", false),
    dhcp("dhcp-renew", "renewals beside as many exchanges with known clients, none failed", true),
];
