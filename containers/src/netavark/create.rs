//! `create`: a network of podman stands for one of trama, which is made if it is absent.

use std::net::IpAddr;

use ipnet::IpNet;
use trama_api::transaction::{Request, VERSION};
use trama_api::value::{Atom, Value};
use trama_client::{Daemon, Failed};

use super::types::{Network, Subnet};
use crate::names;
use crate::ports::rows;

/// Options of `podman network create -o`.
pub(super) const NETWORK: &str = "network";
pub(super) const VLAN: &str = "vlan";
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
    let wrong = |text: &String| format!("option vlan={text} is not one of 1 to 4094");
    let parsed = option.map(|text| {
        let vlan = text.parse().ok().filter(|vlan| (1..=4094).contains(vlan));
        vlan.ok_or_else(|| wrong(text))
    });
    parsed.transpose()
}

/// Carries it out; returns what podman stores.
pub(super) fn create(daemon: &Daemon, mut network: Network) -> Result<Network, Failed> {
    check_options(&network)?;
    vlan(&network)?;
    let name = name(&network);
    let stated = network.subnets.clone().unwrap_or_default();
    let stated_subnets: Vec<IpNet> = stated.iter().map(|it| it.subnet).collect();
    let known = match subnets_of(daemon, &name)? {
        Some(known) => known,
        None => {
            make(daemon, &network, &name, &stated_subnets)?;
            stated_subnets
        }
    };
    let mut subnets = stated;
    if subnets.is_empty() {
        subnets = known.iter().copied().map(Subnet::of).collect();
    }
    for one in &mut subnets {
        check_subnet(one, &name, &known)?;
        one.gateway = Some(first_host(one.subnet));
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
    let mut keys = network.options.iter().flatten().map(|(key, _)| key.as_str());
    if let Some(key) = keys.find(|key| ![NETWORK, VLAN].contains(key)) {
        return Err(format!("there is no option {key}; there are {NETWORK} and {VLAN}"));
    }
    let ipam = network.ipam_options.as_ref().and_then(|options| options.get(DRIVER));
    match ipam.map(String::as_str) {
        None | Some(HOST_LOCAL | "dhcp" | "none") => Ok(()),
        Some(other) => {
            Err(format!("--ipam-driver {other} is not known; use host-local, dhcp or none"))
        }
    }
}

fn check_subnet(one: &Subnet, name: &str, known: &[IpNet]) -> Result<(), String> {
    let subnet = one.subnet.trunc();
    if !known.iter().any(|it| it.trunc() == subnet) {
        let known: Vec<String> = known.iter().map(|it| it.trunc().to_string()).collect();
        let known = if known.is_empty() { "no subnet".to_owned() } else { known.join(" and ") };
        return Err(format!(
            "the network {name} of trama has {known}, and not {subnet}; leave --subnet out, or \
             give what it has"
        ));
    }
    match one.gateway.filter(|gateway| *gateway != first_host(subnet)) {
        None => Ok(()),
        Some(gateway) => Err(format!(
            "the gateway of {subnet} is {}, and not {gateway}; leave --gateway out",
            first_host(subnet)
        )),
    }
}

/// The first address, which is the gateway's.
fn first_host(subnet: IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address).saturating_add(1)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address).saturating_add(1)).into()),
    }
}

/// The subnets of a network of the daemon; `None` if there is no such network.
fn subnets_of(daemon: &Daemon, name: &str) -> Result<Option<Vec<IpNet>>, Failed> {
    let answer = daemon.run(["--if-exists", "--columns=subnet", "list", "Bridge", name])?;
    let Some(row) = rows(answer).into_iter().next() else { return Ok(None) };
    let atoms = row.into_iter().flat_map(|value| match value {
        Value::One(atom) => vec![atom],
        Value::Set(atoms) => atoms.into_iter().collect(),
        Value::Map(_) => Vec::new(),
    });
    let subnet = |atom| match atom {
        Atom::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(Some(atoms.filter_map(subnet).collect()))
}

/// Makes the network: with NAT, unless podman's is internal.
fn make(daemon: &Daemon, network: &Network, name: &str, subnets: &[IpNet]) -> Result<(), Failed> {
    if subnets.is_empty() {
        let message = format!("trama has no network {name}; give the subnet to make it with");
        return Err(format!("{message}: --subnet 10.77.0.0/24").into());
    }
    let mode = if network.internal { "internal" } else { "nat-network" };
    let subnets: Vec<String> = subnets.iter().map(|it| it.trunc().to_string()).collect();
    let subnets = names::set("subnet", subnets.iter().map(String::as_str));
    let noted = names::external_id("podman", &network.name);
    let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect();
    let commands = vec![
        words(&["add-br", name]),
        words(&["set", "Bridge", name, &format!("mode={mode}"), &subnets, &noted]),
    ];
    let request = Request { version: VERSION, commands, dry_run: false, no_save: false };
    let not_running = daemon.transact::<Value>(&request)?.not_running;
    match not_running.into_iter().next() {
        None => Ok(()),
        Some(why) => {
            // Podman has no network, so trama has none either.
            daemon.run(["--if-exists", "del-br", name])?;
            Err(why.reason.into())
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
        for vlan_id in ["0", "4095", "x"] {
            let wrong = options(&format!("{{\"vlan\":\"{vlan_id}\"}}"));
            assert!(vlan(&wrong).is_err(), "{vlan_id}");
        }
        assert!(check_options(&options(r#"{"mtu":"9000"}"#)).unwrap_err().contains("mtu"));
        let ipam = network(",\"ipam_options\":{\"driver\":\"x\"}");
        assert!(check_options(&ipam).unwrap_err().contains("--ipam-driver x"));
    }

    #[test]
    fn a_subnet_is_the_networks_and_so_is_its_gateway() {
        let known: Vec<IpNet> = vec!["10.77.0.0/24".parse().unwrap()];
        let check = |subnet: &str, gateway: Option<&str>| {
            let mut one = Subnet::of(subnet.parse().unwrap());
            one.gateway = gateway.map(|text| text.parse().unwrap());
            check_subnet(&one, "lab", &known)
        };
        assert_eq!(check("10.77.0.0/24", None), Ok(()));
        assert_eq!(check("10.77.0.0/24", Some("10.77.0.1")), Ok(()));
        let other = check("10.78.0.0/24", None).unwrap_err();
        assert!(other.contains("has 10.77.0.0/24, and not 10.78.0.0/24"), "{other}");
        assert!(check("10.77.0.0/24", Some("10.77.0.9")).is_err());
        assert_eq!(first_host("fd00::/64".parse().unwrap()), "fd00::1".parse::<IpAddr>().unwrap());
    }
}
