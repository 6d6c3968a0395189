//! The kernel's bridge, with a veth pair for each host.

use super::{Peer, Port, Program, Setup, Switch, hosts_with};
use crate::host::Link;
use crate::process::{Result, run};

/// See the module.
pub const LINUX_BRIDGE: Peer = Peer {
    name: "linux-bridge",
    about: "the kernel's bridge and veth pairs",
    programs: &[Program::new("ip", "iproute2")],
    hugepages: false,
    start,
};

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Host) {
        return setup.refuse(&LINUX_BRIDGE);
    }
    let mut links = vec![Link::add("bridge0", &["type", "bridge"])?];
    let mtu = setup.mtu.to_string();
    let ends = hosts_with(setup, |number, host| {
        let outer = format!("veth{number}");
        let kind = ["mtu", &mtu, "type", "veth", "peer", "name", "eth0", "netns", &host.0];
        links.push(Link::add(&outer, &kind)?);
        run("ip", &["link", "set", &outer, "master", "bridge0"])?;
        Ok("eth0".into())
    })?;
    Ok(Switch { _links: links, ..Switch::of(Vec::new(), ends) })
}
