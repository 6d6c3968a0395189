//! The kernel's bridge, with a veth pair for each host.

use super::{End, Peer, Port, Setup, Switch, host_behind_uplink};
use crate::host::Link;
use crate::process::{Result, run};
use crate::program::Program;

/// See the module.
pub(crate) const LINUX_BRIDGE: Peer = Peer {
    name: "linux-bridge",
    about: "the kernel's bridge and veth pairs",
    programs: &[Program::new("ip", "iproute2")],
    hugepages: false,
    start,
};

const BRIDGE: &str = "bridge0";

fn start(setup: &Setup) -> Result<Switch> {
    let mut links = vec![Link::add(BRIDGE, &["type", "bridge"])?];
    let mut ends = Vec::new();
    for (number, port) in setup.ports.iter().enumerate() {
        let device = format!("port{number}");
        let (link, end) = match port {
            Port::Host | Port::BehindUplink => {
                let (link, host) = host_behind_uplink(&device, number, setup.mtu)?;
                (link, End::Host(host))
            }
            Port::VmTap => (Link::add_tap(&device)?, End::VmTap(device.clone())),
            Port::Vhost | Port::Tap | Port::Remote => return setup.refuse(&LINUX_BRIDGE),
        };
        links.push(link);
        ends.push(end);
        run("ip", &["link", "set", &device, "master", BRIDGE])?;
    }
    Ok(Switch { _links: links, ..Switch::of(Vec::new(), ends) })
}
