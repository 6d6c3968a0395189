//! A TAP device for a namespace that belongs to others, such as a container's.
//!
//! An open TAP keeps the namespace alive in which its descriptor was opened. A container's would so
//! outlive the container, with the device in it, as long as the switch holds the descriptor. So the
//! descriptor is opened in a namespace of its own, and only the device is moved: it ends with the
//! container's namespace, and the switch reads that from the descriptor.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::namespace::in_namespace;
use crate::netlink::{attribute, request};
use crate::open::{Failure, configure, make, named};
use crate::route::{Route, add_address, add_route};
use crate::{Link, TapError, TapOptions, TapParts, namespace};

/// The caller's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes a device in the stated namespace, or the current one, and sets it up, with these routes;
/// also returns what it is then. It ends with its descriptor, or with the namespace.
///
/// # Errors
/// The device cannot be made or set up, and nothing is left; the error names the step and the
/// remedy.
pub fn open_apart(options: &TapOptions, routes: &[Route]) -> Result<(TapParts, Link), TapError> {
    make_with(options, || {
        configure(&TapOptions { address: Vec::new(), ..options.clone() }, false)?;
        add(&options.ifname, &options.address, routes)
    })
}

/// Makes a device in the stated namespace, or the current one, for another program to move and to
/// set up: it is down there, without addresses. Also returns what it is then.
///
/// # Errors
/// As [`open_apart`].
pub fn open_down(options: &TapOptions) -> Result<(TapParts, Link), TapError> {
    // The kernel takes a device down that it moves.
    make_with(&TapOptions { address: Vec::new(), ..options.clone() }, || Ok(()))
}

/// Makes a device in its namespace, and has it set up there.
fn make_with(
    options: &TapOptions,
    set_up: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(TapParts, Link), TapError> {
    let made = namespace::open(options.netns.as_deref().unwrap_or(OWN))
        .map_err(Failure::from)
        .and_then(|(target, _)| {
            namespace::on_thread(|| {
                let parts = make_and_move(options, &target)?;
                set_up()?;
                let failed = |error| Failure::new("look at the device", error, "");
                let link = Link::query(&options.ifname).map_err(failed)?;
                Ok((parts, link))
            })
        });
    named(&options.ifname, made)
}

/// Makes a device; this thread is in the device's namespace then.
fn make_and_move(options: &TapOptions, target: &File) -> Result<TapParts, Failure> {
    let failed =
        |step: &'static str, remedy| move |error: io::Error| Failure::new(step, error, remedy);
    // SAFETY: this thread gets a network namespace of its own, and ends soon; it shares all else.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
        let remedy =
            "run as root, or within the user namespace that the network namespace belongs to";
        failed("make a namespace for the descriptor", remedy)(error.into())
    })?;
    let parts = make(options)?;
    let index = Link::query(&options.ifname).map_err(failed("find the device", ""))?.index;
    move_link(index, target).map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EEXIST) => "the namespace has an interface of that name; choose another",
            Some(libc::EPERM) => "run with CAP_NET_ADMIN in that namespace",
            _ => "",
        };
        failed("move it into its namespace", remedy)(error)
    })?;
    move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed("enter its namespace", "run with CAP_SYS_ADMIN")(error.into()))?;
    Ok(parts)
}

/// Adds addresses with their prefix lengths, and then routes, to a device in the stated namespace,
/// or the current one.
///
/// # Errors
/// One of them cannot be added; the error names it. Those before it stay.
pub fn add_apart(
    ifname: &str,
    netns: Option<&str>,
    addresses: &[(IpAddr, u8)],
    routes: &[Route],
) -> Result<(), TapError> {
    let added = in_namespace(netns.unwrap_or(OWN), || add(ifname, addresses, routes));
    named(ifname, added).map(|((), _)| ())
}

fn add(ifname: &str, addresses: &[(IpAddr, u8)], routes: &[Route]) -> Result<(), Failure> {
    for (address, length) in addresses {
        add_address(*address, *length, ifname)
            .map_err(|error| Failure::new(format!("add address {address}/{length}"), error, ""))?;
    }
    for route in routes {
        add_route(route, ifname).map_err(|error| {
            let step = match route.gateway {
                Some(gateway) if route.destination.prefix_len() == 0 => {
                    format!("add the default route by {gateway}")
                }
                Some(gateway) => format!("add the route to {} by {gateway}", route.destination),
                None => format!("add the route to {}", route.destination),
            };
            let remedy = match error.raw_os_error() {
                Some(libc::EEXIST) => "the namespace has such a route; leave it out",
                _ => "give an --address in whose subnet the gateway is",
            };
            Failure::new(step, error, remedy)
        })?;
    }
    Ok(())
}

/// `RTM_NEWLINK` of an interface that exists changes it.
const RTM_NEWLINK: u16 = 16;
const IFLA_NET_NS_FD: u16 = 28;

/// Moves an interface of the current namespace into another one.
fn move_link(index: i32, target: &File) -> io::Result<()> {
    // struct ifinfomsg: family, type, interface, flags, changed flags.
    let mut body = [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
    body.extend(attribute(IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes()));
    request(RTM_NEWLINK, 0, &body)
}
