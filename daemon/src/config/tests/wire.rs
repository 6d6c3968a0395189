//! Byte streams and datagrams in a file.

use super::*;
use crate::config::model::Role;
use crate::config::model::wire::{Dgram, Place, Stream};

const FILE: &str = r#"
[[port]]
name = "a"
type = "stream"

[[port]]
name = "b"
type = "stream"
address = "127.0.0.1:5555"
role = "client"

[[port]]
name = "c"
type = "stream"
path = "sub/c.sock"
connections = 8
socket-group = "0"

[[port]]
name = "d"
type = "dgram"
peer = "/run/vm.sock"

[[port]]
name = "e"
type = "dgram"
local = "127.0.0.1:10001"
remote = "127.0.0.1:10002"
"#;

#[test]
fn sockets_are_read_and_placed() {
    let config = parse(FILE, "").unwrap().expanded();
    let interface = |port: &str| config.port(port).unwrap().interface.clone();
    let stream = |place, role, connections| Interface::Stream(Stream { place, role, connections });
    let path = |path: &str| Place::Path(path.into());
    assert_eq!(interface("a"), stream(path("/run/trama/a.sock"), Role::Server, 1));
    let address = Place::Address("127.0.0.1:5555".parse().unwrap());
    assert_eq!(interface("b"), stream(address, Role::Client, 1));
    assert_eq!(interface("c"), stream(path("/run/trama/sub/c.sock"), Role::Server, 8));
    let (path, peer) = ("/run/trama/d.sock".into(), Some("/run/vm.sock".into()));
    assert_eq!(interface("d"), Interface::Dgram(Dgram::Unix { path, peer }));
    let [local, remote] = [10001, 10002].map(|port| ([127, 0, 0, 1], port).into());
    assert_eq!(interface("e"), Interface::Dgram(Dgram::Udp { local, remote }));
    // A group that is named may connect.
    assert_eq!(config.port("c").unwrap().socket.mode.map(|it| it.to_string()), Some("0660".into()));
}

#[test]
fn each_mistake_is_named_with_its_remedy() {
    for (keys, refusal) in [
        (
            "type = \"stream\"\npath = \"/x\"\naddress = \"[::1]:1\"",
            "address: there is a path as well; remove one of them",
        ),
        (
            "type = \"stream\"\naddress = \"localhost\"",
            "address: \"localhost\" is not an address with a port; write it as 127.0.0.1:5555 or [::1]:5555",
        ),
        (
            "type = \"stream\"\naddress = \"127.0.0.1:0\"",
            "address: 127.0.0.1:0 has no port; use a port from 1 to 65535",
        ),
        ("type = \"stream\"\nconnections = 65", "connections: 65 is out of range; use 1 to 64"),
        (
            "type = \"stream\"\nrole = \"client\"\nconnections = 2",
            "connections: a client has one connection; remove it, or set role = \"server\"",
        ),
        (
            "type = \"stream\"\nrole = \"client\"\nsocket-group = \"0\"",
            "socket-group: with role = \"client\" the VMM makes the socket; remove it, and let the daemon's user write the VMM's socket",
        ),
        (
            "type = \"stream\"\naddress = \"127.0.0.1:1\"\nsocket-mode = \"0660\"",
            "socket-mode: a socket with an address has no file; remove it; a Unix socket has a path",
        ),
        (
            "type = \"stream\"\nqueues = 2",
            "queues: belongs to ports of type \"vhost-user\"; remove it, or set type = \"vhost-user\"",
        ),
        (
            "type = \"stream\"\nremote = \"127.0.0.1:1\"",
            "remote: belongs to ports of type \"dgram\" or \"vxlan\"; remove it, or set type = \"dgram\" or \"vxlan\"",
        ),
        (
            "type = \"tap\"\naddress = \"127.0.0.1:1\"",
            "address: \"127.0.0.1:1\" is not an address; write it as in 10.1.0.1/24",
        ),
        (
            "type = \"dgram\"\nlocal = \"127.0.0.1:1\"",
            "local: needs remote as well; add remote = \"ADDRESS:PORT\"",
        ),
        (
            "type = \"dgram\"\npath = \"/x\"\nlocal = \"127.0.0.1:1\"\nremote = \"127.0.0.1:2\"",
            "local: is of UDP, and path of a Unix socket; remove one of them",
        ),
        (
            "type = \"dgram\"\nlocal = \"127.0.0.1:1\"\nremote = \"[::1]:2\"",
            "remote: [::1]:2 is of another version of IP than local; use two addresses of one version",
        ),
        (
            "type = \"dgram\"\npath = \"/x\"\npeer = \"/x\"",
            "peer: is the port's own socket; give the path of the other end's socket",
        ),
        ("type = \"sream\"", "type: unknown value \"sream\"; did you mean \"stream\"?"),
    ] {
        let text = format!("[[port]]\nname = \"p\"\n{keys}\n");
        let faults = parse(&text, "lab.toml").unwrap_err();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let is_named = |it: &String| it.ends_with(&format!(": port.p.{refusal}"));
        assert!(faults.iter().any(is_named), "{keys}: {faults:#?}");
    }
}

#[test]
fn an_address_is_one_ports_own() {
    let port = |name: &str| {
        format!("[[port]]\nname = \"{name}\"\ntype = \"stream\"\naddress = \"127.0.0.1:5555\"\n")
    };
    let faults = parse(&[port("a"), port("b")].concat(), "lab.toml").unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "lab.toml:8:11: port.b.address: 127.0.0.1:5555 is taken by port.a.address; give each its \
         own address or port"
    );
}
