//! Hosts on TAPs, and virtual machines.

use super::{Entrant, MICROSECONDS, MPPS, Scenario, against, beside, hosts};
use crate::load::Load;
use crate::peers::{LINUX_BRIDGE, OVS_USERSPACE, OVS_USERSPACE_TSO, Port, TRAMA, VDE};

/// In the order of the report.
pub const ALL: &[Scenario] = &[
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
];
