//! An endpoint of Docker, the interface of a container on one network, is a port.
//!
//! Its TAP is made in the namespace of dockerd, down and without addresses. dockerd moves it into
//! the container's, names it, and sets it up.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use trama_api::attach::Device;
use trama_api::value::{Atom, Value as Cell};
use trama_client::{Daemon, Failed, Interface as Wanted};
use trama_frame::MacAddr;

use super::network::{self, Known};
use super::types::{CreateEndpoint, OfEndpoint, PortBinding};
use crate::forwards::{self, Published};
use crate::{names, ports};

/// How the names of ports begin that belong to containers.
const ENGINE: &str = "docker";
/// Columns `external_ids`.
const ENDPOINT_ID: &str = "docker-endpoint-id";
const NETWORK_ID: &str = "docker-network-id";
/// The option by which a container's names on a network are stated.
const NAMES: &str = "names";
/// The label of published ports.
const PORTMAP: &str = "com.docker.network.portmap";
/// Digits of an endpoint's ID in the name of its port, and in that of its interface.
const PORT_DIGITS: usize = 16;
const IFNAME_DIGITS: usize = 11;

fn port(of: &OfEndpoint) -> Result<String, String> {
    super::check_id("EndpointID", &of.endpoint)?;
    Ok(format!("{ENGINE}-{}", &of.endpoint[..PORT_DIGITS]))
}

/// The name of an endpoint's interface until it is in its container.
fn ifname(of: &OfEndpoint) -> Result<String, String> {
    super::check_id("EndpointID", &of.endpoint)?;
    Ok(format!("trm{}", &of.endpoint[..IFNAME_DIGITS]))
}

/// Carries out `CreateEndpoint`; returns what Docker does not know of the interface.
pub(super) fn create(daemon: &Daemon, request: &CreateEndpoint) -> Result<Value, Failed> {
    let known = network::get(daemon, &request.of.network)?;
    let wanted = wanted(request, &known)?;
    remove_stale(daemon, &wanted, &request.of.network)?;
    let mac = daemon.join_down(&wanted)?;
    Ok(match mac {
        Some(mac) if request.interface.mac.is_empty() => {
            json!({"Interface": {"MacAddress": mac.to_string()}})
        }
        _ => json!({}),
    })
}

fn wanted(request: &CreateEndpoint, known: &Known) -> Result<Wanted, String> {
    let CreateEndpoint { of, interface } = request;
    let mut columns = vec![
        names::external_id(ENDPOINT_ID, &of.endpoint),
        names::external_id(NETWORK_ID, &of.network),
    ];
    columns.extend(known.note.vlan.map(|vlan| format!("tag={vlan}")));
    match of.options.get(NAMES) {
        None => {}
        Some(Value::String(text)) => {
            let words = text.split([',', ' ']).filter(|word| !word.is_empty());
            columns.push(names::set("names", words));
        }
        Some(other) => return Err(format!("option {NAMES} is {other}, and no text")),
    }
    let stated = match interface.mac.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("Interface.MacAddress: {text:?}"))?),
    };
    Ok(Wanted {
        network: known.name.clone(),
        port: port(of)?,
        columns,
        netns: None,
        ifname: ifname(of)?,
        mac: stated.or_else(|| interface.ipv4.as_ref().and_then(mac_of)),
        addresses: interface.ipv4.into_iter().chain(interface.ipv6).collect(),
        lease: false,
        routes: None,
        device: Device::Descriptor,
    })
}

/// A hardware address that follows from an IPv4 address: neighbours that remember the one also have
/// the right other when a later container gets it.
fn mac_of(address: &IpNet) -> Option<MacAddr> {
    let IpAddr::V4(address) = address.addr() else { return None };
    let [a, b, c, d] = address.octets();
    Some(MacAddr([0x02, 0x42, a, b, c, d]))
}

/// Removes ports that Docker has forgotten: one of this endpoint, whose answer was lost, and those
/// with an address that Docker has now given to this one.
fn remove_stale(daemon: &Daemon, wanted: &Wanted, network: &str) -> Result<(), Failed> {
    let condition = names::external_id(NETWORK_ID, network);
    let answer = daemon.run(["--columns=name,addresses", "find", "Port", &condition])?;
    for row in ports::rows(answer) {
        let Ok([Cell::One(Atom::String(name)), addresses]) = <[Cell; 2]>::try_from(row) else {
            continue;
        };
        let addresses: Vec<IpAddr> =
            addresses.atoms().iter().filter_map(|atom| atom.bare().parse().ok()).collect();
        let has = |it: &IpNet| addresses.contains(&it.addr());
        if name == wanted.port.as_str() || wanted.addresses.iter().any(has) {
            ports::remove(daemon, &name)?;
        }
    }
    Ok(())
}

/// Carries out `DeleteEndpoint`. It is no error if there is none.
pub(super) fn delete(daemon: &Daemon, of: &OfEndpoint) -> Result<(), Failed> {
    ports::remove(daemon, &port(of)?)
}

/// Carries out `Join`: says which interface is the container's, and its default gateways.
pub(super) fn join(daemon: &Daemon, of: &OfEndpoint) -> Result<Value, Failed> {
    let Known { note, .. } = network::get(daemon, &of.network)?;
    let gateway = |is_one: fn(&IpAddr) -> bool| {
        let found = note.gateways.iter().find(|it| is_one(it));
        found.map(ToString::to_string).unwrap_or_default()
    };
    Ok(json!({
        "InterfaceName": {"SrcName": ifname(of)?, "DstPrefix": "eth"},
        "Gateway": gateway(IpAddr::is_ipv4),
        "GatewayIPv6": gateway(IpAddr::is_ipv6),
        // Else Docker adds a bridge of its own to containers without a gateway.
        "DisableGatewayService": true,
    }))
}

/// Carries out `ProgramExternalConnectivity`: opens the published ports of a container.
pub(super) fn publish(daemon: &Daemon, of: &OfEndpoint) -> Result<(), Failed> {
    let published = published(of)?;
    let Some(column) = forwards::column(&published, ENGINE, &of.endpoint) else { return Ok(()) };
    let name = network::get(daemon, &of.network)?.name;
    let port = port(of)?;
    daemon.run(["set", "Port", &port, &column])?;
    let rules = forwards::rule_names(&published, ENGINE, &of.endpoint);
    // The container may have joined long ago, and stays.
    forwards::wait(daemon, &name, &rules).inspect_err(|_| drop(withdraw(daemon, of)))
}

/// Carries out `RevokeExternalConnectivity`.
pub(super) fn withdraw(daemon: &Daemon, of: &OfEndpoint) -> Result<(), Failed> {
    daemon.run(["--if-exists", "clear", "Port", &port(of)?, "forward"]).map(drop)
}

fn published(of: &OfEndpoint) -> Result<Vec<Published>, String> {
    let stated = of.options.get(PORTMAP).cloned().unwrap_or(Value::Null);
    let stated: Option<Vec<PortBinding>> =
        serde_json::from_value(stated).map_err(|error| format!("Options.{PORTMAP}: {error}"))?;
    stated.into_iter().flatten().map(one_published).collect()
}

fn one_published(binding: PortBinding) -> Result<Published, String> {
    let PortBinding { proto, port, host_ip, host_port, host_port_end } = binding;
    let protocol = match proto {
        6 => "tcp",
        17 => "udp",
        other => {
            return Err(format!(
                "protocol {other} of port {port} is neither tcp nor udp; leave -p out"
            ));
        }
    };
    if host_port == 0 || (host_port_end != 0 && host_port_end != host_port) {
        return Err(format!(
            "port {port}/{protocol} has no port of the host of its own, and trama chooses none; \
             use -p HOSTPORT:{port}/{protocol}"
        ));
    }
    Ok(Published {
        protocol: protocol.to_owned(),
        host: host_ip,
        host_port,
        container_port: port,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(more: &str) -> CreateEndpoint {
        serde_json::from_str(&format!(
            r#"{{"NetworkID":"{0}","EndpointID":"{0}"{more}}}"#,
            "0123456789abcdef".repeat(4)
        ))
        .unwrap()
    }

    #[test]
    fn an_endpoint_becomes_a_port() {
        let known = Known { name: "lab".into(), note: Default::default(), is_disposable: false };
        let request = endpoint(
            r#","Interface":{"Address":"10.7.0.2/24","AddressIPv6":"","MacAddress":""},
                "Options":{"names":"web, db"}"#,
        );
        let made = wanted(&request, &known).unwrap();
        assert_eq!(
            (made.port.as_str(), made.ifname.as_str()),
            ("docker-0123456789abcdef", "trm0123456789a")
        );
        assert_eq!(made.mac, Some(MacAddr([2, 0x42, 10, 7, 0, 2])));
        assert_eq!(made.addresses, ["10.7.0.2/24".parse().unwrap()]);
        assert_eq!(made.columns.last().unwrap(), "names=[\"web\",\"db\"]");
        let stated = endpoint(r#","Interface":{"MacAddress":"52:54:00:00:00:01"},"Options":null"#);
        let made = wanted(&stated, &known).unwrap();
        assert_eq!(made.mac, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])));
        for wrong in [r#","Interface":{"MacAddress":"x"}"#, r#","Options":{"names":[7]}"#] {
            assert!(wanted(&endpoint(wrong), &known).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_published_port_is_one_of_the_hosts() {
        let published = |binding: &str| {
            published(&endpoint(&format!(r#","Options":{{"{PORTMAP}":[{{{binding}}}]}}"#)).of)
        };
        let one =
            published(r#""Proto":17,"Port":53,"HostIP":"::1","HostPort":5353,"HostPortEnd":5353"#);
        let expected = Published {
            protocol: "udp".into(),
            host: Some("::1".parse().unwrap()),
            host_port: 5353,
            container_port: 53,
            count: 1,
        };
        assert_eq!(one, Ok(vec![expected]));
        for (wrong, part) in [
            (r#""Proto":132,"Port":80,"HostPort":80"#, "132 of port 80"),
            (r#""Proto":6,"Port":80,"HostPort":0"#, "-p HOSTPORT:80/tcp"),
            (r#""Proto":6,"Port":80,"HostPort":80,"HostPortEnd":81"#, "-p HOSTPORT:80/tcp"),
            (r#""Proto":6,"Port":80,"HostPort":80,"HostIP":"x""#, "\"x\""),
        ] {
            let said = published(wrong).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }
}
