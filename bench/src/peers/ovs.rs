//! Open vSwitch's user-space data path: vhost-user ports polled by a dedicated thread, or TAPs.

use std::path::Path;
use std::process::Command;

use trama_vhost_net_backend::Role;

use super::{End, Peer, Port, Setup, Switch, hosts_with};
use crate::host::Link;
use crate::process::{Process, Result, pinned, run, unpinned};
use crate::program::Program;

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
pub(super) const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PROGRAMS: &[Program] = &[
    Program::new(VSWITCHD, "openvswitch-switch-dpdk"),
    Program::new("ovsdb-server", "openvswitch-switch"),
];

/// vhost-user ports and the NORMAL action, which learns.
pub(crate) const OVS_DPDK: Peer = Peer {
    name: "ovs-dpdk",
    about: "Open vSwitch with DPDK, learning (NORMAL), one polling thread",
    programs: PROGRAMS,
    hugepages: true,
    start: start_vhost,
};

/// TAPs, without offloads.
pub(crate) const OVS_USERSPACE: Peer = Peer {
    name: "ovs-userspace",
    about: "Open vSwitch's user-space data path with TAPs",
    programs: PROGRAMS,
    hugepages: true,
    start: |setup| start_taps(setup, false, &OVS_USERSPACE),
};

/// TAPs with segmentation offload.
pub(crate) const OVS_USERSPACE_TSO: Peer = Peer {
    name: "ovs-userspace-tso",
    about: "the same with userspace-tso-enable",
    programs: PROGRAMS,
    hugepages: true,
    start: |setup| start_taps(setup, true, &OVS_USERSPACE_TSO),
};

fn start_vhost(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Vhost) {
        return setup.refuse(&OVS_DPDK);
    }
    let ovs = Ovs::start(setup, false)?;
    let mut ends = Vec::new();
    for number in 0..setup.ports.len() {
        let socket = setup.socket(number);
        let path = format!("options:vhost-server-path={}", socket.display());
        ovs.add_port(&format!("v{number}"), "dpdkvhostuserclient", setup.mtu, &[&path])?;
        ends.push(End::Vhost { socket, backend_role: Role::Client });
    }
    Ok(ovs.switch(ends))
}

fn start_taps(setup: &Setup, tso: bool, peer: &Peer) -> Result<Switch> {
    if !setup.all(Port::Host) {
        return setup.refuse(peer);
    }
    let ovs = Ovs::start(setup, tso)?;
    let ends = hosts_with(setup, |number, host| {
        let tap = format!("tap{number}");
        ovs.add_port(&tap, "tap", setup.mtu, &[])?;
        host.adopt(&tap)?;
        Ok(tap)
    })?;
    Ok(ovs.switch(ends))
}

struct Ovs {
    database: String,
    running: Vec<Process>,
}

impl Ovs {
    /// Starts a private database and switch, with an empty bridge `br0`.
    fn start(setup: &Setup, tso: bool) -> Result<Self> {
        let dir = setup.dir;
        let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
        run("ovsdb-tool", &["create", &at("conf.db"), SCHEMA])?;
        let mut server = in_dir(pinned(setup.core, "ovsdb-server"), dir);
        server.args([at("conf.db"), format!("--remote=punix:{}", at("db.sock"))]);
        server.arg(format!("--unixctl={}", at("db.ctl")));
        let server = Process::spawn("ovsdb-server", server)?;
        let mut ovs =
            Self { database: format!("--db=unix:{}", at("db.sock")), running: vec![server] };
        let extra = format!(
            "other_config:dpdk-extra=--no-pci --huge-dir {} --file-prefix bench-ovs",
            setup.huge
        );
        ovs.vsctl(&[
            "--no-wait",
            "--",
            "init",
            "--",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            "other_config:dpdk-socket-mem=512",
            &format!("other_config:dpdk-lcore-mask={:#x}", 1u128 << setup.core),
            &format!("other_config:pmd-cpu-mask={:#x}", 1u128 << setup.core),
            &extra,
            &format!("other_config:userspace-tso-enable={tso}"),
        ])?;
        // It places its own threads, by the two masks.
        let mut switch = in_dir(unpinned(VSWITCHD), dir);
        switch.args([format!("unix:{}", at("db.sock")), format!("--unixctl={}", at("vs.ctl"))]);
        ovs.running.insert(0, Process::spawn("ovs-vswitchd", switch)?);
        ovs.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        Ok(ovs)
    }

    fn add_port(&self, name: &str, kind: &str, mtu: u32, more: &[&str]) -> Result<()> {
        let kind = format!("type={kind}");
        let mtu = format!("mtu_request={mtu}");
        let mut args = vec!["add-port", "br0", name, "--", "set", "Interface", name, &kind, &mtu];
        args.extend(more);
        self.vsctl(&args).map(|_| ())
    }

    /// Adds these ports. The two devices that it creates for itself outlive its processes.
    fn switch(self, ends: Vec<End>) -> Switch {
        let links = ["br0", "ovs-netdev"].map(|name| Link(name.to_owned()));
        Switch { _links: links.into(), ..Switch::of(self.running, ends) }
    }

    fn vsctl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec![self.database.as_str(), "--timeout=20", "--retry"];
        all.extend(args);
        run("ovs-vsctl", &all)
    }
}

pub(super) fn in_dir(mut command: Command, dir: &Path) -> Command {
    command.env("OVS_RUNDIR", dir).env("OVS_LOGDIR", dir).env("OVS_DBDIR", dir);
    command
}
