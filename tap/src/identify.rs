//! What a descriptor is that another process has opened.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::TapParts;
use crate::open::{disable_offloads, enable_offloads};
use crate::request::{ioctl, request};

/// A TAP device that was handed over.
#[derive(Debug)]
pub struct HandedTap {
    /// The device's name in its namespace, when it was looked at.
    pub ifname: String,
    /// The device, ready for the switch.
    pub parts: TapParts,
}

/// Why a descriptor is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotATap {
    /// It is something else.
    #[error("the descriptor is neither a TAP nor a socket")]
    Other,
    /// It is a TUN device, without Ethernet headers.
    #[error(
        "the descriptor is a TUN device, whose packets have no Ethernet header; open it as TAP"
    )]
    Tun,
    /// Each frame begins with four bytes of packet information.
    #[error("the TAP adds packet information to each frame; open it with IFF_NO_PI")]
    PacketInfo,
    /// It is not attached to a device.
    #[error("the descriptor is /dev/net/tun without a device; attach it with TUNSETIFF")]
    NoDevice,
    /// The kernel refuses what the switch needs.
    #[error("the TAP cannot be set up: {0}")]
    SetUp(String),
}

/// Looks at a descriptor, and prepares the TAP that it is for the switch: non-blocking, and with as
/// many offloads as it takes.
///
/// # Errors
/// It is not a TAP, or one that the switch cannot use.
pub fn identify(fd: OwnedFd) -> Result<HandedTap, NotATap> {
    let mut found = request("");
    if let Err(error) = ioctl(&fd, libc::TUNGETIFF, &mut found) {
        return Err(match error.raw_os_error() {
            Some(libc::EBADFD) => NotATap::NoDevice,
            _ => NotATap::Other,
        });
    }
    // SAFETY: the request that succeeded wrote this field.
    let flags = i32::from(unsafe { found.ifr_ifru.ifru_flags });
    let has = |flag: i32| flags & flag != 0;
    if !has(libc::IFF_TAP) {
        return Err(NotATap::Tun);
    }
    if !has(libc::IFF_NO_PI) {
        return Err(NotATap::PacketInfo);
    }
    let set_up = |error: &dyn fmt::Display| NotATap::SetUp(error.to_string());
    fcntl_getfl(&fd)
        .and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
        .map_err(|error| set_up(&io::Error::from(error)))?;
    let vnet_header = has(libc::IFF_VNET_HDR);
    let offloads = if vnet_header { enable_offloads(&fd) } else { disable_offloads(&fd) };
    let offloads = offloads.map_err(|failure| set_up(&failure))?;
    let name = found.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8);
    let ifname = String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned();
    Ok(HandedTap { ifname, parts: TapParts { fd, offloads, vnet_header, namespace: None } })
}
