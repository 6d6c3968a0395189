//! An interface of the host, or of a namespace, as a port: the uplink of a bridged network, or any
//! that joins by itself.
//!
//! A packet socket receives everything that the interface receives and that the host sends through
//! it, and sends frames through it. Received frames come in a ring that the kernel fills
//! (TPACKET_V2, whose slots hold the largest frames whole; version 3 would wait for a block to
//! fill) and go from their slot straight into the receiver's memory. Sent frames leave from the
//! sender's memory, a burst with one system call. Both directions carry the virtio-net header, so
//! large segments and partial checksums pass unchanged.
//!
//! The socket cannot pass frames to the interface's own host; `to_host` does that.
#![expect(unsafe_code, reason = "a ring shared with the kernel, vectored I/O on raw segments, BPF")]

mod burst;
mod option;
mod outbox;
mod setup;
mod slot;
mod take_over;
mod to_host;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use trama_frame::vnet::LEN as HEADER;
use trama_frame::{MacAddr, Offloads};
use trama_tap::NamespaceId;
use trama_virtqueue::Segment;

use super::{Sink, Unsent, Watched, Watcher};
use crate::drop_reason::DropReason;
use burst::Ring;
pub(crate) use burst::SlotBurst;
use outbox::Outbox;
pub use setup::UplinkError;

/// How often a port that never sleeps checks that its interface still exists.
const LINK_CHECK_POLLS: u32 = 1 << 16;

/// What another process needs to use an interface that this one has joined. The interface is
/// restored when the descriptors are closed.
#[derive(Debug)]
pub struct UplinkParts {
    /// The packet socket, bound, with its receive ring.
    pub socket: OwnedFd,
    /// The attachment of the program that passes frames to the interface's own host, or the reason
    /// why there is none.
    pub to_host: Result<OwnedFd, String>,
    /// Length of the virtio-net header that the socket takes, in bytes.
    pub header: usize,
    /// Offloads that the kernel takes.
    pub offloads: Offloads,
    /// The interface's own MAC address.
    pub mac: MacAddr,
    /// The namespace that it was found in, if one was stated.
    pub namespace: Option<NamespaceId>,
}

/// Which interface is joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UplinkOptions {
    /// Its name.
    pub ifname: String,
    /// The network namespace to find it in: a name below `/run/netns`, or an absolute path; `None`
    /// for the current one.
    pub netns: Option<String>,
    /// The largest packet in bytes that it must carry.
    pub mtu: u16,
}

impl UplinkParts {
    /// Joins an interface, which must be up.
    ///
    /// # Errors
    /// The interface does not exist or cannot be used, or the process lacks the privileges.
    pub fn open(options: &UplinkOptions) -> Result<UplinkParts, UplinkError> {
        setup::open(options)
    }
}

/// A joined interface; restored when this is dropped.
pub struct Uplink {
    fd: OwnedFd,
    ring: Ring,
    outbox: Outbox,
    offloads: Offloads,
    mac: MacAddr,
    namespace: Option<NamespaceId>,
    /// Keeps the program that passes frames to the interface's host, or the reason why there is
    /// none.
    to_host: Result<OwnedFd, String>,
    /// Whether the interface is down or was deleted.
    gone: bool,
    idle_polls: u32,
    pub(super) watched: Option<Watched>,
}

impl Uplink {
    /// Takes over an interface that another process has joined, and maps its receive ring. If that
    /// process was killed, frames that it had not released come first; those that it was delivering
    /// come again. Two readers at a time would take each other's frames.
    ///
    /// # Errors
    /// The socket has no such ring.
    pub fn from_parts(parts: UplinkParts) -> io::Result<Uplink> {
        let UplinkParts { socket, to_host, header, offloads, mac, namespace } = parts;
        if !setup::HEADERS.contains(&header) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let ring = setup::map_ring(&socket)?;
        let outbox = Outbox::new(header);
        Ok(Uplink {
            fd: socket,
            ring,
            outbox,
            offloads,
            mac,
            namespace,
            to_host,
            gone: false,
            idle_polls: 0,
            watched: None,
        })
    }

    /// Returns the interface's own MAC address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Returns the namespace that it was found in, if one was stated. The socket keeps that alive
    /// when its name is deleted.
    pub fn namespace(&self) -> Option<NamespaceId> {
        self.namespace
    }

    /// Returns why no frames reach the interface's own host, if they do not.
    pub fn to_host_fault(&self) -> Option<&str> {
        self.to_host.as_ref().err().map(String::as_str)
    }

    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(crate) fn take_holes(&mut self) -> u64 {
        self.outbox.take_holes()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watched = Some(watcher.watch(self.fd.try_clone()?)?);
        Ok(())
    }

    /// Checks that the interface still exists; returns `false` if it went away.
    pub(crate) fn arm(&mut self) -> bool {
        self.idle_polls = 0;
        // The kernel keeps this error after the interface went down or away.
        if !matches!(rustix::net::sockopt::socket_error(&self.fd), Ok(Ok(()))) {
            self.gone = true;
        }
        !self.gone
    }

    /// Fills `burst` with frames, which stay in place until [`Uplink::release`].
    pub(crate) fn fetch(&mut self, burst: &mut SlotBurst) {
        self.ring.fetch(burst);
        if burst.is_empty() {
            self.idle_polls += 1;
            if self.idle_polls == LINK_CHECK_POLLS {
                self.arm();
            }
        }
    }

    /// Returns the slots of a burst to the kernel.
    pub(crate) fn release(&mut self, burst: &mut SlotBurst) {
        self.ring.release(burst);
    }
}

impl Sink for Uplink {
    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        self.outbox.put(self.fd.as_raw_fd(), header, head, body)
    }

    fn finish(&mut self) -> Unsent {
        let unsent = self.outbox.send(self.fd.as_raw_fd());
        self.gone |= self.outbox.is_gone();
        unsent
    }
}
