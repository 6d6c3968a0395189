//! Individual frames: at a TAP port, including tags, and at the interface of a namespace.
//!
//! The switch holds the descriptor of its TAP; the other end is a network interface. A kernel
//! bridge without VLAN filtering joins that interface to a plain TAP, whose descriptor the test
//! holds. So the test sends and receives exactly the frames on the port.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tun_tap::{Iface, Mode};

use crate::host::Host;
use crate::netns::Netns;
use crate::process::unique;

/// The test's end of a plain TAP in a namespace.
pub struct RawTap {
    pub(crate) tap: Arc<Iface>,
    pub(crate) frames: Receiver<Vec<u8>>,
}

impl RawTap {
    /// Bridges a new plain TAP in `netns` with the existing `interface`.
    #[track_caller]
    pub fn bridge(netns: &Netns, interface: &str) -> RawTap {
        let number = unique();
        let (plain, bridge) = (format!("plain{number}"), format!("br{number}"));
        let raw = RawTap::device(netns, &plain);
        netns.run(&format!(
            "ip link add {bridge} type bridge mcast_snooping 0 && \
             for i in {plain} {interface}; do ip link set $i up master {bridge} || exit; done && \
             ip link set {bridge} up"
        ));
        raw
    }

    /// Creates a plain TAP as an interface of the namespace. It has no offloads, so that no frame
    /// exceeds the MTU and every checksum is complete.
    #[track_caller]
    pub fn device(netns: &Netns, name: &str) -> RawTap {
        let tap = Arc::new(open_inside(netns, name));
        let frames = read_frames(tap.clone());
        RawTap { tap, frames }
    }

    /// Sends one frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = self.tap.send(frame).expect("write a frame to the TAP");
        assert_eq!(sent, frame.len());
    }

    /// Returns the next frame that `wanted` accepts, and skips others; `None` after `limit`.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.frames.recv_timeout(left).ok()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

/// Reads on a thread, which ends when the namespace and thus the interface is deleted.
fn read_frames(tap: Arc<Iface>) -> Receiver<Vec<u8>> {
    let (sender, frames) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_600];
        while let Ok(length) = tap.recv(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    frames
}

/// Opens a TAP in a namespace. A thread enters it and ends; the descriptor keeps working.
#[track_caller]
fn open_inside(netns: &Netns, name: &str) -> Iface {
    let name = name.to_owned();
    let opener = netns
        .inside(move || Iface::without_packet_info(&name, Mode::Tap).expect("open a plain TAP"));
    opener.join().expect("the TAP's opener")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_frame_crosses_unchanged() {
        let netns = Netns::new("raw");
        netns.run("ip link add left type veth peer name right && ip link set right up");
        let (a, b) = (RawTap::bridge(&netns, "left"), RawTap::bridge(&netns, "right"));
        let mut frame = vec![0xff; 6];
        frame.extend([0x52, 0x54, 0, 0, 0, 1, 0x81, 0x00, 0x60, 0x0a, 0x88, 0xb5]);
        frame.extend([7; 60]);
        // A new bridge port may take a moment to forward.
        let seen = crate::wait_until("the frame arrives", Duration::from_secs(10), || {
            a.send(&frame);
            b.receive(Duration::from_millis(50), |bytes| bytes[12..14] == [0x81, 0x00])
        });
        assert_eq!(seen, frame);
    }
}
