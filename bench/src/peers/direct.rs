//! No switch at all: a veth pair from the first host to each other one. What a generator reaches
//! over it is the generator's ceiling.

use super::{End, Peer, Port, Program, Setup, Switch};
use crate::host::Namespace;
use crate::process::{Result, run};

/// See the module.
pub const DIRECT: Peer = Peer {
    name: "direct",
    about: "no switch: a veth pair between the hosts, the generator's ceiling",
    programs: &[Program::new("ip", "iproute2")],
    hugepages: false,
    start,
};

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Host) {
        return setup.refuse(&DIRECT);
    }
    let hub = Namespace::new(0)?;
    let mut others = Vec::new();
    for number in 1..setup.ports.len() {
        let host = Namespace::new(number)?;
        let (near, address) = (format!("veth{number}"), Namespace::address(number));
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &host.0];
        run("ip", &[&["-n", &hub.0, "link", "add", &near], &peer[..]].concat())?;
        hub.configure(&near, &format!("{}/32", Namespace::address(0)), setup.mtu)?;
        run("ip", &["-n", &hub.0, "route", "add", &address, "dev", &near])?;
        host.configure("eth0", &format!("{address}/24"), setup.mtu)?;
        others.push(End::Host(host));
    }
    others.insert(0, End::Host(hub));
    Ok(Switch::of(Vec::new(), others))
}
