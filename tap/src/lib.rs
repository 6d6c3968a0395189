//! TAP devices and interfaces of Linux, in any network namespace.
//!
//! A process with the privilege opens a device here and passes its descriptor to the daemon: the
//! helper, or a client (`tramactl attach`, the plug-in of a container engine) with the rights of
//! its caller. Nothing here moves frames.
#![expect(unsafe_code, reason = "ioctls")]

mod apart;
mod events;
mod identify;
mod link;
mod namespace;
mod netlink;
mod open;
mod request;
mod route;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use trama_frame::{MacAddr, Offloads};

pub use apart::{add_apart, open_apart, open_down};
pub use events::link_events;
pub use identify::{HandedTap, NotATap, identify};
pub use link::Link;
pub use namespace::{NamespaceError, NamespaceId, in_namespace};
pub use open::{TapError, open};
pub use route::Route;

/// Options of a TAP device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapOptions {
    /// Its name (1 to 15 bytes).
    pub ifname: String,
    /// The network namespace to create it in: a name below `/run/netns`, or an absolute path;
    /// `None` for the current one.
    pub netns: Option<String>,
    /// Addresses with prefix lengths for the host's side.
    pub address: Vec<(IpAddr, u8)>,
    /// The interface's MTU in bytes.
    pub mtu: u16,
    /// The interface's MAC address; if `None`, the kernel draws one. A persistent device keeps its
    /// own.
    pub mac: Option<MacAddr>,
    /// Whether frames carry a virtio-net header, so that large segments and partial checksums pass
    /// through. True unless the other side cannot take it.
    pub vnet_header: bool,
    /// Whether a device that exists is not taken.
    pub must_be_new: bool,
}

/// A TAP device that is open, for the process that uses it.
#[derive(Debug)]
pub struct TapParts {
    /// The device.
    pub fd: OwnedFd,
    /// Offloads that the kernel takes; none without the header.
    pub offloads: Offloads,
    /// Whether frames carry a virtio-net header.
    pub vnet_header: bool,
    /// The namespace that it was created in, if one was stated.
    pub namespace: Option<NamespaceId>,
}

impl TapParts {
    /// Checks that the descriptor is a TAP device with or without a header, as these parts say.
    ///
    /// # Errors
    /// It is something else.
    pub fn check(&self) -> io::Result<()> {
        open::check(&self.fd, self.vnet_header)
    }
}
