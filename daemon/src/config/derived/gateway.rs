//! The settings that a network's gateway process is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{Ipv4Net, Ipv6Net};
use trama_dhcp::name::DomainName;
use trama_gateway::{Forward, LoopbackMap, Rules, Service, Station};

use super::forward::{forward_guest, loopback_guest};
use crate::config::model::Network;
use crate::config::model::rule::Rule;

/// The settings of a network's gateway; `None` if the network has no gateway.
///
/// `mac` is the gateway's hardware address, `leases` the folder of its DHCP leases and `seed` that
/// of its DHCP server: they depend on the machine, and not on the configuration.
pub fn gateway(
    network: &Network,
    mac: [u8; 6],
    leases: &Path,
    seed: u64,
) -> Option<trama_gateway::Config> {
    if !network.has_gateway() {
        return None;
    }
    let (mtu, tftp) = (network.mtu, network.tftp.clone());
    let nat = network.has_nat().then(|| nat(network));
    let (ipv4, ipv6, service_addresses) = (None, None, Vec::new());
    let mut station = Station { mac, mtu, ipv4, ipv6, service_addresses };
    for subnet in network.subnets() {
        let (prefix, known) = (subnet.prefix_len(), network.well_known(subnet));
        match known.gateway {
            IpAddr::V4(address) => station.ipv4 = Ipv4Net::new(address, prefix).ok(),
            IpAddr::V6(address) => station.ipv6 = Ipv6Net::new(address, prefix).ok(),
        }
        let services = [(known.dns, Service::Dns), (known.tftp, Service::Tftp)];
        let service_addresses =
            services.into_iter().filter(|(address, _)| *address != known.gateway);
        station.service_addresses.extend(service_addresses);
    }
    let folder = leases.to_owned();
    let dhcp = network.dhcp().map(|mut service| {
        service.clients.taken = network.guests.iter().flat_map(|it| it.addresses.clone()).collect();
        trama_gateway::Dhcp { folder, seed, service }
    });
    let hosts = hosts(network, dhcp.as_ref().and_then(trama_gateway::Dhcp::domain));
    let tells_events = network.tells_events;
    let tells_answers = tells_events && network.log_dns;
    Some(trama_gateway::Config { station, hosts, tftp, dhcp, nat, tells_events, tells_answers })
}

/// The names that DNS answers: those of the network's own table, and those of its guests, also with
/// the domain of the network's names. An address's first name is its reverse name.
fn hosts(network: &Network, domain: Option<&DomainName>) -> Vec<(String, IpAddr)> {
    let own = network.hosts.iter().map(|(name, address)| (name.clone(), *address));
    let of_guests = network.guests.iter().flat_map(|guest| {
        let names = guest.names.iter().flat_map(|name| {
            let domain = domain.filter(|_| !name.contains('.'));
            let whole = domain.map(|domain| format!("{name}.{}", domain.as_str()));
            whole.into_iter().chain([name.clone()])
        });
        names.flat_map(|name| guest.addresses.iter().map(move |it| (name.clone(), *it)))
    });
    own.chain(of_guests).collect()
}

/// The settings of the NAT: forwards, loopback maps, discovery protocols.
fn nat(network: &Network) -> Rules {
    let forward = |rule: &Rule| {
        let guest = forward_guest(rule, network)?;
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
        let guest = loopback_guest(rule, network)?;
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
    Rules {
        forwards: network.forward.iter().filter_map(forward).collect(),
        loopback: network.loopback.iter().filter_map(map).collect(),
        reflect: network.reflect.clone(),
    }
}
