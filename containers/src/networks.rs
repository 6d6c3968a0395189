//! Networks of an engine stand for networks of trama: looked up, compared, and made if absent.

use std::net::IpAddr;

use ipnet::IpNet;
use trama_api::transaction::{Request, VERSION};
use trama_api::value::{Atom, Value};
use trama_client::{Daemon, Failed};

use crate::names;
use crate::ports::rows;

/// Options of an engine's network: the name of trama's, and the VLAN of its containers.
pub(crate) const NETWORK: &str = "network";
pub(crate) const VLAN: &str = "vlan";

/// Checks that an engine's network has no option that is not known.
pub(crate) fn check_options<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    match keys.into_iter().find(|key| ![NETWORK, VLAN].contains(key)) {
        Some(key) => Err(format!("there is no option {key}; there are {NETWORK} and {VLAN}")),
        None => Ok(()),
    }
}

/// Reads the option `vlan`.
pub(crate) fn vlan(text: &str) -> Result<u16, String> {
    let vlan = text.parse().ok().filter(|vlan| (1..=4094).contains(vlan));
    vlan.ok_or_else(|| format!("option vlan={text} is not one of 1 to 4094"))
}

/// A network of the daemon.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub mode: String,
    pub subnets: Vec<IpNet>,
}

impl Found {
    /// Whether its gateway leads to other networks.
    pub(crate) fn has_nat(&self) -> bool {
        ["nat", "nat-network"].contains(&self.mode.as_str())
    }
}

/// Looks a network up; `None` if there is none of that name.
pub(crate) fn find(daemon: &Daemon, name: &str) -> Result<Option<Found>, Failed> {
    let answer = daemon.run(["--if-exists", "--columns=mode,subnet", "list", "Bridge", name])?;
    let Some(row) = rows(answer).into_iter().next() else { return Ok(None) };
    let mut cells = row.into_iter().map(texts);
    let mode = cells.next().unwrap_or_default().concat();
    let subnets = cells.next().unwrap_or_default();
    let subnets = subnets.iter().filter_map(|text| text.parse().ok()).collect();
    Ok(Some(Found { mode, subnets }))
}

/// The texts in a cell.
fn texts(cell: Value) -> Vec<String> {
    let atoms = match cell {
        Value::One(atom) => vec![atom],
        Value::Set(atoms) => atoms.into_iter().collect(),
        Value::Map(_) => Vec::new(),
    };
    let text = |atom| match atom {
        Atom::String(text) => Some(text.to_string()),
        _ => None,
    };
    atoms.into_iter().filter_map(text).collect()
}

/// Checks that an engine's subnet is one of a network's, and so is its gateway.
pub(crate) fn check_subnet(
    subnet: IpNet,
    gateway: Option<IpAddr>,
    name: &str,
    known: &[IpNet],
) -> Result<(), String> {
    let subnet = subnet.trunc();
    if !known.iter().any(|it| it.trunc() == subnet) {
        let known: Vec<String> = known.iter().map(|it| it.trunc().to_string()).collect();
        let known = if known.is_empty() { "no subnet".to_owned() } else { known.join(" and ") };
        return Err(format!(
            "the network {name} of trama has {known}, and not {subnet}; give what it has with \
             --subnet"
        ));
    }
    let first = first_host(subnet);
    match gateway.filter(|gateway| *gateway != first) {
        None => Ok(()),
        Some(gateway) => Err(format!(
            "the gateway of {subnet} is {first}, and not {gateway}; use --gateway {first}"
        )),
    }
}

/// The first address, which is the gateway's.
pub(crate) fn first_host(subnet: IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address).saturating_add(1)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address).saturating_add(1)).into()),
    }
}

/// A network that an engine wants and trama does not have.
pub(crate) struct New<'a> {
    pub name: &'a str,
    /// Without a way to other networks.
    pub is_internal: bool,
    pub subnets: &'a [IpNet],
    /// Columns in addition.
    pub noted: Vec<String>,
}

/// Makes a network.
///
/// # Errors
/// It has no subnet, or does not run. It is not there then.
pub(crate) fn make(daemon: &Daemon, new: New<'_>) -> Result<(), Failed> {
    let New { name, is_internal, subnets, noted } = new;
    if subnets.is_empty() {
        let message = format!("trama has no network {name}; give the subnet to make it with");
        return Err(format!("{message}: --subnet 10.77.0.0/24").into());
    }
    let mode = if is_internal { "internal" } else { "nat-network" };
    let subnets: Vec<String> = subnets.iter().map(|it| it.trunc().to_string()).collect();
    let subnets = names::set("subnet", subnets.iter().map(String::as_str));
    let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let set = words(&["set", "Bridge", name, &format!("mode={mode}"), &subnets]);
    let commands = vec![words(&["add-br", name]), [set, noted].concat()];
    let request = Request { version: VERSION, commands, dry_run: false, no_save: false };
    match daemon.transact::<Value>(&request)?.not_running.into_iter().next() {
        None => Ok(()),
        Some(why) => {
            // The engine has no network, so trama has none either.
            daemon.run(["--if-exists", "del-br", name])?;
            Err(why.reason.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_or_refused() {
        assert_eq!(check_options([NETWORK, VLAN]), Ok(()));
        assert!(check_options([NETWORK, "mtu"]).unwrap_err().contains("mtu"));
        assert_eq!(vlan("10"), Ok(10));
        for wrong in ["0", "4095", "x"] {
            assert!(vlan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subnet_is_the_networks_and_so_is_its_gateway() {
        let known: Vec<IpNet> = vec!["10.77.0.0/24".parse().unwrap()];
        let check = |subnet: &str, gateway: Option<&str>| {
            let gateway = gateway.map(|text| text.parse().unwrap());
            check_subnet(subnet.parse().unwrap(), gateway, "lab", &known)
        };
        assert_eq!(check("10.77.0.0/24", None), Ok(()));
        assert_eq!(check("10.77.0.0/24", Some("10.77.0.1")), Ok(()));
        let other = check("10.78.0.0/24", None).unwrap_err();
        assert!(other.contains("has 10.77.0.0/24, and not 10.78.0.0/24"), "{other}");
        let other = check("10.77.0.0/24", Some("10.77.0.9")).unwrap_err();
        assert!(other.contains("use --gateway 10.77.0.1"), "{other}");
        assert_eq!(first_host("fd00::/64".parse().unwrap()), "fd00::1".parse::<IpAddr>().unwrap());
    }
}
