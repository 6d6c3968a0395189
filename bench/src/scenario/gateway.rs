//! NAT and DHCP.

use super::{Better, Entrant, PLAIN, Scenario, Unit, entrant, hosts, with_target};
use crate::load::{Exchanges, Load, Sender, WRITE_SIZE};
use crate::peers::{DNSMASQ, PASTA, Port, SLIRP4NETNS, TRAMA_DHCP, TRAMA_NAT, Variant};

const PER_SECOND: Unit = higher("/s");
const PERCENT: Unit = higher("%");

const TRAMA: Entrant = Entrant { label: "trama", ..entrant(&TRAMA_NAT) };
/// With the gateway on the load core: trama's two processes have a core each, unlike any peer.
const TWO_CORES: Entrant = Entrant {
    label: "trama-two-cores",
    variant: Variant { separate_cores: true, ..PLAIN },
    ..TRAMA
};
/// pasta at its best: with a large window it drops what its socket has no room for, and almost
/// stalls.
const fn small_window(target: f64) -> Entrant {
    let variant = Variant { small_window: true, ..PLAIN };
    Entrant { label: "pasta-small-window", variant, ..with_target(&PASTA, target) }
}

/// For figures that should beat every peer's best.
const RIVALS: &[Entrant] =
    &[TRAMA, TWO_CORES, with_target(&PASTA, 1.5), with_target(&SLIRP4NETNS, 1.5)];
/// The same for uploads.
const RIVALS_UP: &[Entrant] = &[
    TRAMA,
    TWO_CORES,
    with_target(&PASTA, 1.5),
    small_window(1.5),
    with_target(&SLIRP4NETNS, 1.5),
];
/// For figures that should be no worse than pasta's.
const PEERS: &[Entrant] = &[TRAMA, with_target(&PASTA, 1.0), entrant(&SLIRP4NETNS)];
/// Arrivals of hundreds of thousands of datagrams vary by some tenths of a percent between rounds.
const PACED: &[Entrant] = &[TRAMA, with_target(&PASTA, 0.99), entrant(&SLIRP4NETNS)];
const PEERS_UP: &[Entrant] =
    &[TRAMA, with_target(&PASTA, 1.0), small_window(1.0), entrant(&SLIRP4NETNS)];
/// trama compared with itself.
const IDLE: &[Entrant] = &[
    Entrant {
        label: "trama-10k-idle",
        variant: Variant { idle_flows: 10_000, ..PLAIN },
        ..entrant(&TRAMA_NAT)
    },
    Entrant { label: "trama", ..with_target(&TRAMA_NAT, 0.95) },
];
const DISTANT: &[Entrant] = &[TRAMA, entrant(&PASTA), with_target(&SLIRP4NETNS, 5.0)];
const LEASING: &[Entrant] =
    &[Entrant { label: "trama", ..entrant(&TRAMA_DHCP) }, with_target(&DNSMASQ, 1.0)];

const ONE_UP: Load = Load::NatStreams { streams: 1, write: WRITE_SIZE, sender: Sender::Client };
const ONE_DOWN: Load = Load::NatStreams { streams: 1, write: WRITE_SIZE, sender: Sender::Server };

const fn higher(name: &'static str) -> Unit {
    Unit { name, scale: 1.0, better: Better::Higher, frames: false }
}

/// A host behind a NAT, and a server.
const fn nat(name: &'static str, title: &'static str, load: Load) -> Scenario {
    Scenario {
        ports: &[Port::Host, Port::BehindUplink],
        entrants: PEERS,
        ..hosts(name, title, 2, load)
    }
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
    Scenario { ports: &[Port::Remote, Port::BehindUplink], ..stream(name, title, load, DISTANT) }
}

/// One TCP stream of a host whose server is far from the NAT; the host's own TCP handles the delay.
const fn to_remote(name: &'static str, title: &'static str, load: Load) -> Scenario {
    Scenario { ports: &[Port::Host, Port::Remote], ..nat(name, title, load) }
}

/// DHCP clients of one port.
const fn dhcp(name: &'static str, title: &'static str, exchanges: Exchanges) -> Scenario {
    Scenario {
        unit: PER_SECOND,
        entrants: LEASING,
        ceiling: None,
        ..hosts(name, title, 1, Load::Dhcp { exchanges })
    }
}

/// In the order of the report.
pub(super) const ALL: &[Scenario] = &[
    stream("nat-tcp-up", "host behind NAT -> server, one TCP stream", ONE_UP, RIVALS_UP),
    stream("nat-tcp-down", "server -> host behind NAT, one TCP stream", ONE_DOWN, RIVALS),
    distant("nat-tcp-rtt10-up", "host 10 ms from its NAT -> server, one TCP stream", ONE_UP),
    distant("nat-tcp-rtt10-down", "server -> host 10 ms from its NAT, one TCP stream", ONE_DOWN),
    to_remote("nat-tcp-far-up", "host behind NAT -> server 10 ms away, one TCP stream", ONE_UP),
    to_remote("nat-tcp-far-down", "server 10 ms away -> host behind NAT, one TCP stream", ONE_DOWN),
    Scenario {
        entrants: PEERS_UP,
        ..nat(
            "nat-streams-up",
            "host behind NAT -> server, 16 TCP streams",
            Load::NatStreams { streams: 16, write: WRITE_SIZE, sender: Sender::Client },
        )
    },
    nat(
        "nat-streams-down",
        "server -> host behind NAT, 16 TCP streams",
        Load::NatStreams { streams: 16, write: WRITE_SIZE, sender: Sender::Server },
    ),
    // Without a NAT the sender does the receiver's work in the kernel, so this is not a ceiling.
    Scenario {
        entrants: PEERS_UP,
        ceiling: None,
        ..nat(
            "nat-writes-up",
            "host behind NAT -> server, 64 B writes, one TCP stream",
            Load::NatStreams { streams: 1, write: 64, sender: Sender::Client },
        )
    },
    Scenario {
        ceiling: None,
        ..nat(
            "nat-writes-down",
            "server -> host behind NAT, 64 B writes, one TCP stream",
            Load::NatStreams { streams: 1, write: 64, sender: Sender::Server },
        )
    },
    Scenario {
        entrants: IDLE,
        ..nat("nat-idle-up", "host behind NAT -> server, 10,000 idle flows vs none", ONE_UP)
    },
    Scenario {
        entrants: IDLE,
        ..nat("nat-idle-down", "server -> host behind NAT, 10,000 idle flows vs none", ONE_DOWN)
    },
    Scenario {
        unit: PER_SECOND,
        ..nat("nat-connect", "connect, 64 B echo, close; 1000 concurrent", Load::NatConnects)
    },
    Scenario {
        unit: PER_SECOND,
        ..nat("nat-request", "1 B round trips on one connection", Load::NatRequests)
    },
    // The same holds for datagrams.
    Scenario {
        ceiling: None,
        ..nat(
            "nat-udp-1400",
            "host behind NAT -> server, 1400 B datagrams received",
            Load::NatDatagrams { bytes: 1400, each_second: None },
        )
    },
    Scenario {
        unit: PERCENT,
        entrants: PACED,
        ceiling: None,
        ..nat(
            "nat-udp-paced",
            "host behind NAT -> server, 1400 B datagrams at 100,000/s: share received",
            Load::NatDatagrams { bytes: 1400, each_second: Some(100_000) },
        )
    },
    dhcp("dhcp-fresh", "leases for new clients, without a failure", Exchanges::New),
    dhcp(
        "dhcp-renew",
        "renewals mixed with as many full exchanges by known clients, without a failure",
        Exchanges::Renewals,
    ),
];
