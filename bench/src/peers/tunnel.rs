//! Two hosts with a switch each, which a VXLAN tunnel joins over a veth pair, and a guest on each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ovs::{SCHEMA, in_dir};
use super::{End, Peer, Port, START, Setup, Switch};
use crate::host::Namespace;
use crate::process::{Process, Result, pinned, run};
use crate::program::Program;

/// `tramad` on both hosts, which share the switch core.
pub(crate) const TRAMA_TUNNEL: Peer = Peer {
    name: "trama-vxlan",
    about: "two tramads, joined by VXLAN",
    programs: &[],
    hugepages: false,
    start: start_trama,
};

/// The kernel's vxlan device in a bridge, on both hosts.
pub(crate) const KERNEL_TUNNEL: Peer = Peer {
    name: "linux-vxlan",
    about: "the kernel's vxlan devices, bridges and veth pairs",
    programs: &[Program::new("ip", "iproute2")],
    hugepages: false,
    start: start_kernel,
};

/// Open vSwitch's user-space data path on both hosts, which share the switch core.
pub(crate) const OVS_TUNNEL: Peer = Peer {
    name: "ovs-userspace-vxlan",
    about: "two Open vSwitches with the user-space data path, joined by VXLAN",
    programs: &[
        Program::new(VSWITCHD, "openvswitch-switch"),
        Program::new("ovsdb-server", "openvswitch-switch"),
    ],
    hugepages: false,
    start: start_ovs,
};

const VSWITCHD: &str = "/usr/sbin/ovs-vswitchd";

/// The interface of the path between the hosts.
const PATH: &str = "path0";
/// The MTU of the path, and the bytes of it that the outer headers take.
const PATH_MTU: u32 = 1500;
const OVERHEAD: u32 = 50;

/// A host with a switch, and its guest.
struct Side {
    number: usize,
    host: Namespace,
    guest: Namespace,
}

impl Side {
    /// Returns the outer address of a side's host.
    fn path_address(number: usize) -> String {
        format!("10.78.0.{}", number + 1)
    }

    fn here(&self) -> String {
        Side::path_address(self.number)
    }

    fn there(&self) -> String {
        Side::path_address(1 - self.number)
    }

    /// Makes a folder for its switch.
    fn folder(&self, setup: &Setup) -> Result<PathBuf> {
        let dir = setup.dir.join(format!("side{}", self.number));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(dir)
    }

    /// Returns a command in the host, on the switch core.
    fn command(&self, setup: &Setup, program: impl AsRef<Path>) -> Command {
        let mut command = pinned(setup.core, "nsenter");
        command.arg(format!("--net={}", self.host.path())).arg(program.as_ref());
        command
    }

    /// Runs `ip` in the host.
    fn ip(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        run("ip", &[&["-n", &self.host.0], &words[..]].concat()).map(|_| ())
    }
}

/// Makes both sides, with the path between them. The guests' MTU is that of the path less the outer
/// headers.
fn sides(setup: &Setup, peer: &Peer) -> Result<[Side; 2]> {
    if setup.ports != [Port::Host; 2] || setup.mtu != PATH_MTU - OVERHEAD {
        return setup.refuse(peer);
    }
    let side = |number| -> Result<Side> {
        let [host, guest] = [Namespace::new(2 + number)?, Namespace::new(number)?];
        Ok(Side { number, host, guest })
    };
    let sides = [side(0)?, side(1)?];
    let far = &sides[1].host.0;
    sides[0].ip(&format!("link add {PATH} type veth peer name {PATH} netns {far}"))?;
    for side in &sides {
        side.host.configure(PATH, &format!("{}/24", side.here()), PATH_MTU)?;
    }
    Ok(sides)
}

/// Returns the switch of both sides.
fn joined(running: Vec<Process>, sides: [Side; 2]) -> Switch {
    let (mut ends, mut hosts) = (Vec::new(), Vec::new());
    for Side { host, guest, .. } in sides {
        ends.push(End::Host(guest));
        hosts.push(host);
    }
    Switch { _namespaces: hosts, ..Switch::of(running, ends) }
}

fn start_trama(setup: &Setup) -> Result<Switch> {
    let sides = sides(setup, &TRAMA_TUNNEL)?;
    let daemons = sides.iter().map(|side| start_tramad(setup, side)).collect::<Result<Vec<_>>>()?;
    Ok(joined(daemons, sides))
}

fn start_tramad(setup: &Setup, side: &Side) -> Result<Process> {
    let dir = side.folder(setup)?;
    let config = format!(
        "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
         [[network]]\nname = \"bench\"\nmtu = {}\n\
         [[port]]\nname = \"vx0\"\nnetwork = \"bench\"\ntype = \"vxlan\"\nremote = \"{}\"\n\
         vni = 77\n\
         [[port]]\nname = \"guest\"\nnetwork = \"bench\"\ntype = \"tap\"\nifname = \"eth0\"\n\
         netns = \"{}\"\naddress = \"{}/24\"\n",
        setup.mtu,
        side.there(),
        side.guest.0,
        Namespace::address(side.number),
        dir = dir.display(),
    );
    let path = dir.join("trama.toml");
    fs::write(&path, config).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = side.command(setup, setup.bin.join("tramad"));
    command.arg("--config").arg(&path);
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    Ok(daemon)
}

fn start_kernel(setup: &Setup) -> Result<Switch> {
    let sides = sides(setup, &KERNEL_TUNNEL)?;
    for side in &sides {
        let (here, there, mtu) = (side.here(), side.there(), setup.mtu);
        side.ip(&format!(
            "link add vx0 type vxlan id 77 local {here} remote {there} dstport 4789"
        ))?;
        side.ip("link add br0 type bridge")?;
        let guest = &side.guest.0;
        side.ip(&format!("link add port0 type veth peer name eth0 netns {guest}"))?;
        for port in ["vx0", "port0"] {
            side.ip(&format!("link set {port} mtu {mtu} master br0 up"))?;
        }
        side.ip("link set br0 up")?;
        let address = format!("{}/24", Namespace::address(side.number));
        side.guest.configure("eth0", &address, mtu)?;
    }
    Ok(joined(Vec::new(), sides))
}

fn start_ovs(setup: &Setup) -> Result<Switch> {
    let sides = sides(setup, &OVS_TUNNEL)?;
    let mut running = Vec::new();
    for side in &sides {
        running.extend(start_ovs_side(setup, side)?);
    }
    Ok(joined(running, sides))
}

/// A bridge with the guest and the tunnel, and one with the path, by which the tunnel goes.
fn start_ovs_side(setup: &Setup, side: &Side) -> Result<[Process; 2]> {
    let dir = side.folder(setup)?;
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    run("ovsdb-tool", &["create", &at("conf.db"), SCHEMA])?;
    let mut server = in_dir(side.command(setup, "ovsdb-server"), &dir);
    server.args([at("conf.db"), format!("--remote=punix:{}", at("db.sock"))]);
    server.arg(format!("--unixctl={}", at("db.ctl")));
    let server = Process::spawn("ovsdb-server", server)?;
    let database = format!("--db=unix:{}", at("db.sock"));
    let vsctl = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        run("ovs-vsctl", &[&[&database[..], "--timeout=20", "--retry"], &words[..]].concat())
    };
    vsctl("--no-wait init")?;
    let mut switch = in_dir(side.command(setup, VSWITCHD), &dir);
    switch.args([format!("unix:{}", at("db.sock")), format!("--unixctl={}", at("vs.ctl"))]);
    let switch = Process::spawn("ovs-vswitchd", switch)?;
    for bridge in ["br0", "outer0"] {
        vsctl(&format!("add-br {bridge} -- set bridge {bridge} datapath_type=netdev"))?;
    }
    let mtu = setup.mtu;
    vsctl(&format!("add-port br0 tap0 -- set Interface tap0 type=tap mtu_request={mtu}"))?;
    side.ip(&format!("link set tap0 netns {}", side.guest.0))?;
    side.guest.configure("tap0", &format!("{}/24", Namespace::address(side.number)), mtu)?;
    vsctl(&format!("add-port outer0 {PATH}"))?;
    side.ip(&format!("addr flush dev {PATH}"))?;
    side.host.configure("outer0", &format!("{}/24", side.here()), PATH_MTU)?;
    vsctl(&format!(
        "add-port br0 vx0 -- set Interface vx0 type=vxlan options:remote_ip={} options:key=77",
        side.there()
    ))?;
    Ok([switch, server])
}
