//! Configuration values as the data plane's own types.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use trama_frame::{MacAddr, VlanId};
use trama_nat::{Forward, LoopbackMap, NatConfig, Service};
use trama_switch as switch;
use trama_vhost_net_backend as vhost;

use crate::config::dhcp;
use crate::config::model::{
    Interface, Network, Port, Promiscuous, Role, Spin, Tap, Vlan, VlanMode,
};
use crate::config::nat;
use crate::config::rule::Rule;
use crate::config::socket::SocketAccess;

pub fn spin(spin: Spin) -> switch::Spin {
    match spin {
        Spin::Always => switch::Spin::Always,
        Spin::For(Duration::ZERO) => switch::Spin::Never,
        Spin::For(time) => switch::Spin::For(time),
    }
}

pub fn role(role: Role) -> vhost::Role {
    match role {
        Role::Server => vhost::Role::Server,
        Role::Client => vhost::Role::Client,
    }
}

/// What the VMM of a port's guest may read.
pub fn device(port: &Port, mtu: u16) -> vhost::DeviceSettings {
    vhost::DeviceSettings { mtu, mac: port.mac }
}

/// Which users may connect to a socket.
///
/// # Errors
/// The host has no such user or group.
pub fn access(socket: &SocketAccess) -> Result<vhost::Access, String> {
    let SocketAccess { owner, group, mode } = socket;
    Ok(vhost::Access {
        owner: owner.as_deref().map(vhost::access::user_id).transpose()?,
        group: group.as_deref().map(vhost::access::group_id).transpose()?,
        mode: mode.map(|mode| mode.0),
    })
}

pub fn network(network: &Network) -> switch::NetworkSettings {
    switch::NetworkSettings {
        name: network.name.clone(),
        mtu: network.mtu,
        mac_table_size: network.mac_table_size,
        mac_aging: network.mac_aging,
    }
}

/// A mark for a port: never 0, not one that is taken, and after a restart the same, as what was
/// charged to the port is stored with it. 0 only if all are taken.
pub fn mark(port: &str, is_taken: impl Fn(u16) -> bool) -> u16 {
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, port.as_bytes());
    let [high, low, ..] = *digest.as_bytes();
    let first = u16::from_be_bytes([high, low]);
    let tries = (0..=u16::MAX).map(|step| first.wrapping_add(step));
    tries.into_iter().find(|mark| *mark != 0 && !is_taken(*mark)).unwrap_or(0)
}

pub fn port(port: &Port, network: Option<switch::NetworkId>, mark: u16) -> switch::PortSettings {
    switch::PortSettings {
        name: port.name.clone(),
        network,
        vlan: vlan(&port.vlan),
        cable: port.cable,
        filter: switch::PortFilter {
            promiscuous: match port.promiscuous {
                Promiscuous::Deny => switch::Promiscuous::Deny,
                Promiscuous::AllowVms => switch::Promiscuous::AllowVms,
                Promiscuous::AllowAll => switch::Promiscuous::AllowAll,
            },
            station: station(port),
            is_outside: port.own,
            refuses_forged: !port.spoof,
        },
        mark,
        is_told_marks: false,
    }
}

/// Who is behind a port: a guest is one machine; a TAP may lead to a bridge, unless its address is
/// stated, and so may an uplink.
fn station(port: &Port) -> switch::Station {
    match (port.mac, &port.interface) {
        (Some(mac), _) => switch::Station::Known(mac),
        (None, Interface::VhostUser(_)) => switch::Station::Learned,
        (None, Interface::Tap(_) | Interface::Uplink(_)) => switch::Station::Many,
    }
}

/// A hardware address for a TAP device that is the same after every restart, so that the
/// neighbours' ARP caches stay right: made of the machine's identity and the device's names.
/// `machine` is any text that other machines do not have.
pub fn tap_mac(machine: &str, tap: &Tap) -> MacAddr {
    let netns = tap.netns.as_deref().unwrap_or_default();
    stable_mac(&format!("{machine}/{netns}/{}", tap.ifname))
}

/// As [`tap_mac`], for the gateway of a network. No TAP device has such a name.
pub fn gateway_mac(machine: &str, network: &str) -> MacAddr {
    stable_mac(&format!("{machine}//gateway/{network}"))
}

fn stable_mac(names: &str) -> MacAddr {
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, names.as_bytes());
    let [first, b, c, d, e, f, ..] = *digest.as_bytes();
    // Locally administered, unicast (IEEE 802, section 8.2).
    MacAddr([first & 0xfc | 0x02, b, c, d, e, f])
}

/// What a network's gateway is to be; `None` if it has none. `state` is the daemon's folder.
pub fn gateway(network: &Network, state: &Path) -> Option<trama_nat::Config> {
    let machine = machine_id();
    let mac = gateway_mac(&machine, &network.name).0;
    // In front of the name, so that no name leads elsewhere.
    let folder = state.join(format!("leases-{}", network.name));
    let name = format!("{machine}//leases/{}", network.name);
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
    gateway_at(network, mac, &folder, digest.as_u64_pair().0)
}

/// As [`gateway`], with what depends on the machine.
pub fn gateway_at(
    network: &Network,
    mac: [u8; 6],
    leases: &Path,
    seed: u64,
) -> Option<trama_nat::Config> {
    if !network.has_gateway() {
        return None;
    }
    let hosts = network.hosts.iter().map(|(name, address)| (name.clone(), *address)).collect();
    let (mtu, tftp) = (network.mtu, network.tftp.clone());
    let nat = network.has_nat().then(|| nat(network));
    let (ipv4, ipv6, dhcp, service_addresses) = (None, None, None, Vec::new());
    let mut config =
        trama_nat::Config { mac, mtu, ipv4, ipv6, service_addresses, hosts, tftp, dhcp, nat };
    for subnet in &network.subnets() {
        let (prefix, places) = (subnet.1, network.places(subnet));
        match places.gateway {
            IpAddr::V4(address) => config.ipv4 = Some(trama_nat::Subnet4 { address, prefix }),
            IpAddr::V6(address) => config.ipv6 = Some(trama_nat::Subnet6 { address, prefix }),
        }
        let services = [(places.dns, Service::Dns), (places.tftp, Service::Tftp)];
        let service_addresses =
            services.into_iter().filter(|(address, _)| *address != places.gateway);
        config.service_addresses.extend(service_addresses);
    }
    config.dhcp =
        network.dhcp().map(|settings| dhcp::for_gateway(network, &settings, leases, seed));
    Some(config)
}

/// The way out of a network, and the ways in.
fn nat(network: &Network) -> NatConfig {
    let forward = |rule: &Rule| {
        let guest = nat::forward_guest(rule, network)?;
        Some(Forward {
            name: rule.label(),
            transport: rule.transport,
            host: rule.host,
            host_port: rule.host_port,
            guest: (guest, rule.guest_port).into(),
            count: rule.count,
            hides_client: rule.as_gateway,
        })
    };
    let map = |rule: &Rule| {
        let guest = nat::loopback_guest(rule, network)?;
        let same_kind = match guest {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        Some(LoopbackMap {
            transport: rule.transport,
            guest: (guest, rule.guest_port).into(),
            host: (rule.host.unwrap_or(same_kind), rule.host_port).into(),
        })
    };
    NatConfig {
        forwards: network.forward.iter().filter_map(forward).collect(),
        loopback: network.loopback.iter().filter_map(map).collect(),
        reflect: network.reflect.clone(),
    }
}

/// The machine's identity as far as it has one.
pub fn machine_id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok().filter(|id| !id.trim().is_empty()))
        .unwrap_or_default()
}

pub fn vlan(vlan: &Vlan) -> switch::VlanMode {
    // Validation lets no other value through; "none" is where Open vSwitch puts them, too.
    let id = |vlan: u16| VlanId::new(vlan).unwrap_or(VlanId::NONE);
    let tag = id(vlan.tag.unwrap_or(0));
    let trunks = || match vlan.trunks.as_slice() {
        [] => switch::VlanSet::all(),
        some => some.iter().map(|vlan| id(*vlan)).collect(),
    };
    match vlan.mode_or_default() {
        VlanMode::Access => switch::VlanMode::Access { tag },
        VlanMode::Trunk => switch::VlanMode::Trunk { trunks: trunks() },
        VlanMode::NativeTagged => switch::VlanMode::NativeTagged { tag, trunks: trunks() },
        VlanMode::NativeUntagged => switch::VlanMode::NativeUntagged { tag, trunks: trunks() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
