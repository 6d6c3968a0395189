//! DPDK's own forwarder without any lookup: DPDK's cost of moving a frame between vhost devices.

use trama_vhost_net_backend::Role;

use super::{End, Peer, Port, START, Setup, Switch};
use crate::cores::LOAD_CORE;
use crate::process::{Process, Result, unpinned};
use crate::program::Program;

/// testpmd; the generator is another instance of it.
pub(crate) const TESTPMD: Program = Program::new("dpdk-testpmd", "dpdk-dev");

/// See the module.
pub(crate) const DPDK_IO: Peer = Peer {
    name: "dpdk-io",
    about: "DPDK testpmd, io forwarding between pairs of vhost devices: no look-up",
    programs: &[TESTPMD],
    hugepages: true,
    start,
};

fn start(setup: &Setup) -> Result<Switch> {
    if !setup.all(Port::Vhost) || setup.ports.len() % 2 == 1 {
        return setup.refuse(&DPDK_IO);
    }
    // Line-buffered: its output is a pipe here.
    let mut command = unpinned("stdbuf");
    command.args(["-oL", "dpdk-testpmd", "-l", &format!("{},{LOAD_CORE}", setup.core)]);
    command.args(["--main-lcore", &LOAD_CORE.to_string(), "--no-pci", "-m", "512"]);
    command.args(["--huge-dir", setup.huge, "--file-prefix", "bench-io"]);
    let mut ends = Vec::new();
    for number in 0..setup.ports.len() {
        let socket = setup.socket(number);
        command.arg(format!("--vdev=net_vhost{number},iface={}", socket.display()));
        ends.push(End::Vhost { socket, backend_role: Role::Server });
    }
    command.args(["--", "-i", "--forward-mode=io", "--nb-cores=1", "--no-mlockall"]);
    command.args(["--txd=1024", "--rxd=1024"]);
    if setup.mtu > 1500 {
        // One buffer holds a whole frame: chains of buffers would be slower.
        command.args(["--mbuf-size=9728", "--total-num-mbufs=24576"]);
    }
    let mut forwarder = Process::spawn("dpdk-testpmd (io)", command)?;
    forwarder.wait_for("Checking link statuses", START)?;
    forwarder.send_line("start")?;
    Ok(Switch::of(vec![forwarder], ends))
}
