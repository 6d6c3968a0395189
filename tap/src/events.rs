//! Hears of interfaces that come, go or change (rtnetlink(7)).

use std::os::fd::OwnedFd;

use rustix::net::SocketFlags;

use crate::namespace::{NamespaceError, in_namespace};
use crate::netlink;

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// Opens a non-blocking socket that becomes readable when an interface of a namespace comes, goes
/// or changes; `None` for the current namespace. The socket keeps the namespace alive.
///
/// # Errors
/// The namespace cannot be entered, or there is no such socket.
pub fn link_events(netns: Option<&str>) -> Result<OwnedFd, NamespaceError> {
    let opened = || {
        netlink::open(SocketFlags::NONBLOCK, LINKS).map_err(|error| NamespaceError {
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
