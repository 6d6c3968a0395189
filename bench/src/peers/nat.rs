//! NATs. The first port is a host behind the NAT. The second is a server that the benchmark's own
//! namespace, in which all NATs run, reaches through a veth pair or a delay line.

use std::fs;

use super::{End, Peer, Port, REMOTE_MTU, START, Setup, Switch, host_behind_uplink, remote_host};
use crate::cores::LOAD_CORE;
use crate::delay;
use crate::host::{Link, Namespace, widen_port_range};
use crate::process::{Process, Result, pinned, run, wait_until};
use crate::program::Program;
use crate::usage::family;

/// trama's NAT.
pub(crate) const TRAMA_NAT: Peer = Peer {
    name: "trama-nat",
    about: "tramad with a network of mode nat-network: its worker and its gateway on one core",
    programs: &[],
    hugepages: false,
    start: start_trama,
};
/// The NAT of rootless Podman.
pub(crate) const PASTA: Peer = Peer {
    name: "pasta",
    about: "pasta, of passt",
    programs: &[Program::new("pasta", "passt")],
    hugepages: false,
    start: start_pasta,
};
/// The NAT of rootless containers that uses libslirp, as QEMU does.
pub(crate) const SLIRP4NETNS: Peer = Peer {
    name: "slirp4netns",
    about: "slirp4netns, of libslirp",
    programs: &[Program::new("slirp4netns", "slirp4netns")],
    hugepages: false,
    start: start_slirp4netns,
};

/// The near end of the link to the server.
const UPLINK: &str = "uplink0";
/// The NAT's device.
const DEVICE: &str = "eth0";
/// The ends of the client's delay line, and the bridge from the near one to the NAT's device.
const NEAR: &str = "near1";
const FAR: &str = "far1";
const BRIDGE: &str = "bridge1";
const CLIENT: &str = "10.0.2.15/24";
/// The gateway address of pasta and slirp4netns.
const GATEWAY: &str = "10.0.2.2";

/// The surroundings of every NAT.
struct Environment {
    client: Namespace,
    /// The far end of the client's delay line, if it has one; the NAT connects there.
    nat_side: Option<Namespace>,
    server: Namespace,
    mtu: u32,
    links: Vec<Link>,
    helpers: Vec<Process>,
}

impl Environment {
    fn new(setup: &Setup, peer: &Peer) -> Result<Self> {
        let (mut links, mut helpers) = (Vec::new(), Vec::new());
        let nat_side = match setup.ports {
            [Port::Host, _] => None,
            [Port::Remote, _] => Some(Namespace::new(2)?),
            _ => return setup.refuse(peer),
        };
        let client = Namespace::new(0)?;
        let server = match setup.ports {
            [_, Port::BehindUplink] => {
                let (link, server) = host_behind_uplink(UPLINK, 1, setup.mtu)?;
                links.push(link);
                server
            }
            [_, Port::Remote] => {
                let (relay, server) = remote_host(UPLINK, 1, REMOTE_MTU)?;
                helpers.push(relay);
                server
            }
            _ => return setup.refuse(peer),
        };
        run("ip", &["addr", "add", &format!("{}/24", Namespace::address(253)), "dev", UPLINK])?;
        // TCP metrics that the kernel remembers from the last run would slow this one down.
        run("ip", &["tcp_metrics", "flush"])?;
        widen_port_range()?;
        client.widen_port_range()?;
        if setup.variant.small_window {
            client.set("net.ipv4.tcp_wmem=4096 65536 131072")?;
        }
        Ok(Self { client, nat_side, server, mtu: setup.mtu, links, helpers })
    }

    /// Returns the namespace for the NAT's device.
    fn nat_namespace(&self) -> &Namespace {
        self.nat_side.as_ref().unwrap_or(&self.client)
    }

    /// Gives the client its address and a default route by this NAT's device.
    fn connect_client(mut self, nat: Process, gateway: &str) -> Result<Switch> {
        let namespace = self.nat_namespace();
        let is_there = || run("ip", &["-n", &namespace.0, "link", "show", DEVICE]).is_ok();
        wait_until("the NAT's device", START, is_there)?;
        let device = match &self.nat_side {
            None => DEVICE,
            Some(nat_side) => {
                self.helpers.push(add_delay(nat_side, &self.client, self.mtu)?);
                FAR
            }
        };
        self.client.configure(device, CLIENT, self.mtu)?;
        let route = ["route", "add", "default", "via", gateway];
        run("ip", &[&["-n", &self.client.0], &route[..]].concat())?;
        let mut switch =
            Switch::of(vec![nat], vec![End::Host(self.client), End::Host(self.server)]);
        switch._namespaces.extend(self.nat_side);
        Ok(Switch { _links: self.links, _helpers: self.helpers, ..switch })
    }
}

/// Joins the NAT's device on the NAT side to the client's device by a delay line.
fn add_delay(nat_side: &Namespace, client: &Namespace, mtu: u32) -> Result<Process> {
    let relay = delay::start(NEAR, FAR)?;
    nat_side.adopt(NEAR)?;
    client.adopt(FAR)?;
    let inside = ["-n", &nat_side.0, "link"];
    run("ip", &[&inside[..], &["add", BRIDGE, "type", "bridge"]].concat())?;
    for device in [DEVICE, NEAR] {
        let set = ["set", device, "mtu", &mtu.to_string(), "master", BRIDGE, "up"];
        run("ip", &[&inside[..], &set].concat())?;
    }
    run("ip", &[&inside[..], &["set", BRIDGE, "up"]].concat())?;
    Ok(relay)
}

fn start_trama(setup: &Setup) -> Result<Switch> {
    let environment = Environment::new(setup, &TRAMA_NAT)?;
    let (dir, path) = (setup.dir.display(), setup.dir.join("trama.toml"));
    let config = format!(
        "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\n\
         [[network]]\nname = \"bench\"\nmode = \"nat-network\"\ndhcp = false\nmtu = {}\n\n\
         [[port]]\nname = \"client\"\nnetwork = \"bench\"\ntype = \"tap\"\nifname = \"{DEVICE}\"\n\
         netns = \"{}\"\n",
        setup.mtu,
        environment.nat_namespace().0
    );
    fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = pinned(setup.core, setup.bin.join("tramad"));
    command.arg("--config").arg(&path);
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    if setup.variant.separate_cores {
        let has_gateway = || family(daemon.id()).len() > 1;
        wait_until("the gateway process", START, has_gateway)?;
        for pid in &family(daemon.id())[1..] {
            run("taskset", &["-acp", &LOAD_CORE.to_string(), &pid.to_string()])?;
        }
    }
    environment.connect_client(daemon, "10.0.2.1")
}

fn start_pasta(setup: &Setup) -> Result<Switch> {
    let environment = Environment::new(setup, &PASTA)?;
    let mut command = pinned(setup.core, "pasta");
    command.args(["--foreground", "--stderr", "--ipv4-only", "--no-map-gw"]);
    command.args(["--interface", UPLINK, "--ns-ifname", DEVICE, "--mtu", &setup.mtu.to_string()]);
    command.args(["--address", "10.0.2.15", "--netmask", "24", "--gateway", GATEWAY]);
    for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        command.args([ports, "none"]);
    }
    // Otherwise it drops to user `nobody`, which may not enter the namespace.
    command.args(["--runas", "0", "--netns-only", "--netns", &environment.nat_namespace().path()]);
    environment.connect_client(Process::spawn("pasta", command)?, GATEWAY)
}

fn start_slirp4netns(setup: &Setup) -> Result<Switch> {
    let environment = Environment::new(setup, &SLIRP4NETNS)?;
    let mut command = pinned(setup.core, "slirp4netns");
    command.args(["--disable-host-loopback", "--mtu", &setup.mtu.to_string()]);
    command.args(["--netns-type", "path", &environment.nat_namespace().path(), DEVICE]);
    environment.connect_client(Process::spawn("slirp4netns", command)?, GATEWAY)
}
