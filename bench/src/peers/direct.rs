//! No switch: a veth pair from the first host to each other one. The rate over it is the
//! generator's ceiling.

use super::{End, Peer, Port, REMOTE_MTU, Setup, Switch, remote_host};
use crate::host::Namespace;
use crate::process::{Result, run};
use crate::program::Program;

/// See the module.
pub(crate) const DIRECT: Peer = Peer {
    name: "direct",
    about: "no switch: a veth pair between the hosts, the generator's ceiling",
    programs: &[Program::new("ip", "iproute2")],
    hugepages: false,
    start,
};

fn start(setup: &Setup) -> Result<Switch> {
    let (hub, mut others, mut helpers) = (Namespace::new(0)?, Vec::new(), Vec::new());
    for (number, port) in setup.ports.iter().enumerate().skip(1) {
        let (near, address) = (format!("veth{number}"), Namespace::address(number));
        // Delay on the way to the hub delays all the others, too.
        let (host, mtu) = match (setup.ports[0], port) {
            (Port::Host, Port::Host | Port::BehindUplink) => {
                (by_veth(&hub, &near, number, setup.mtu)?, setup.mtu)
            }
            (Port::Host, Port::Remote) | (Port::Remote, Port::BehindUplink) => {
                let mtu = if *port == Port::Remote { REMOTE_MTU } else { setup.mtu };
                let (relay, host) = remote_host(&near, number, mtu)?;
                hub.adopt(&near)?;
                helpers.push(relay);
                (host, mtu)
            }
            _ => return setup.refuse(&DIRECT),
        };
        hub.configure(&near, &format!("{}/32", Namespace::address(0)), mtu)?;
        run("ip", &["-n", &hub.0, "route", "add", &address, "dev", &near])?;
        others.push(End::Host(host));
    }
    hub.widen_port_range()?;
    others.insert(0, End::Host(hub));
    Ok(Switch { _helpers: helpers, ..Switch::of(Vec::new(), others) })
}

/// Creates host `number`, joined to the hub by a veth pair.
fn by_veth(hub: &Namespace, near: &str, number: usize, mtu: u32) -> Result<Namespace> {
    let host = Namespace::new(number)?;
    let peer = ["type", "veth", "peer", "name", "eth0", "netns", &host.0];
    run("ip", &[&["-n", &hub.0, "link", "add", near], &peer[..]].concat())?;
    host.configure("eth0", &format!("{}/24", Namespace::address(number)), mtu)?;
    Ok(host)
}
