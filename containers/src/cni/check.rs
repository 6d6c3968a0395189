//! CHECK: a container is still attached as its result says.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use trama_client::Daemon;

use super::config::{Config, Kind};
use super::environment::Environment;
use super::failure::{CONFIG, DIFFERENT, FAILED, Failure};
use crate::ports::{self, State};

/// Carries it out.
pub(super) fn check(
    daemon: &Daemon,
    config: &Config,
    environment: &Environment,
) -> Result<(), Failure> {
    let Some(previous) = &config.prev_result else {
        return Err(Failure::new(CONFIG, "CHECK needs prevResult, the result of ADD"));
    };
    let port = super::add::port(environment);
    match ports::state(daemon, &port)? {
        State::Up => {}
        State::Missing => return Err(different(format!("tramad has no port {port}"))),
        State::Down(why) => return Err(different(format!("port {port} does not run: {why}"))),
    }
    if config.kind == Kind::VhostUser {
        return Ok(());
    }
    let has = addresses(&environment.netns, &environment.ifname)?;
    match stated(previous, environment).into_iter().find(|address| !has.contains(address)) {
        None => Ok(()),
        Some(address) => Err(different(format!("{} has no address {address}", environment.ifname))),
    }
}

fn different(details: String) -> Failure {
    Failure::new(DIFFERENT, details)
}

/// The addresses of the container's interface in a result.
fn stated(result: &Value, environment: &Environment) -> Vec<IpAddr> {
    let is_ours = |ip: &&Value| {
        let index = ip["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
        let interface = index.map(|index| &result["interfaces"][index]);
        interface.is_some_and(|it| {
            it["name"] == environment.ifname.as_str() && it["sandbox"] == environment.netns.as_str()
        })
    };
    let ips = result["ips"].as_array().into_iter().flatten().filter(is_ours);
    let address = |ip: &Value| ip["address"].as_str()?.parse::<IpNet>().ok();
    ips.filter_map(address).map(|address| address.addr()).collect()
}

/// The addresses that the interface has.
fn addresses(netns: &str, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let looked = trama_tap::in_namespace(netns, || {
        let all = nix::ifaddrs::getifaddrs().map_err(std::io::Error::from)?;
        let own = all.filter(|it| it.interface_name == ifname).filter_map(|it| it.address);
        let address = |it: nix::sys::socket::SockaddrStorage| {
            let four = it.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            four.or_else(|| it.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
        };
        Ok::<_, Looked>(own.filter_map(address).collect())
    });
    looked.map(|(found, _)| found).map_err(|Looked(why)| Failure::new(FAILED, why))
}

/// Why the addresses are not known.
struct Looked(String);

impl From<trama_tap::NamespaceError> for Looked {
    fn from(error: trama_tap::NamespaceError) -> Looked {
        Looked(error.to_string())
    }
}

impl From<std::io::Error> for Looked {
    fn from(error: std::io::Error) -> Looked {
        Looked(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_addresses_of_the_containers_interface_count() {
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => "CHECK",
                "CNI_CONTAINERID" => "c1",
                "CNI_IFNAME" => "eth0",
                "CNI_NETNS" => "/n",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let environment = Environment::read(variable).unwrap();
        let result = json!({
            "interfaces": [{"name": "eth0"}, {"name": "eth0", "sandbox": "/n"}],
            "ips": [{"address": "10.1.0.2/24", "interface": 1}, {"address": "10.1.0.3/24"},
                    {"address": "10.1.0.4/24", "interface": 0}, {"address": 7, "interface": 1}]
        });
        assert_eq!(stated(&result, &environment), [IpAddr::from([10, 1, 0, 2])]);
        assert!(stated(&json!([]), &environment).is_empty());
    }
}
