//! `create`: a network of podman stands for one of trama, which is made if it is absent.

use ipnet::IpNet;
use trama_client::{Daemon, Failed};

use super::types::{Network, Subnet};
use crate::names;
use crate::networks::{self, NETWORK, New, VLAN};

/// Who chooses addresses: podman.
const HOST_LOCAL: &str = "host-local";
/// The key of `ipam_options`.
pub(super) const DRIVER: &str = "driver";

/// The name of the network at the daemon: an option, else podman's name.
pub(super) fn name(network: &Network) -> String {
    let option = network.options.as_ref().and_then(|options| options.get(NETWORK));
    option.unwrap_or(&network.name).clone()
}

/// The VLAN, if one is stated.
pub(super) fn vlan(network: &Network) -> Result<Option<u16>, String> {
    let option = network.options.as_ref().and_then(|options| options.get(VLAN));
    option.map(|text| networks::vlan(text)).transpose()
}

/// Carries it out; returns what podman stores.
pub(super) fn create(daemon: &Daemon, mut network: Network) -> Result<Network, Failed> {
    check_options(&network)?;
    vlan(&network)?;
    let name = name(&network);
    let stated = network.subnets.clone().unwrap_or_default();
    let stated_subnets: Vec<IpNet> = stated.iter().map(|it| it.subnet).collect();
    let found = networks::find(daemon, &name)?;
    let is_new = found.is_none();
    let known = found.map_or(stated_subnets, |found| found.subnets);
    let mut subnets = stated;
    if subnets.is_empty() {
        subnets = known.iter().copied().map(Subnet::of).collect();
    }
    for one in &mut subnets {
        networks::check_subnet(one.subnet, one.gateway, &name, &known)?;
        one.gateway = Some(networks::first_host(one.subnet));
    }
    if is_new {
        let new = New {
            name: &name,
            is_internal: network.internal,
            subnets: &known,
            noted: vec![names::external_id("podman", &network.name)],
        };
        networks::make(daemon, new)?;
    }
    network.ipv6_enabled = subnets.iter().any(|it| it.subnet.addr().is_ipv6());
    if !subnets.is_empty() {
        let ipam = network.ipam_options.get_or_insert_default();
        ipam.entry(DRIVER.to_owned()).or_insert_with(|| HOST_LOCAL.to_owned());
        network.subnets = Some(subnets);
    }
    // The network's own DNS knows the containers; podman starts no other one.
    network.dns_enabled = false;
    Ok(network)
}

fn check_options(network: &Network) -> Result<(), String> {
    networks::check_options(network.options.iter().flatten().map(|(key, _)| key.as_str()))?;
    let ipam = network.ipam_options.as_ref().and_then(|options| options.get(DRIVER));
    match ipam.map(String::as_str) {
        None | Some(HOST_LOCAL | "dhcp" | "none") => Ok(()),
        Some(other) => {
            Err(format!("--ipam-driver {other} is not known; use host-local, dhcp or none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(more: &str) -> Network {
        serde_json::from_str(&format!("{{\"name\":\"web\"{more}}}")).unwrap()
    }

    #[test]
    fn options_are_known_or_refused() {
        let options = |text: &str| network(&format!(",\"options\":{text}"));
        let stated = options(r#"{"network":"lab","vlan":"10"}"#);
        assert_eq!((name(&stated), vlan(&stated)), ("lab".to_owned(), Ok(Some(10))));
        assert_eq!(check_options(&stated), Ok(()));
        assert_eq!((name(&network("")), vlan(&network(""))), ("web".to_owned(), Ok(None)));
        assert!(check_options(&options(r#"{"mtu":"9000"}"#)).unwrap_err().contains("mtu"));
        let ipam = network(",\"ipam_options\":{\"driver\":\"x\"}");
        assert!(check_options(&ipam).unwrap_err().contains("--ipam-driver x"));
    }
}
