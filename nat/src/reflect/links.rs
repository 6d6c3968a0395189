//! The host's links with service discovery: interfaces that are up and support multicast, without
//! loopback and point-to-point links.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use nix::libc::{
    AF_INET, AF_INET6, IFF_LOOPBACK, IFF_MULTICAST, IFF_POINTOPOINT, IFF_UP, IFLA_IFNAME,
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR,
    RTM_NEWLINK,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Most links in use.
const MAX_LINKS: usize = 16;
/// The most that the kernel puts into one datagram of a dump.
const MAX_DATAGRAM: usize = 32 << 10;
/// `struct nlmsghdr`, `struct ifinfomsg`, `struct ifaddrmsg`, `struct rtattr`.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ATTRIBUTE: usize = 4;

/// A link of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// Whether it has an address of this IP version.
    pub has_v4: bool,
    pub has_v6: bool,
}

/// The host's list of its links.
pub(super) struct Links {
    /// A route socket (rtnetlink(7)), opened at the start: later the process may not open one.
    socket: Option<OwnedFd>,
}

impl Default for Links {
    fn default() -> Links {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is protocol 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None);
        Links { socket: socket.ok() }
    }
}

impl Links {
    /// The links that exist now; empty if the host does not list them.
    pub(super) fn scan(&self) -> Vec<Link> {
        let mut links = BTreeMap::new();
        let read = self.dump(RTM_GETLINK, |kind, body| {
            links.extend((kind == RTM_NEWLINK).then(|| link(body)).flatten());
        });
        let read = read.and_then(|()| {
            self.dump(RTM_GETADDR, |kind, body| {
                if kind == RTM_NEWADDR {
                    note_address(&mut links, body);
                }
            })
        });
        if read.is_err() {
            return Vec::new();
        }
        links.into_values().filter(|link| link.has_v4 || link.has_v6).take(MAX_LINKS).collect()
    }

    /// Passes the messages of a dump with their kinds to `each`.
    fn dump(&self, question: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        // What an earlier dump that failed has left.
        while recv(socket, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        send(socket, &request(question), SendFlags::empty())?;
        loop {
            // The kernel has the answer ready.
            let (length, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            let mut rest = &buffer[..length];
            while let Some((kind, body)) = message(rest) {
                match i32::from(kind) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(io::ErrorKind::Other.into()),
                    _ => each(kind, body),
                }
                rest = rest.get(padded(HEADER + body.len())..).unwrap_or_default();
            }
        }
    }
}

/// A request for all objects of a kind.
fn request(question: u16) -> [u8; HEADER + LINK] {
    let mut request = [0; HEADER + LINK];
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&question.to_ne_bytes());
    request[6..8].copy_from_slice(&((NLM_F_REQUEST | NLM_F_DUMP) as u16).to_ne_bytes());
    request
}

/// The kind and the body of the first message.
fn message(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let length = number(bytes, 0)? as usize;
    Some((half(bytes, 4)?, bytes.get(HEADER..length)?))
}

/// A link with service discovery, by its number.
fn link(body: &[u8]) -> Option<(u32, Link)> {
    let (index, flags) = (number(body, 4)?, number(body, 8)?);
    let is_set = |flag: i32| flags & flag as u32 != 0;
    if !(is_set(IFF_UP) && is_set(IFF_MULTICAST)) || is_set(IFF_LOOPBACK) || is_set(IFF_POINTOPOINT)
    {
        return None;
    }
    let name = name(body.get(LINK..)?)?;
    Some((index, Link { index, name, has_v4: false, has_v6: false }))
}

/// The name of a link, from its attributes.
fn name(mut attributes: &[u8]) -> Option<String> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        let value = attributes.get(ATTRIBUTE..length)?;
        if half(attributes, 2)? == IFLA_IFNAME {
            let text = value.split(|byte| *byte == 0).next()?;
            return String::from_utf8(text.to_vec()).ok();
        }
        attributes = attributes.get(padded(length)..)?;
    }
}

fn note_address(links: &mut BTreeMap<u32, Link>, body: &[u8]) {
    let (Some(family), Some(index)) = (body.first(), number(body, 4)) else { return };
    if let Some(link) = links.get_mut(&index).filter(|_| body.len() >= ADDRESS) {
        link.has_v4 |= i32::from(*family) == AF_INET;
        link.has_v6 |= i32::from(*family) == AF_INET6;
    }
}

/// Messages and attributes begin at multiples of four bytes.
fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use nix::ifaddrs::getifaddrs;
    use nix::net::if_::InterfaceFlags;

    use super::*;
    use crate::test_world::is_isolated;

    /// Links with an address of one version or the other, one without, one that is down.
    const SETUP: &str = "ip link add lan1 type veth peer name lan2
        ip link add lan3 type veth peer name lan4; conf=/proc/sys/net/ipv6/conf
        for name in lan1 lan3; do echo 1 > $conf/$name/disable_ipv6; done
        ip addr add 192.0.2.1/24 dev lan1; ip addr add 2001:db8::1/64 dev lan2
        ip addr add 192.0.2.9/24 dev lan4
        for name in lan1 lan2 lan3; do ip link set $name up; done";

    #[test]
    fn the_list_is_that_of_the_c_library() {
        if !is_isolated(SETUP) {
            return;
        }
        let mut expected = BTreeMap::<String, (bool, bool)>::new();
        for entry in getifaddrs().unwrap() {
            let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
            let Some(address) = entry.address else { continue };
            if entry.flags.contains(wanted) {
                let has = expected.entry(entry.interface_name).or_default();
                has.0 |= address.as_sockaddr_in().is_some();
                has.1 |= address.as_sockaddr_in6().is_some();
            }
        }
        expected.retain(|_, has| has.0 || has.1);
        let links = Links::default();
        for _ in 0..2 {
            let found = links.scan().into_iter();
            let found = found.map(|link| (link.name, (link.has_v4, link.has_v6)));
            assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
        }
        assert_eq!(expected.keys().collect::<Vec<_>>(), ["lan1", "lan2"]);
    }
}
