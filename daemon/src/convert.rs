//! Converts configuration values to the data plane's types.

use std::path::Path;

use trama_capture::filter::{self, Filter};
use trama_frame::{MacAddr, VlanId};
use trama_helper::Rights;
use trama_switch as switch;
use trama_switch::watch;
use trama_vhost_net_backend as vhost;

use crate::config::derived;
use crate::config::model::socket::SocketAccess;
use crate::config::model::{Attached, AttachedKind, Interface, Network, Port, Tap, Vlan};

/// Returns the device settings that a port's VMM may read.
pub(crate) fn device(port: &Port, mtu: u16) -> vhost::DeviceSettings {
    vhost::DeviceSettings { mtu, mac: port.mac }
}

/// Returns which users may connect to a socket.
///
/// # Errors
/// The host has no such user or group.
pub(crate) fn access(rights: &Rights, socket: &SocketAccess) -> Result<vhost::Access, String> {
    let (owner, group) = rights.ids(socket.owner.as_deref(), socket.group.as_deref())?;
    Ok(vhost::Access { owner, group, mode: socket.mode.map(|mode| mode.0) })
}

pub(crate) fn network(network: &Network) -> switch::NetworkSettings {
    switch::NetworkSettings {
        name: network.name.clone(),
        mtu: network.mtu,
        mac_table_size: network.mac_table_size,
        mac_aging: network.mac_aging,
    }
}

/// Chooses a mark for a port: not 0, not a taken one, and the same after a restart, as leases are
/// stored with the mark. Returns 0 only if all are taken.
pub(crate) fn mark(port: &str, is_taken: impl Fn(u16) -> bool) -> u16 {
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, port.as_bytes());
    let [high, low, ..] = *digest.as_bytes();
    let first = u16::from_be_bytes([high, low]);
    let tries = (0..=u16::MAX).map(|step| first.wrapping_add(step));
    tries.into_iter().find(|mark| *mark != 0 && !is_taken(*mark)).unwrap_or(0)
}

/// Returns the switch's settings of a port. `own_address` is the address of its device, if the
/// network made the port.
pub(crate) fn port(
    port: &Port,
    network: Option<switch::NetworkId>,
    mark: u16,
    own_address: Option<MacAddr>,
) -> switch::PortSettings {
    switch::PortSettings {
        name: port.name.clone(),
        network,
        vlan: vlan(&port.vlan),
        cable: port.cable,
        filter: switch::PortFilter {
            promiscuous: port.promiscuous,
            station: station(port),
            is_outside: port.of_network,
            spoof: port.spoof,
            own_address,
            storm: port.storm,
        },
        mark,
        hdr_len: switch::HdrLen::Headers,
    }
}

/// Returns what is expected behind a port: the station with the stated `mac`, one guest, or, behind
/// a TAP, an interface or a tunnel, possibly a bridge.
fn station(port: &Port) -> switch::Station {
    match (port.mac, &port.interface) {
        (Some(mac), _) => switch::Station::Known(mac),
        (None, Interface::VhostUser(_) | Interface::Stream(_)) => switch::Station::Learned,
        (None, Interface::Attached(Attached { kind, .. })) => match kind {
            AttachedKind::VhostUser | AttachedKind::Stream => switch::Station::Learned,
            AttachedKind::Tap | AttachedKind::Dgram => switch::Station::Many,
        },
        (None, _) => switch::Station::Many,
    }
}

/// Derives a hardware address for a TAP device from the host's identity and the device's names. It
/// is the same after every restart, so the neighbours' ARP caches stay valid. `machine` is any text
/// that is unique to the host.
pub(crate) fn tap_mac(machine: &str, tap: &Tap) -> MacAddr {
    let netns = tap.netns.as_deref().unwrap_or_default();
    stable_mac(&format!("{machine}/{netns}/{}", tap.ifname))
}

/// Derives the hardware address of a network's gateway, as [`tap_mac`] does. No TAP device has such
/// a name.
pub(crate) fn gateway_mac(machine: &str, network: &str) -> MacAddr {
    stable_mac(&format!("{machine}//gateway/{network}"))
}

fn stable_mac(names: &str) -> MacAddr {
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, names.as_bytes());
    let [first, b, c, d, e, f, ..] = *digest.as_bytes();
    // Locally administered, unicast (IEEE 802, section 8.2).
    MacAddr([first & 0xfc | 0x02, b, c, d, e, f])
}

/// Returns the settings of a network's gateway; `None` if it has none. `state` is the daemon's
/// folder.
pub(crate) fn gateway(network: &Network, state: &Path) -> Option<trama_gateway::Config> {
    let machine = machine_id();
    let mac = gateway_mac(&machine, &network.name).0;
    // A prefix, so that no name leads to another folder.
    let folder = state.join(format!("leases-{}", network.name));
    let name = format!("{machine}//leases/{}", network.name);
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
    derived::gateway::gateway(network, mac, &folder, digest.as_u64_pair().0)
}

/// Returns the host's identity; empty if it has none.
pub(crate) fn machine_id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok().filter(|id| !id.trim().is_empty()))
        .unwrap_or_default()
}

pub(crate) fn vlan(vlan: &Vlan) -> switch::VlanMode {
    // Validation refuses other values. Open vSwitch too treats them as no VLAN.
    let id = |vlan: u16| VlanId::new(vlan).unwrap_or(VlanId::NONE);
    let tag = id(vlan.tag.unwrap_or(0));
    let trunks = vlan.trunks.iter().map(|vlan| id(*vlan)).collect();
    vlan.mode_or_default().with(tag, trunks)
}

/// Returns a filter as a watch or a mirror asks it.
pub(crate) fn frame_filter(filter: Filter) -> watch::Filter {
    Box::new(move |seen| {
        let drop = seen.drop.map(|reason| reason as usize);
        filter.matches(&filter::Glimpse { head: seen.head, len: seen.len, drop })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Mode;

    #[test]
    fn a_ports_mark_is_stable_and_its_own() {
        let mark_of = |name: &str| mark(name, |_| false);
        assert_eq!(mark_of("vm1"), mark_of("vm1"));
        assert_ne!(mark_of("vm1"), mark_of("vm2"));
        let first = mark_of("vm1");
        assert_eq!(mark("vm1", |taken| taken == first), first.wrapping_add(1));
        assert_eq!(mark("vm1", |taken| taken != u16::MAX), u16::MAX);
        assert_eq!(mark("vm1", |taken| taken != 0), 0);
    }

    #[test]
    fn each_gateway_has_a_folder_of_leases() {
        let network = Network { mode: Mode::HostOnly, ..Network::new("lab") };
        let dhcp = gateway(&network, Path::new("/state")).unwrap().dhcp.unwrap();
        assert_eq!(dhcp.folder, Path::new("/state/leases-lab"));
    }

    #[test]
    fn a_taps_address_is_stable_and_its_own() {
        let tap = |ifname: &str, netns: Option<&str>| Tap {
            ifname: ifname.into(),
            netns: netns.map(str::to_owned),
            address: Vec::new(),
        };
        let mac = tap_mac("here", &tap("host1", None));
        assert_eq!(mac, tap_mac("here", &tap("host1", None)));
        assert_ne!(mac, tap_mac("there", &tap("host1", None)));
        assert_ne!(mac, tap_mac("here", &tap("host2", None)));
        assert_ne!(mac, tap_mac("here", &tap("host1", Some("h1"))));
        assert_eq!(mac.0[0] & 3, 2, "locally administered, unicast");
    }
}
