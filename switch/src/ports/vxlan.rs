//! A tunnel as a port: each frame in a datagram of VXLAN (RFC 7348) to one other host.
//!
//! ```text
//!  worker                                   a VTEP: one local address and UDP port
//!  Vxlan ──▶ 8 sending sockets ──▶ remote   Vtep ◀── receiving socket ◀── any remote
//!  (a port of a network)                     │ VNI, outer source address
//!                                            ├──▶ port on this worker: switched as a burst of it
//!                                            └──▶ port on another: handed to that worker's Vtep
//! ```
//!
//! Frames are copied flat into the memory of a sending socket, which the flow chooses, so that each
//! flow keeps its order and its outer source port. A run of datagrams of equal length leaves with
//! one system call (`UDP_SEGMENT`); a shorter one ends the run. Frames leave complete, and arrive
//! without offloads.
//!
//! All tunnels of a VTEP receive by one socket ([`Vtep`]), which one worker reads. It is a port of
//! the engine that no network has. The kernel's outer checksums are always on.

mod inbox;
mod losses;
mod mailbox;
mod toward;
mod tunnels;
mod vtep;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use trama_frame::vnet::LEN as HEADER;
use trama_frame::vxlan::{self, Vni};
use trama_virtqueue::Segment;

use super::messages::{Address, Messages};
use super::{Sink, Slots, Unsent};
use crate::drop_reason::DropReason;
use crate::flow::FlowHasher;
pub(crate) use inbox::Inbox;
pub(crate) use losses::Losses;
pub use mailbox::VtepMailbox;
pub(crate) use toward::Toward;
pub use toward::Tunnel;
pub use tunnels::Tunnels;
pub use vtep::Vtep;

/// Most bytes that leave with one call. With the outer headers of IPv6 (62 bytes with Ethernet's)
/// they are shorter than 64 KiB: the kernel cuts what is not before it reaches the device.
const MOST_BYTES: usize = 65_473;
/// Most datagrams that leave with one call. The kernel takes 64 or more (`UDP_MAX_SEGMENTS`).
const MOST_SEGMENTS: usize = 64;

/// The device of a tunnel's port. It only sends; a [`Vtep`] receives.
pub struct Vxlan {
    header: [u8; vxlan::LEN],
    to: Address,
    senders: Box<[Sender]>,
    hasher: FlowHasher,
    messages: Messages,
    unsent: Unsent,
    send_error: Option<i32>,
}

impl Vxlan {
    /// Makes one that sends to `remote` by these non-blocking UDP sockets, at least one, which must
    /// not fragment (`IP_MTU_DISCOVER`).
    pub fn new(vni: Vni, remote: SocketAddr, sockets: Vec<OwnedFd>) -> Vxlan {
        Vxlan {
            header: vxlan::header(vni),
            to: remote.into(),
            senders: sockets.into_iter().map(Sender::new).collect(),
            hasher: FlowHasher::default(),
            messages: Messages::of_segments(1),
            unsent: Unsent::default(),
            send_error: None,
        }
    }

    /// Returns the operating system's error of the last frame that was not sent, by number.
    pub(crate) fn send_error(&self) -> Option<i32> {
        self.send_error
    }

    /// Adds a frame of `len` bytes, which `write` writes, to the run of its flow's socket.
    #[inline(always)]
    fn insert(
        &mut self,
        head: &[u8],
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let len = vxlan::LEN + len;
        if len > MOST_BYTES {
            return Err(DropReason::TunnelMtu);
        }
        let place = self.hasher.ring_for(head, self.senders.len());
        if !self.senders[place].run.takes(len) {
            self.send(place);
        }
        self.senders[place].push(&self.header, len, write);
        Ok(())
    }

    /// Sends the run that waits at a socket.
    fn send(&mut self, place: usize) {
        let sender = &mut self.senders[place];
        let run = std::mem::take(&mut sender.run);
        let (socket, to, bytes) = (sender.socket.as_fd(), &self.to, &sender.bytes[..run.len]);
        let whole = match run.count {
            0 => return,
            1 => Err(libc::EINVAL),
            _ => self
                .messages
                .send_segments(socket, to, bytes, run.segment as u16)
                .map_err(|error| error.raw_os_error().unwrap_or_default()),
        };
        match whole {
            Ok(()) => {}
            // Too long for the path, or a device that cannot. Each is tried by itself.
            Err(libc::EINVAL | libc::EMSGSIZE | libc::EIO) => {
                for datagram in bytes.chunks(run.segment) {
                    let sent = self.messages.send(socket, to, [datagram].into_iter());
                    if let Err(error) = sent {
                        let error = error.raw_os_error().unwrap_or_default();
                        self.send_error = Some(error);
                        self.unsent.add(reason(error), datagram.len() - vxlan::LEN, false);
                    }
                }
            }
            Err(error) => {
                self.send_error = Some(error);
                for datagram in bytes.chunks(run.segment) {
                    self.unsent.add(reason(error), datagram.len() - vxlan::LEN, false);
                }
            }
        }
    }
}

/// Why a frame is dropped that the kernel refused with this error.
fn reason(error: i32) -> DropReason {
    match error {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::EgressFull,
        libc::EMSGSIZE => DropReason::TunnelMtu,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => {
            DropReason::TunnelNoRoute
        }
        _ => DropReason::DeviceError,
    }
}

impl Sink for Vxlan {
    fn put(
        &mut self,
        _: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
        self.insert(head, len, |room| {
            room[..head.len()].copy_from_slice(head);
            let mut filled = head.len();
            for segment in body {
                filled += segment.copy_to(&mut room[filled..]);
            }
        })
    }

    fn slots(&mut self) -> Option<&mut dyn Slots> {
        Some(self)
    }

    fn finish(&mut self) -> Unsent {
        (0..self.senders.len()).for_each(|place| self.send(place));
        std::mem::take(&mut self.unsent)
    }
}

impl Slots for Vxlan {
    fn put_with(
        &mut self,
        head: &[u8],
        len: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        self.insert(head, len, write)
    }
}

/// A socket and the run that waits for it.
struct Sender {
    socket: OwnedFd,
    bytes: Box<[u8]>,
    run: Run,
}

/// Datagrams one after the other: all of the first one's length, but the last may be shorter.
#[derive(Clone, Copy, Default)]
struct Run {
    segment: usize,
    count: usize,
    len: usize,
}

impl Run {
    fn takes(&self, len: usize) -> bool {
        let is_ended = self.len != self.segment * self.count;
        self.count == 0
            || !is_ended
                && len <= self.segment
                && self.count < MOST_SEGMENTS
                && self.len + len <= MOST_BYTES
    }

    fn add(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.count += 1;
        self.len += len;
    }
}

impl Sender {
    fn new(socket: OwnedFd) -> Sender {
        let bytes = vec![0; MOST_BYTES].into_boxed_slice();
        Sender { socket, bytes, run: Run::default() }
    }

    /// Appends a datagram of `len` bytes, which the run takes; `write` writes what is behind the
    /// header.
    fn push(&mut self, header: &[u8; vxlan::LEN], len: usize, write: impl FnOnce(&mut [u8])) {
        let room = &mut self.bytes[self.run.len..][..len];
        room[..vxlan::LEN].copy_from_slice(header);
        write(&mut room[vxlan::LEN..]);
        self.run.add(len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Cutting a run as the kernel does gives back what was put into it.
        #[test]
        fn a_run_is_cut_into_what_was_put(lens in prop::collection::vec(1..3000usize, 1..200)) {
            let mut run = Run::default();
            let mut put: Vec<usize> = Vec::new();
            let check = |run: &Run, put: &[usize]| {
                let bytes = vec![0u8; run.len];
                let cut: Vec<usize> = bytes.chunks(run.segment).map(<[u8]>::len).collect();
                prop_assert_eq!(&cut, put);
                prop_assert!(run.count <= MOST_SEGMENTS && run.len <= MOST_BYTES);
                Ok(())
            };
            for len in lens {
                if !run.takes(len) {
                    check(&run, &put)?;
                    run = Run::default();
                    put.clear();
                }
                run.add(len);
                put.push(len);
            }
            check(&run, &put)?;
        }
    }
}
