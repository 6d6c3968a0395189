//! The switches that are compared, each started alone on the switch core. All of them end with the
//! value that stands for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::Namespace;
use crate::process::{Process, Result, pinned, run, testpmd, unpinned};

/// The core that the switch has for itself; generator and sink run on [`LOAD_CORE`].
pub const SWITCH_CORE: usize = 0;
/// The core of generator and sink.
pub const LOAD_CORE: usize = 1;

const START: Duration = Duration::from_secs(20);
const OVS_DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const OVS_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A switch with two vhost-user ports.
pub struct VhostPeer {
    /// The sockets of its ports.
    pub sockets: [PathBuf; 2],
    /// Whether the generator has to listen on them.
    pub generator_listens: bool,
    _running: Vec<Process>,
}

/// `tramad` with two vhost-user ports in one network.
pub fn trama_vhost(bin: &Path, dir: &Path) -> Result<VhostPeer> {
    let sockets = [dir.join("v0.sock"), dir.join("v1.sock")];
    let ports = sockets
        .iter()
        .enumerate()
        .map(|(i, path)| {
            format!(
                "[[port]]\nname = \"v{i}\"\nnetwork = \"bench\"\ntype = \"vhost-user\"\n\
                 path = \"{}\"\nrole = \"server\"\n",
                path.display()
            )
        })
        .collect::<String>();
    let daemon = start_trama(bin, dir, &ports)?;
    Ok(VhostPeer { sockets, generator_listens: false, _running: vec![daemon] })
}

fn start_trama(bin: &Path, dir: &Path, ports: &str) -> Result<Process> {
    let config = dir.join("trama.toml");
    let text = format!(
        "[daemon]\ncontrol = \"{0}/control.sock\"\nstate = \"{0}/state\"\n\n\
         [[network]]\nname = \"bench\"\nmode = \"internal\"\n\n{ports}",
        dir.display()
    );
    fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
    let mut command = pinned(SWITCH_CORE, &bin.join("tramad").to_string_lossy());
    command.arg("--config").arg(&config);
    let mut daemon = Process::spawn("tramad", command)?;
    daemon.wait_for("ready", START)?;
    Ok(daemon)
}

/// Open vSwitch with its DPDK data path, two `dpdkvhostuserclient` ports and the NORMAL action.
pub fn ovs_dpdk(dir: &Path, huge: &str) -> Result<VhostPeer> {
    let sockets = [dir.join("v0.sock"), dir.join("v1.sock")];
    let ovs = Ovs::start(dir, huge, false)?;
    for (i, path) in sockets.iter().enumerate() {
        let (port, path) =
            (format!("v{i}"), format!("options:vhost-server-path={}", path.display()));
        ovs.vsctl(&[
            "add-port",
            "br0",
            &port,
            "--",
            "set",
            "Interface",
            &port,
            "type=dpdkvhostuserclient",
            &path,
        ])?;
    }
    Ok(VhostPeer { sockets, generator_listens: true, _running: ovs.running })
}

/// DPDK's own forwarder, which looks nothing up: the floor of what a vhost device costs there.
pub fn dpdk_io(dir: &Path, huge: &str) -> Result<VhostPeer> {
    let sockets = [dir.join("v0.sock"), dir.join("v1.sock")];
    let mut command = testpmd();
    command.args(["-l", "0,1", "--main-lcore", "1", "--no-pci", "-m", "512", "--huge-dir", huge]);
    command.args(["--file-prefix", "bench-io"]);
    for (i, path) in sockets.iter().enumerate() {
        command.arg(format!("--vdev=net_vhost{i},iface={}", path.display()));
    }
    command.args(["--", "-i", "--forward-mode=io", "--nb-cores=1", "--no-mlockall"]);
    command.args(["--txd=1024", "--rxd=1024"]);
    let mut forwarder = Process::spawn("dpdk-testpmd (io)", command)?;
    forwarder.wait_for("Checking link statuses", START)?;
    forwarder.say("start")?;
    Ok(VhostPeer { sockets, generator_listens: false, _running: vec![forwarder] })
}

struct Ovs {
    database: String,
    running: Vec<Process>,
}

impl Ovs {
    /// A database and a switch of its own below `dir`, with an empty bridge `br0`.
    fn start(dir: &Path, huge: &str, tso: bool) -> Result<Self> {
        let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
        run("ovsdb-tool", &["create", &at("conf.db"), OVS_SCHEMA])?;
        let mut server = in_dir(unpinned("ovsdb-server"), dir);
        server.args([at("conf.db"), format!("--remote=punix:{}", at("db.sock"))]);
        server.arg(format!("--unixctl={}", at("db.ctl")));
        let server = Process::spawn("ovsdb-server", server)?;
        let mut ovs =
            Self { database: format!("--db=unix:{}", at("db.sock")), running: vec![server] };
        let extra =
            format!("other_config:dpdk-extra=--no-pci --huge-dir {huge} --file-prefix bench-ovs");
        let tso = format!("other_config:userspace-tso-enable={tso}");
        let settings = [
            "--no-wait",
            "--",
            "init",
            "--",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            "other_config:dpdk-socket-mem=512",
            "other_config:dpdk-lcore-mask=0x1",
            "other_config:pmd-cpu-mask=0x1",
            &extra,
            &tso,
        ];
        ovs.vsctl(&settings)?;
        let mut switch = in_dir(unpinned(OVS_DPDK), dir);
        switch.args([format!("unix:{}", at("db.sock")), format!("--unixctl={}", at("vs.ctl"))]);
        ovs.running.insert(0, Process::spawn("ovs-vswitchd", switch)?);
        ovs.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        Ok(ovs)
    }

    fn vsctl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec![self.database.as_str(), "--timeout=20", "--retry"];
        all.extend(args);
        run("ovs-vsctl", &all)
    }
}

fn in_dir(mut command: Command, dir: &Path) -> Command {
    command.env("OVS_RUNDIR", dir).env("OVS_LOGDIR", dir).env("OVS_DBDIR", dir);
    command
}

/// Two namespaces joined by a switch, with the addresses 10.77.0.1 and 10.77.0.2.
pub struct TapPeer {
    /// The two hosts.
    pub hosts: [Namespace; 2],
    _running: Vec<Process>,
    _bridge: Option<Bridge>,
}

const ADDRESSES: [&str; 2] = ["10.77.0.1/24", "10.77.0.2/24"];

fn hosts() -> Result<[Namespace; 2]> {
    Ok([Namespace::new("a")?, Namespace::new("b")?])
}

/// `tramad` with a TAP in each namespace.
pub fn trama_tap(bin: &Path, dir: &Path) -> Result<TapPeer> {
    let hosts = hosts()?;
    let ports = hosts
        .iter()
        .zip(ADDRESSES)
        .enumerate()
        .map(|(i, (host, address))| {
            format!(
                "[[port]]\nname = \"t{i}\"\nnetwork = \"bench\"\ntype = \"tap\"\nifname = \"bt{i}\"\n\
                 netns = \"{}\"\naddress = \"{address}\"\n",
                host.0
            )
        })
        .collect::<String>();
    let daemon = start_trama(bin, dir, &ports)?;
    Ok(TapPeer { hosts, _running: vec![daemon], _bridge: None })
}

/// Open vSwitch's userspace data path with a TAP in each namespace and TSO enabled.
pub fn ovs_tap(dir: &Path, huge: &str) -> Result<TapPeer> {
    let hosts = hosts()?;
    let ovs = Ovs::start(dir, huge, true)?;
    for (i, (host, address)) in hosts.iter().zip(ADDRESSES).enumerate() {
        let tap = format!("bt{}x{i}", std::process::id());
        ovs.vsctl(&["add-port", "br0", &tap, "--", "set", "Interface", &tap, "type=tap"])?;
        host.adopt(&tap)?;
        host.configure(&tap, address)?;
    }
    Ok(TapPeer { hosts, _running: ovs.running, _bridge: None })
}

/// A veth pair per namespace on a bridge of the kernel.
pub fn linux_bridge() -> Result<TapPeer> {
    let hosts = hosts()?;
    let bridge = Bridge(format!("bb{}", std::process::id()));
    run("ip", &["link", "add", &bridge.0, "type", "bridge"])?;
    run("ip", &["link", "set", &bridge.0, "up"])?;
    for (i, (host, address)) in hosts.iter().zip(ADDRESSES).enumerate() {
        let outer = format!("bv{}x{i}", std::process::id());
        run(
            "ip",
            &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &host.0],
        )?;
        run("ip", &["link", "set", &outer, "master", &bridge.0, "up"])?;
        host.configure("eth0", address)?;
    }
    Ok(TapPeer { hosts, _running: Vec::new(), _bridge: Some(bridge) })
}

struct Bridge(String);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.0]);
    }
}
