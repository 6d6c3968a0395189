//! A real virtual machine on the first port and a host on the second. Without hardware
//! acceleration, the machine's own rate is the ceiling.

use std::time::Duration;

use serde_json::Value;
use trama_tests::{FULL_KERNEL, Guest, GuestOptions, Host, Nic};
use trama_vhost_net_backend::Role;

use super::{Context, Measured, wait_for_reach};
use crate::cores::LOAD_CORE;
use crate::host::{Link, Namespace};
use crate::peers::End;
use crate::process::{Process, Result, pinned, run};
use crate::usage::Window;

const MAC: &str = "52:54:00:00:00:01";
/// A virtio device that QEMU serves itself.
const VIRTIO_ON_TAP: &str = "virtio-net-pci-non-transitional";
/// The machine's own TAP, and the bridge that connects it to the switch's TAP.
const MACHINE_TAP: &str = "machine0";
const BRIDGE: &str = "joint";
const START: Duration = Duration::from_secs(15);

/// Measures one TCP stream from the machine to the host, in bits a second.
///
/// On a vhost-user port or on its own TAP, the machine has a virtio device. A TAP of the switch is
/// bridged to the TAP of an emulated e1000, because the switch and QEMU each hold the descriptor of
/// their own TAP.
pub(super) fn tcp(context: &Context) -> Result<Measured> {
    let [port, End::Host(host)] = &context.switch.ends[..] else {
        return Err("this load needs a port for a virtual machine and a host".into());
    };
    let (nic, _links) = match port {
        End::Vhost { socket, backend_role: Role::Server } => (Nic::connecting(socket, MAC), None),
        End::Vhost { socket, .. } => (Nic::listening(socket, MAC), None),
        End::VmTap(tap) => (Nic::emulated(VIRTIO_ON_TAP, tap, MAC), None),
        End::Tap(tap) => (Nic::emulated("e1000", MACHINE_TAP, MAC), Some(bridge(tap)?)),
        End::Host(_) => return Err("a virtual machine cannot use the port of a namespace".into()),
    };
    // The same kernel for both devices.
    let options = GuestOptions { kernel: FULL_KERNEL, ..GuestOptions::new("bench", [nic]) };
    let guest = Guest::start(&options);
    guest.address(&format!("{}/24", Namespace::address(0)));
    wait_for_reach(host, &Namespace::address(0))?;
    let _server = serve(host)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let seconds = context.seconds;
    let command = format!("iperf3 -J -t {seconds} -O 1 -c {}", Namespace::address(1));
    let answer = guest.try_run_for(&command, Duration::from_secs(seconds + 30));
    let usage = window.close();
    Ok(Measured { usage, ..report(&answer.text)? })
}

/// Starts iperf3's server for one run: iperf3 is part of the machine's system.
fn serve(host: &Namespace) -> Result<Process> {
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &host.0, "iperf3", "-s", "-1", "--forceflush"]);
    let mut server = Process::spawn("iperf3 (server)", command)?;
    server.wait_for("Server listening", START)?;
    Ok(server)
}

/// Returns the received rate in a client's JSON report.
fn report(text: &str) -> Result<Measured> {
    let report: Value = serde_json::from_str(text).map_err(|e| format!("iperf3's report: {e}"))?;
    let end = &report["end"];
    let value = end["sum_received"]["bits_per_second"]
        .as_f64()
        .ok_or_else(|| format!("iperf3's report names no received rate: {}", report["error"]))?;
    let retransmits = end["sum_sent"]["retransmits"].as_f64().unwrap_or(0.0);
    let details = [("retransmits".to_owned(), retransmits)].into();
    Ok(Measured { value, details, ..Measured::default() })
}

/// Builds the machine's kernel and initramfs if they are missing.
pub(super) fn fetch_image() {
    trama_tests::guest::image(FULL_KERNEL);
}

/// Bridges the switch's TAP and the machine's.
fn bridge(tap: &str) -> Result<[Link; 2]> {
    let machine = Link::add_tap(MACHINE_TAP)?;
    let bridge = Link::add(BRIDGE, &["type", "bridge"])?;
    for device in [MACHINE_TAP, tap] {
        run("ip", &["link", "set", device, "master", BRIDGE, "up"])?;
    }
    Ok([machine, bridge])
}
