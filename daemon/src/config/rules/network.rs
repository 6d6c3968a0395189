//! Rules for a `[[network]]`: ranges, what its mode needs, and which keys belong to the mode.

use std::time::Duration;

use ipnet::IpNet;
use trama_api::values::is_host_name;

use super::check::Check;
use super::name::{HOST_NAME_REMEDY, IFNAME_REMEDY, ifname_fault, quoted};
use super::subnet as subnet_rules;
use crate::config::derived::subnet;
use crate::config::model::{Mode, Network};

/// An MTU must leave IPv4 its 68 bytes (RFC 791) and a tagged frame its 16-bit length.
const MTU: std::ops::RangeInclusive<u16> = 68..=65521;

/// Sizes of a MAC table.
const MAC_TABLE_SIZE: std::ops::RangeInclusive<usize> = 16..=1 << 20;

/// Ageing times of a MAC table.
const MAC_AGING: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

impl Check {
    /// Ranges of numbers.
    pub(super) fn network(&mut self, network: &Network) {
        if !MTU.contains(&network.mtu) {
            let message = format!("{} is out of range", network.mtu);
            self.problem("mtu", message, format!("use {} to {} bytes", MTU.start(), MTU.end()));
        }
        if !MAC_TABLE_SIZE.contains(&network.mac_table_size) {
            let (least, most) = (MAC_TABLE_SIZE.start(), MAC_TABLE_SIZE.end());
            let message = format!("{} is out of range", network.mac_table_size);
            self.problem("mac-table-size", message, format!("use {least} to {most} entries"));
        }
        if !MAC_AGING.contains(&network.mac_aging) {
            self.problem("mac-aging", "is out of range", r#"use "1s" to "24h""#);
        }
    }

    /// Keys that depend on the network's mode; `earlier` are the networks before it.
    pub(super) fn mode(&mut self, network: &Network, earlier: &[Network]) {
        match network.mode {
            Mode::HostOnly => self.host_only(network),
            Mode::Bridged => self.bridged(network, earlier),
            Mode::Internal | Mode::Nat | Mode::NatNetwork => {}
        }
        if network.mode != Mode::Bridged && network.uplink.is_some() {
            let message = "belongs to networks of mode \"bridged\"";
            self.problem("uplink", message, "remove it, or set mode = \"bridged\"");
        }
        self.subnets(network, earlier);
        self.hosts(network);
        self.tftp(network);
        if network.log_dns && !network.has_gateway() {
            let message = "only a network with a gateway has a DNS server";
            self.problem("log-dns", message, gateway_remedy(network, "log-dns"));
        }
    }

    fn host_only(&mut self, network: &Network) {
        if let Some(fault) = ifname_fault(&network.name) {
            let message =
                format!("{:?} {fault}, and the host's interface has the same name", network.name);
            self.problem("name", message, IFNAME_REMEDY);
        }
    }

    fn bridged(&mut self, network: &Network, earlier: &[Network]) {
        if !network.subnet.is_empty() {
            let message = "a bridged network has the addresses of its LAN";
            let remedy = r#"remove it, or set mode = "internal" or "host-only""#;
            self.problem("subnet", message, remedy);
        }
        let Some(uplink) = &network.uplink else {
            let remedy = r#"add uplink = "eth0", an interface as `ip link` shows it"#;
            self.problem("uplink", "is missing", remedy);
            return;
        };
        if let Some(fault) = ifname_fault(uplink) {
            self.problem("uplink", format!("{uplink:?} {fault}"), IFNAME_REMEDY);
        }
        if let Some(other) = earlier.iter().find(|other| other.uplink.as_ref() == Some(uplink)) {
            let message = format!("{uplink:?} is the uplink of network {} already", other.name);
            self.problem("uplink", message, "put the ports of both on one network");
        }
    }

    /// The subnets in force, compared with those of the networks before it.
    fn subnets(&mut self, network: &Network, earlier: &[Network]) {
        if network.mode == Mode::Bridged {
            return;
        }
        let subnets = network.subnets();
        for (index, subnet) in subnets.iter().enumerate() {
            if let Err(fault) = subnet_rules::check(*subnet) {
                self.fault("subnet", fault);
                continue;
            }
            let same_kind = |it: &IpNet| it.addr().is_ipv4() == subnet.addr().is_ipv4();
            if subnets[..index].iter().any(same_kind) {
                let message = format!("{subnet} is a second subnet of its IP version");
                self.problem("subnet", message, "keep one IPv4 and one IPv6 subnet at most");
            }
            if !is_claimed(network, subnet) {
                continue;
            }
            let mut taken = earlier.iter().flat_map(|other| {
                let claimed = other.subnets().into_iter().filter(|it| is_claimed(other, it));
                claimed.map(|subnet| (other.name.as_str(), subnet))
            });
            let twin = taken.find(|(_, other)| subnet::overlap(*other, *subnet));
            if let Some((name, other)) = twin {
                let message = format!("{subnet} overlaps {other} of network {name}");
                self.problem("subnet", message, "give each network a subnet of its own");
            }
        }
    }

    /// The names that the gateway's DNS answers.
    fn hosts(&mut self, network: &Network) {
        if !network.hosts.is_empty() && !network.has_gateway() {
            let message = "only a network with a gateway has a DNS server";
            self.problem("hosts", message, gateway_remedy(network, "hosts"));
        }
        if let Some(name) = network.hosts.keys().find(|name| !is_host_name(name)) {
            self.problem("hosts", format!("{name:?} is not a host's name"), HOST_NAME_REMEDY);
        }
    }

    /// The folder that the gateway serves by TFTP.
    fn tftp(&mut self, network: &Network) {
        let Some(folder) = &network.tftp else { return };
        if !network.has_gateway() {
            let message = "only a network with a gateway has a TFTP server";
            self.problem("tftp", message, gateway_remedy(network, "tftp"));
        }
        if !folder.is_absolute() {
            let message = format!("{} is not an absolute path", quoted(folder));
            self.problem("tftp", message, "start it with /");
        }
    }
}

/// Whether a network's subnet excludes it from other networks. All networks of mode `nat` may have
/// the same; a default IPv6 subnet is not visible elsewhere.
fn is_claimed(network: &Network, subnet: &IpNet) -> bool {
    let is_known = subnet.addr().is_ipv4() || network.subnet.contains(subnet);
    is_known && !matches!(network.mode, Mode::Bridged | Mode::Nat)
}

/// The remedy for a key that needs a gateway.
fn gateway_remedy(network: &Network, key: &str) -> String {
    match network.mode {
        Mode::Internal => format!("add subnet, or remove {key}"),
        Mode::HostOnly => format!("remove dhcp = false, or remove {key}"),
        _ => format!("remove {key}, or set mode = \"internal\" with a subnet"),
    }
}
