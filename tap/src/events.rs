//! Hears of interfaces that come, go or change (rtnetlink(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::namespace::{NamespaceError, in_namespace};

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// Opens a non-blocking socket that becomes readable when an interface of a namespace comes, goes
/// or changes; `None` for the current namespace. The socket keeps the namespace alive.
///
/// # Errors
/// The namespace cannot be entered, or there is no such socket.
pub fn link_events(netns: Option<&str>) -> Result<OwnedFd, NamespaceError> {
    let opened = || {
        open().map_err(|error| NamespaceError {
            step: "open a netlink socket".to_owned(),
            error,
            remedy: "allow the address family AF_NETLINK",
        })
    };
    match netns {
        None => opened(),
        Some(netns) => in_namespace(netns, opened).map(|(socket, _)| socket),
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, LINKS))?;
    Ok(socket)
}
