//! `attach`: makes an interface in a network namespace with the caller's rights, and hands it to
//! the daemon, which needs none.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use trama_api::attach::Device;
use trama_client::{Daemon, Failed, Interface};
use trama_tap::Route;

/// The options that have a value.
const VALUED: [&str; 6] = ["netns", "ifname", "address", "mac", "gateway", "name"];

/// Attaches an interface; returns what is printed.
///
/// # Errors
/// The interface cannot be made, or the daemon refuses it. Nothing is left.
pub(crate) fn attach(daemon: &Daemon, words: &[String]) -> Result<Vec<u8>, Failed> {
    let wanted = read(words)?;
    let joined = daemon.join(&wanted)?;
    let shown = Shown {
        port: joined.attached.port,
        ifname: wanted.ifname,
        mac: joined.mac.map(|mac| mac.to_string()),
        addresses: joined.addresses,
        gateway: joined.routes.first().and_then(|route| route.gateway),
        dns: joined.attached.dns,
    };
    let shown = serde_json::to_string(&shown).map_err(|error| error.to_string())?;
    Ok(format!("{shown}\n").into_bytes())
}

/// What is printed of an interface.
#[derive(Serialize)]
struct Shown {
    port: String,
    ifname: String,
    mac: Option<String>,
    addresses: Vec<IpNet>,
    gateway: Option<IpAddr>,
    dns: Vec<IpAddr>,
}

fn read(words: &[String]) -> Result<Interface, String> {
    let (mut arguments, mut names, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    let mut wanted = Interface {
        network: String::new(),
        port: String::new(),
        columns: Vec::new(),
        netns: None,
        ifname: "eth0".to_owned(),
        mac: None,
        addresses: Vec::new(),
        lease: false,
        routes: None,
        device: Device::Descriptor,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            match arguments.len() {
                0 | 1 => arguments.push(word.clone()),
                _ => wanted.columns.push(word.clone()),
            }
            continue;
        };
        if option == "lease" {
            wanted.lease = true;
            continue;
        }
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if !VALUED.contains(&name) {
            return Err(format!(
                "'attach' command has no '--{name}' option; it has --{} and --lease",
                VALUED.join(", --")
            ));
        }
        let value = value.or_else(|| words.next().map(String::as_str));
        let value = value.ok_or_else(|| format!("option '--{name}' needs a value"))?;
        match name {
            "name" => names.push(format!("\"{value}\"")),
            "gateway" => routes.push(Route::default_by(parsed(name, value, "10.1.0.1")?)),
            _ => set(&mut wanted, name, value)?,
        }
    }
    let [network, port] = <[String; 2]>::try_from(arguments)
        .map_err(|_| "'attach' takes a network and the name of the new port")?;
    if !names.is_empty() {
        wanted.columns.push(format!("names=[{}]", names.join(",")));
    }
    // An address that is chosen comes with the network's gateways.
    let routes = (!wanted.lease || !routes.is_empty()).then_some(routes);
    Ok(Interface { network, port, routes, ..wanted })
}

fn set(wanted: &mut Interface, name: &str, value: &str) -> Result<(), String> {
    match name {
        "netns" => wanted.netns = Some(namespace(value)),
        "ifname" => value.clone_into(&mut wanted.ifname),
        "mac" => wanted.mac = Some(parsed(name, value, "52:54:00:12:34:56")?),
        _ => wanted.addresses.push(parsed(name, value, "10.1.0.7/24")?),
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str, example: &str) -> Result<T, String> {
    let wrong = || format!("--{name} {value:?} is not valid; use one such as {example}");
    value.parse().map_err(|_| wrong())
}

/// A namespace by the number of a process, a name or a path.
fn namespace(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(process) => format!("/proc/{process}/ns/net"),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<Interface, String> {
        read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_stand_anywhere_and_a_process_is_a_namespace() {
        let wanted = read_line(
            "lab web --netns 4711 --address=10.1.0.7/24 tag=10 --gateway 10.1.0.1 --address \
             fd00::7/64 --mac 52:54:00:00:00:07 --name www --name=web cable=false",
        )
        .unwrap();
        assert_eq!((wanted.network.as_str(), wanted.port.as_str()), ("lab", "web"));
        assert_eq!(wanted.netns.as_deref(), Some("/proc/4711/ns/net"));
        assert_eq!(wanted.ifname, "eth0");
        assert_eq!(wanted.addresses.len(), 2);
        assert_eq!(wanted.columns, ["tag=10", "cable=false", "names=[\"www\",\"web\"]"]);
        assert_eq!(wanted.routes, Some(vec![Route::default_by([10, 1, 0, 1].into())]));
        assert_eq!(read_line("lab web --netns red").unwrap().netns.as_deref(), Some("red"));
    }

    #[test]
    fn the_networks_gateways_come_with_a_lease_unless_others_are_given() {
        assert_eq!(read_line("lab web").unwrap().routes, Some(Vec::new()));
        let leased = read_line("lab --lease web tag=7").unwrap();
        assert_eq!((leased.lease, leased.routes, leased.columns.len()), (true, None, 1));
        let stated = read_line("lab web --lease --gateway 10.1.0.1").unwrap();
        assert_eq!(stated.routes.map(|routes| routes.len()), Some(1));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("lab", "takes a network and the name"),
            ("lab web --address 10.1.0.7", "such as 10.1.0.7/24"),
            ("lab web --mac x", "such as 52:54"),
            ("lab web --gateway", "'--gateway' needs a value"),
            ("lab web --speed 7", "no '--speed' option"),
        ] {
            let message = read_line(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}
