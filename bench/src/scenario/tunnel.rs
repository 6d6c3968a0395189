//! Tunnels between two hosts.

use super::{Scenario, entrant, hosts, with_target};
use crate::load::Load;
use crate::peers::{KERNEL_TUNNEL, OVS_TUNNEL, TRAMA_TUNNEL};

/// In the order of the report.
pub(super) const ALL: &[Scenario] = &[Scenario {
    mtu: 1450,
    entrants: &[
        entrant(&TRAMA_TUNNEL),
        with_target(&KERNEL_TUNNEL, 0.7),
        with_target(&OVS_TUNNEL, 3.0),
    ],
    ..hosts("vxlan-tcp", "TAP <-> VXLAN over veth <-> TAP, one TCP stream", 2, Load::TcpFanOut)
}];
