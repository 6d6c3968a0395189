//! NATs. The first port is a host behind the NAT; the second is a server that the benchmark's own
//! namespace, where all of them run, reaches through a veth pair or from afar.

use std::fs;

use super::{End, Peer, Port, Program, START, SWITCH_CORE, Setup, Switch, host_afar, host_behind};
use crate::host::{Link, Namespace, use_many_ports};
use crate::process::{Process, Result, pinned, run, wait_until};

/// trama's NAT.
pub const TRAMA_NAT: Peer = Peer {
    name: "trama-nat",
    about: "tramad with a network of mode nat-network: its worker and its gateway on one core",
    programs: &[],
    hugepages: false,
    start: start_trama,
};
/// The NAT of rootless Podman.
pub const PASTA: Peer = Peer {
    name: "pasta",
    about: "pasta, of passt",
    programs: &[Program::new("pasta", "passt")],
    hugepages: false,
    start: start_pasta,
};
/// The NAT of rootless containers that uses libslirp, as QEMU does.
pub const SLIRP4NETNS: Peer = Peer {
    name: "slirp4netns",
    about: "slirp4netns, of libslirp",
    programs: &[Program::new("slirp4netns", "slirp4netns")],
    hugepages: false,
    start: start_slirp4netns,
};

/// The near end of the way to the server.
const UPLINK: &str = "uplink0";
/// The host's device.
const DEVICE: &str = "eth0";
/// What pasta and slirp4netns call the gateway.
const GATEWAY: &str = "10.0.2.2";

/// What all NATs find.
struct World {
    client: Namespace,
    server: Namespace,
    links: Vec<Link>,
    helpers: Vec<Process>,
}

impl World {
    fn new(setup: &Setup, peer: &Peer) -> Result<Self> {
        let client = Namespace::new(0)?;
        let (mut links, mut helpers) = (Vec::new(), Vec::new());
        let server = match setup.ports {
            [Port::Host, Port::Beyond] => {
                let (link, server) = host_behind(UPLINK, 1, setup.mtu)?;
                links.push(link);
                server
            }
            [Port::Host, Port::Afar] => {
                let (relay, server) = host_afar(UPLINK, 1, setup.mtu)?;
                helpers.push(relay);
                server
            }
            _ => return setup.refuse(peer),
        };
        run("ip", &["addr", "add", &format!("{}/24", Namespace::address(253)), "dev", UPLINK])?;
        // What the kernel remembers of the last run would slow this one down.
        run("ip", &["tcp_metrics", "flush"])?;
        use_many_ports(None)?;
        use_many_ports(Some(&client))?;
        Ok(Self { client, server, links, helpers })
    }

    /// Waits until the NAT has given the client its way out.
    fn wait_for_route(&self) -> Result<()> {
        let routes = || run("ip", &["-n", &self.client.0, "route", "show", "default"]);
        let has_route = || routes().is_ok_and(|text| !text.trim().is_empty());
        wait_until("the NAT's default route", START, has_route)
    }

    fn behind(self, nat: Process) -> Switch {
        let ends = vec![End::Host(self.client), End::Host(self.server)];
        Switch { _links: self.links, _helpers: self.helpers, ..Switch::of(vec![nat], ends) }
    }
}

fn start_trama(setup: &Setup) -> Result<Switch> {
    let world = World::new(setup, &TRAMA_NAT)?;
    let (dir, path) = (setup.dir.display(), setup.dir.join("trama.toml"));
    let config = format!(
        "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\n\
         [[network]]\nname = \"bench\"\nmode = \"nat-network\"\ndhcp = false\nmtu = {}\n\n\
         [[port]]\nname = \"client\"\nnetwork = \"bench\"\ntype = \"tap\"\nifname = \"{DEVICE}\"\n\
         netns = \"{}\"\naddress = \"10.0.2.15/24\"\n",
        setup.mtu, world.client.0
    );
    fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = pinned(SWITCH_CORE, setup.bin.join("tramad"));
    command.arg("--config").arg(&path);
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    let route = ["route", "add", "default", "via", "10.0.2.1"];
    run("ip", &[&["-n", &world.client.0], &route[..]].concat())?;
    Ok(world.behind(daemon))
}

fn start_pasta(setup: &Setup) -> Result<Switch> {
    let world = World::new(setup, &PASTA)?;
    let mut command = pinned(SWITCH_CORE, "pasta");
    command.args(["--foreground", "--stderr", "--config-net", "--ipv4-only", "--no-map-gw"]);
    command.args(["--interface", UPLINK, "--ns-ifname", DEVICE, "--mtu", &setup.mtu.to_string()]);
    command.args(["--address", "10.0.2.15", "--netmask", "24", "--gateway", GATEWAY]);
    for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        command.args([ports, "none"]);
    }
    // Otherwise it becomes nobody, who may not enter the namespace.
    command.args(["--runas", "0", "--netns-only", "--netns", &world.client.path()]);
    let nat = Process::spawn("pasta", command)?;
    world.wait_for_route()?;
    Ok(world.behind(nat))
}

fn start_slirp4netns(setup: &Setup) -> Result<Switch> {
    let world = World::new(setup, &SLIRP4NETNS)?;
    let mut command = pinned(SWITCH_CORE, "slirp4netns");
    command.args(["--configure", "--disable-host-loopback", "--mtu", &setup.mtu.to_string()]);
    command.args(["--netns-type", "path", &world.client.path(), DEVICE]);
    let nat = Process::spawn("slirp4netns", command)?;
    world.wait_for_route()?;
    Ok(world.behind(nat))
}
