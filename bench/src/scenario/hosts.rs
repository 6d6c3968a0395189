//! Hosts on TAPs, and virtual machines.

use super::{Entrant, MICROSECONDS, MPPS, PLAIN, Scenario, entrant, hosts, with_target};
use crate::load::Load;
use crate::peers::{LINUX_BRIDGE, OVS_USERSPACE, OVS_USERSPACE_TSO, Port, TRAMA, VDE, Variant};

/// In the order of the report.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        entrants: &[
            entrant(&TRAMA),
            with_target(&OVS_USERSPACE_TSO, 1.2),
            with_target(&LINUX_BRIDGE, 0.8),
            entrant(&VDE),
        ],
        ..hosts("tap-tcp", "TAP <-> TAP, one TCP stream, segments to 64 KiB", 2, Load::TcpFanOut)
    },
    Scenario {
        mtu: 9000,
        entrants: &[entrant(&TRAMA), entrant(&OVS_USERSPACE_TSO), entrant(&LINUX_BRIDGE)],
        ..hosts("tap-tcp-9000", "TAP <-> TAP, one TCP stream, MTU 9000", 2, Load::TcpFanOut)
    },
    Scenario {
        entrants: &[entrant(&TRAMA), entrant(&OVS_USERSPACE_TSO), entrant(&LINUX_BRIDGE)],
        ..hosts("tap-fan-in", "two TAPs -> one TAP, one TCP stream each", 3, Load::TcpFanIn)
    },
    Scenario {
        entrants: &[entrant(&TRAMA), entrant(&OVS_USERSPACE_TSO), entrant(&LINUX_BRIDGE)],
        ..hosts("tap-fan-out", "one TAP -> four TAPs, one TCP stream each", 5, Load::TcpFanOut)
    },
    Scenario {
        unit: MPPS,
        entrants: &[
            Entrant { variant: Variant { floods: true, ..PLAIN }, ..entrant(&TRAMA) },
            entrant(&OVS_USERSPACE),
            entrant(&VDE),
            entrant(&LINUX_BRIDGE),
        ],
        ceiling: None,
        ..hosts(
            "tap-flood8",
            "broadcast from one TAP to eight, frames delivered",
            9,
            Load::Broadcast,
        )
    },
    Scenario {
        unit: MICROSECONDS,
        entrants: &[
            entrant(&TRAMA),
            with_target(&OVS_USERSPACE, 0.6),
            entrant(&VDE),
            entrant(&LINUX_BRIDGE),
        ],
        ..hosts("tap-ping", "TAP <-> TAP, flood ping round trip, average", 2, Load::Ping)
    },
    Scenario {
        ports: &[Port::Vhost, Port::Host],
        entrants: &[
            entrant(&TRAMA),
            Entrant { label: "e1000", ports: Some(&[Port::Tap, Port::Host]), ..entrant(&TRAMA) },
        ],
        ceiling: None,
        ..hosts(
            "guest-tap-tcp",
            "virtual machine (TCG) -> TAP, one TCP stream: virtio vs e1000",
            2,
            Load::GuestTcp,
        )
    },
    Scenario {
        ports: &[Port::Vhost, Port::BehindUplink],
        entrants: &[
            entrant(&TRAMA),
            Entrant { ports: Some(&[Port::VmTap, Port::BehindUplink]), ..entrant(&LINUX_BRIDGE) },
        ],
        ceiling: None,
        ..hosts(
            "guest-bridged-tcp",
            "virtual machine (TCG) -> uplink, one TCP stream: mode bridged vs a TAP on the kernel's bridge",
            2,
            Load::GuestTcp,
        )
    },
];
