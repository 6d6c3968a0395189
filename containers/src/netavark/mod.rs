//! The plug-in for podman: a network driver of netavark, plug-in API 1.0.0.
//!
//! `docs/podman.md` has what is configured.

mod create;
mod types;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trama_api::attach::Device;
use trama_api::values::is_host_name;
use trama_client::{Daemon, Failed, Interface as Wanted, Joined};

use self::types::{Address, Exec, Interface, Network, PortMapping, Route, Status};
use crate::forwards::{self, Published};
use crate::{names, ports};

/// The version of the API.
const API: &str = "1.0.0";
/// How the names of ports begin that belong to containers.
const ENGINE: &str = "podman";
/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the plug-in with these arguments and this input, for the daemon at the first of these
/// sockets that answers; returns what it prints, or `Err` with an error in JSON.
///
/// # Errors
/// It cannot be done: the text says why, in the form that netavark reads.
pub fn run(sockets: Vec<PathBuf>, arguments: &[String], input: &[u8]) -> Result<String, String> {
    let daemon = Daemon { sockets, timeout: TIMEOUT };
    let result = carry_out(&daemon, arguments, input);
    match result {
        Ok(Value::Null) => Ok(String::new()),
        Ok(result) => Ok(result.to_string()),
        Err(failed) => Err(json!({"error": failed.to_string()}).to_string()),
    }
}

fn carry_out(daemon: &Daemon, arguments: &[String], input: &[u8]) -> Result<Value, Failed> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["create"] => {
            let network: Network = parse(input)?;
            Ok(json!(create::create(daemon, network)?))
        }
        ["setup", netns] => Ok(json!(setup(daemon, netns, &parse(input)?)?)),
        ["teardown", _] => {
            tear_down(daemon, &parse(input)?)?;
            Ok(Value::Null)
        }
        [] | ["info"] => Ok(json!({"version": env!("CARGO_PKG_VERSION"), "api_version": API})),
        ["setup" | "teardown", ..] => {
            Err("give the path of the network namespace alone".to_owned().into())
        }
        [other, ..] => Err(format!(
            "{other:?} is no command; there are create, setup, teardown and info, which netavark \
             runs"
        )
        .into()),
    }
}

fn parse<T: DeserializeOwned>(input: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(input).map_err(|error| format!("standard input: {error}").into())
}

/// The name of a container's port. A container is on a network once.
fn port(exec: &Exec) -> String {
    names::of_port(ENGINE, &exec.container_id, &exec.network_options.interface_name)
}

fn setup(daemon: &Daemon, netns: &str, exec: &Exec) -> Result<Status, Failed> {
    let wanted = wanted(netns, exec)?;
    let joined = daemon.join(&wanted)?;
    let rules = forwards::rule_names(&published(exec)?, ENGINE, &exec.container_id);
    forwards::wait_or_leave(daemon, &wanted.network, &wanted.port, &rules)?;
    Ok(status(&wanted, joined))
}

/// All of it goes with the port, and a port with its namespace.
fn tear_down(daemon: &Daemon, exec: &Exec) -> Result<(), Failed> {
    match ports::remove(daemon, &port(exec)) {
        Err(Failed::Unreachable(_)) => Ok(()),
        result => result,
    }
}

fn wanted(netns: &str, exec: &Exec) -> Result<Wanted, Failed> {
    let options = &exec.network_options;
    let mac = options.static_mac.as_deref().map(|text| {
        let wrong = || format!("static_mac {text:?} is not one such as 52:54:00:12:34:56");
        text.parse().map_err(|_| wrong())
    });
    let routes = exec.network.routes.iter().flatten().map(route).collect::<Result<Vec<_>, _>>()?;
    Ok(Wanted {
        network: create::name(&exec.network),
        port: port(exec),
        columns: columns(exec)?,
        netns: Some(netns.to_owned()),
        ifname: options.interface_name.clone(),
        mac: mac.transpose()?,
        addresses: Vec::new(),
        lease: ipam(exec) == Some("dhcp"),
        // The routes of podman's network come in addition to those by the gateways, of which an
        // internal one has none whatever the switch's network has.
        routes: match routes.is_empty() && !exec.network.internal {
            true => None,
            false => Some([gateway_routes(exec), routes].concat()),
        },
        device: Device::Descriptor,
    })
}

fn ipam(exec: &Exec) -> Option<&str> {
    Some(exec.network.ipam_options.as_ref()?.get(create::DRIVER)?.as_str())
}

fn columns(exec: &Exec) -> Result<Vec<String>, Failed> {
    let options = &exec.network_options;
    let mut columns = vec![
        names::external_id("podman-container-id", &exec.container_id),
        names::external_id("podman-container-name", &exec.container_name),
        names::external_id("podman-network", &exec.network.name),
    ];
    columns.extend(create::vlan(&exec.network)?.map(|vlan| format!("tag={vlan}")));
    let addresses: Vec<String> =
        options.static_ips.iter().flatten().map(ToString::to_string).collect();
    let has_addresses = !addresses.is_empty();
    if has_addresses {
        columns.push(names::set("addresses", addresses.iter().map(String::as_str)));
    }
    if has_addresses || ipam(exec) == Some("dhcp") {
        // What no DNS can answer is no reason to refuse the container. Names differ by more than
        // their case.
        let stated = options.aliases.iter().flatten().chain([&exec.container_name]);
        let stated = stated.map(|name| name.to_ascii_lowercase());
        let known: BTreeSet<String> = stated.filter(|name| is_host_name(name)).collect();
        if !known.is_empty() {
            columns.push(names::set("names", known.iter().map(String::as_str)));
        }
    }
    columns.extend(forwards::column(&published(exec)?, ENGINE, &exec.container_id));
    Ok(columns)
}

/// The default routes of a network with NAT.
fn gateway_routes(exec: &Exec) -> Vec<trama_tap::Route> {
    let subnets = exec.network.subnets.iter().flatten();
    let gateways = subnets.filter_map(|it| it.gateway).filter(|_| !exec.network.internal);
    gateways.map(trama_tap::Route::default_by).collect()
}

fn route(route: &Route) -> Result<trama_tap::Route, String> {
    let Route { destination, gateway, metric, route_type } = route;
    match (gateway, route_type.as_deref()) {
        (Some(gateway), None | Some("unicast")) => Ok(trama_tap::Route {
            destination: *destination,
            gateway: Some(*gateway),
            priority: *metric,
        }),
        _ => Err(format!("the route to {destination} is not one by a gateway; take it out")),
    }
}

fn published(exec: &Exec) -> Result<Vec<Published>, String> {
    let mut published = Vec::new();
    for mapping in exec.port_mappings.iter().flatten() {
        let PortMapping { container_port, host_ip, host_port, protocol, range } = mapping;
        let host = match host_ip.as_str() {
            "" => None,
            text => Some(parse_host(text)?),
        };
        let protocols = if protocol.is_empty() { "tcp" } else { protocol.as_str() };
        for protocol in protocols.split(',') {
            if !["tcp", "udp"].contains(&protocol) {
                return Err(format!(
                    "protocol {protocol:?} of port {host_port} is neither tcp nor udp"
                ));
            }
            published.push(Published {
                protocol: protocol.to_owned(),
                host,
                host_port: *host_port,
                container_port: *container_port,
                count: (*range).max(1),
            });
        }
    }
    Ok(published)
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("host_ip {text:?} is not an address"))
}

fn status(wanted: &Wanted, joined: Joined) -> Status {
    let gateways = &joined.attached.gateways;
    let address = |ipnet: &ipnet::IpNet| Address {
        ipnet: *ipnet,
        gateway: gateways.iter().find(|gateway| ipnet.contains(*gateway)).copied(),
    };
    let interface = Interface {
        mac_address: joined.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        subnets: joined.addresses.iter().map(address).collect(),
    };
    Status {
        dns_search_domains: Vec::new(),
        dns_server_ips: joined.dns(),
        interfaces: [(wanted.ifname.clone(), interface)].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run_alone(arguments: &[String], input: &[u8]) -> Result<String, String> {
        run(vec!["/nonexistent/control.sock".into()], arguments, input)
    }

    fn exec(more: &str) -> Exec {
        serde_json::from_str(&format!(
            r#"{{"container_id":"c1","container_name":"web","network":{{"name":"lab",
                "ipam_options":{{"driver":"host-local"}}}},
                "network_options":{{"interface_name":"eth0","aliases":["c1","web"],
                "static_ips":["10.77.0.7"]}}{more}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_container_becomes_a_port() {
        let mapping = r#","port_mappings":[{"container_port":80,"host_ip":"127.0.0.1",
            "host_port":8080,"protocol":"tcp,udp","range":2}]"#;
        let wanted = wanted("/n", &exec(mapping)).unwrap();
        assert_eq!(wanted.port, "podman-d72e032fedd94c16");
        assert_eq!(
            wanted.columns[3..],
            [
                "addresses=[\"10.77.0.7\"]",
                "names=[\"c1\",\"web\"]",
                "forward=[\"podman-c1-8080-tcp-127.0.0.1,tcp,127.0.0.1,8080-8081,,80-81\",\
             \"podman-c1-8080-udp-127.0.0.1,udp,127.0.0.1,8080-8081,,80-81\"]",
            ]
        );
        assert!(!wanted.lease && wanted.routes.is_none());
    }

    #[test]
    fn an_internal_network_leads_nowhere_whatever_the_one_of_the_switch_does() {
        let mut internal = exec("");
        internal.network.internal = true;
        assert_eq!(wanted("/n", &internal).unwrap().routes, Some(Vec::new()));
    }

    #[test]
    fn names_that_no_dns_can_answer_are_left_out_and_others_are_there_once() {
        let mut exec = exec("");
        let long = "a".repeat(64);
        let aliases = ["Web", "web", "b c", &long, "db_1"].map(str::to_owned);
        exec.network_options.aliases = Some(aliases.to_vec());
        let names = columns(&exec).unwrap().into_iter().find(|it| it.starts_with("names="));
        assert_eq!(names.unwrap(), "names=[\"db_1\",\"web\"]");
    }

    #[test]
    fn mistakes_are_named() {
        let sctp = r#","port_mappings":[{"container_port":80,"host_port":80,"protocol":"sctp"}]"#;
        for (arguments, input, part) in [
            (vec!["setup", "/n"], sctp_input(sctp), "\"sctp\" of port 80"),
            (vec!["setup"], String::new(), "path of the network namespace"),
            (vec!["setup", "/n"], "{}".to_owned(), "missing field `container_id`"),
            (vec!["create"], "[".to_owned(), "standard input"),
            (vec!["delete"], String::new(), "there are create, setup"),
        ] {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            let said = run_alone(&arguments, input.as_bytes()).unwrap_err();
            let said: Value = serde_json::from_str(&said).unwrap();
            assert!(said["error"].as_str().unwrap().contains(part), "{said}");
        }
    }

    fn sctp_input(mapping: &str) -> String {
        format!(
            r#"{{"container_id":"c","container_name":"w","network":{{"name":"lab"}},
                "network_options":{{"interface_name":"eth0"}}{mapping}}}"#
        )
    }

    #[test]
    fn information_is_that_of_the_api() {
        let said: Value =
            serde_json::from_str(&run_alone(&["info".to_owned()], b"").unwrap()).unwrap();
        assert_eq!(said, json!({"version": env!("CARGO_PKG_VERSION"), "api_version": "1.0.0"}));
    }

    proptest! {
        #[test]
        fn no_input_panics(
            input in "[\\[\\]{}:,\"a-z0-9_ ]{0,64}",
            command in prop_oneof![Just("create"), Just("setup"), Just("teardown"), Just("x")],
        ) {
            let arguments = [command.to_owned(), "/n".to_owned()];
            prop_assert!(run_alone(&arguments, input.as_bytes()).is_err());
        }
    }
}
