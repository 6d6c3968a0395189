//! A real virtual machine on the first port and a host on the second. The machine has no hardware
//! acceleration: what it can send is its own ceiling.

use std::time::Duration;

use trama_tests::{FULL_KERNEL, Guest, GuestOptions, Host, Nic};

use super::{Context, Measured, iperf};
use crate::host::{Link, Namespace};
use crate::peers::End;
use crate::process::{Result, run};
use crate::usage::Window;

const MAC: &str = "52:54:00:00:00:01";
/// A virtio device that QEMU serves itself.
const VIRTIO_ON_TAP: &str = "virtio-net-pci-non-transitional";
/// The machine's own TAP, and the bridge from it to the switch's.
const MACHINE_TAP: &str = "machine0";
const BRIDGE: &str = "joint";

/// One TCP stream from the machine to the host. The figure is bits a second.
///
/// On a vhost-user port the machine has a virtio device, and on a TAP that is its own one whose rings
/// QEMU serves. On a TAP of the switch's it has an emulated e1000, whose own TAP is bridged to that
/// one: both are the kernel's ends.
pub fn tcp(context: &Context) -> Result<Measured> {
    let [port, End::Host(host)] = &context.switch.ends[..] else {
        return Err("a port for a machine and a host are needed".into());
    };
    let (nic, _links) = match port {
        End::Vhost { socket, frontend_listens: false } => (Nic::connecting(socket, MAC), None),
        End::Vhost { socket, .. } => (Nic::listening(socket, MAC), None),
        End::Machine(tap) => (Nic::emulated(VIRTIO_ON_TAP, tap, MAC), None),
        End::Tap(tap) => (Nic::emulated("e1000", MACHINE_TAP, MAC), Some(bridge(tap)?)),
        End::Host(_) => return Err("a machine is no namespace's host".into()),
    };
    // The same kernel for both.
    let options = GuestOptions { kernel: FULL_KERNEL, ..GuestOptions::new("bench", [nic]) };
    let guest = Guest::start(&options);
    guest.address(&format!("{}/24", Namespace::address(0)));
    iperf::wait_for_reach(host, &Namespace::address(0))?;
    let _server = iperf::serve(Some(host), 5201)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let seconds = context.seconds;
    let command = format!("iperf3 -J -t {seconds} -O 1 -c {}", Namespace::address(1));
    let answer = guest.try_run_for(&command, Duration::from_secs(seconds + 30));
    let usage = window.close();
    Ok(Measured { usage, ..iperf::report(&answer.text)? })
}

/// Builds the machine's kernel and initramfs unless they are there.
pub fn fetch_image() {
    trama_tests::guest::image(FULL_KERNEL);
}

/// Joins the switch's TAP to the machine's.
fn bridge(tap: &str) -> Result<[Link; 2]> {
    let machine = Link::add_tap(MACHINE_TAP)?;
    let bridge = Link::add(BRIDGE, &["type", "bridge"])?;
    for device in [MACHINE_TAP, tap] {
        run("ip", &["link", "set", device, "master", BRIDGE, "up"])?;
    }
    Ok([machine, bridge])
}
