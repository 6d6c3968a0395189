//! The routes in all tables of the host (rtnetlink(7)). A VPN with policy rules has its routes in a
//! table that `/proc/net/route` does not show.

mod above;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

pub(crate) use above::above;

/// A route by which the host forwards or refuses packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The destination.
    pub destination: IpNet,
    /// The interface; `None` if packets are refused. A route with several next hops counts as
    /// several routes.
    pub interface: Option<String>,
    /// The number of its routing table.
    pub table: u32,
}

/// The table used where no rule names another (`RT_TABLE_MAIN`).
pub(crate) const MAIN: u32 = 254;
/// The table after the main one (`RT_TABLE_DEFAULT`).
const DEFAULT: u32 = 253;

/// Written as `ip route` writes it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(interface) = &self.interface {
            write!(f, " dev {interface}")?;
        }
        match self.table {
            MAIN => f.write_str(" table main"),
            DEFAULT => f.write_str(" table default"),
            number => write!(f, " table {number}"),
        }
    }
}

/// Returns all routes except those of the host's own addresses, broadcast and multicast.
///
/// # Errors
/// The kernel does not answer the request.
pub(crate) fn of_host() -> io::Result<Vec<Route>> {
    let mut routes = Vec::new();
    dump(RTM_GETROUTE, BODY, |socket, message| {
        if message.kind == RTM_NEWROUTE {
            routes.extend(message.routes(&|index| name_of(socket, index)));
        }
    })?;
    Ok(routes)
}

/// Asks for all objects of a kind, and shows each message of the answer. `body` is the length of a
/// request's body, which is all zeros: of every family.
fn dump(kind: u16, body: usize, mut each: impl FnMut(&OwnedFd, &Message<'_>)) -> io::Result<()> {
    let socket = open()?;
    send(&socket, &request(kind, body), SendFlags::empty())?;
    // The most that the kernel puts into one datagram of a dump.
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((message, next)) = Message::first(rest) {
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(()),
                _ => each(&socket, &message),
            }
            rest = next;
        }
    }
}

/// Returns whether the host has an interface of this name.
pub(crate) fn has_interface(name: &str) -> bool {
    open().is_ok_and(|socket| name_to_index(&socket, name).is_ok())
}

fn open() -> io::Result<OwnedFd> {
    // NETLINK_ROUTE is protocol 0.
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    Ok(socket_with(family, SocketType::RAW, flags, None)?)
}

fn name_of(socket: &OwnedFd, index: u32) -> Option<String> {
    index_to_name(socket, index).ok()
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct rtmsg`.
const BODY: usize = 12;

/// Returns a request with a body of zeros.
fn request(kind: u16, body: usize) -> Vec<u8> {
    let mut request = vec![0; HEADER + body];
    request[..4].copy_from_slice(&((HEADER + body) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request
}

/// A message of a dump.
struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits the first message off `bytes`.
    fn first(bytes: &'a [u8]) -> Option<(Message<'a>, &'a [u8])> {
        let length = number(bytes.get(..4)?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        Some((Message { kind, body }, after(bytes, length)))
    }

    /// Returns the message's routes, one for each next hop, if it is of a kind in [`LEADING`].
    fn routes(&self, name: &dyn Fn(u32) -> Option<String>) -> Vec<Route> {
        let Some((first, attributes)) = self.route() else { return Vec::new() };
        match attributes.interfaces.as_slice() {
            [] => vec![first],
            several => {
                let by = |index: &u32| Route { interface: name(*index), ..first.clone() };
                several.iter().map(by).collect()
            }
        }
    }

    /// Returns the message's route without its interfaces.
    fn route(&self) -> Option<(Route, Attributes)> {
        let &[family, prefix, _, _, table, _, _, kind, ..] = self.body else { return None };
        let flags = number(self.body.get(8..BODY)?);
        if !LEADING.contains(&kind) || flags & RTM_F_CLONED != 0 {
            return None;
        }
        let mut attributes = Attributes::default();
        attributes.read(self.body.get(BODY..)?);
        let destination = attributes.destination.unwrap_or(unspecified(family)?);
        let destination = IpNet::new(destination, prefix).ok()?;
        let table = attributes.table.unwrap_or(table.into());
        Some((Route { destination, interface: None, table }, attributes))
    }
}

/// `RTN_UNICAST`, and the types that refuse packets: blackhole, unreachable, prohibit. The others
/// are the host's own addresses, broadcast and multicast, and `throw`, which asks the next table.
const LEADING: [u8; 4] = [1, 6, 7, 8];
/// Marks a cache entry of path MTU discovery, which is not a route.
const RTM_F_CLONED: u32 = 0x200;

#[derive(Default)]
struct Attributes {
    destination: Option<IpAddr>,
    interfaces: Vec<u32>,
    table: Option<u32>,
}

impl Attributes {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((kind, value, next)) = attribute(bytes) {
            match kind {
                RTA_DST => self.destination = address(value),
                RTA_OIF => self.interfaces.extend(value.get(..4).map(number)),
                RTA_MULTIPATH => self.read_next_hops(value),
                RTA_TABLE => self.table = value.get(..4).map(number),
                _ => {}
            }
            bytes = next;
        }
    }

    /// Reads several `struct rtnexthop`: the length in two bytes, two others, the interface, and
    /// attributes.
    fn read_next_hops(&mut self, mut bytes: &[u8]) {
        while let &[l0, l1, _, _, i0, i1, i2, i3, ..] = bytes {
            self.interfaces.push(u32::from_ne_bytes([i0, i1, i2, i3]));
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            bytes = after(bytes, length.max(NEXT_HOP));
        }
    }
}

/// `struct rtnexthop`.
const NEXT_HOP: usize = 8;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

/// Splits the first attribute (`struct rtattr`) off `bytes`.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let &[l0, l1, k0, k1, ..] = bytes else { return None };
    let length = usize::from(u16::from_ne_bytes([l0, l1]));
    Some((u16::from_ne_bytes([k0, k1]), bytes.get(4..length)?, after(bytes, length)))
}

/// Returns what follows `length` bytes; messages and attributes begin at multiples of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Returns the destination of a default route, which has no such attribute.
fn unspecified(family: u8) -> Option<IpAddr> {
    match AddressFamily::from_raw(family.into()) {
        AddressFamily::INET => Some(IpAddr::from([0; 4])),
        AddressFamily::INET6 => Some(IpAddr::from([0; 16])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a message of a dump: family, prefix, the table's old field, type, then attributes.
    fn message(head: [u8; 4], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let [family, prefix, table, kind] = head;
        let mut body = vec![family, prefix, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(RTM_NEWROUTE.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    fn routes(bytes: &[u8]) -> Vec<Route> {
        let (message, rest) = Message::first(bytes).unwrap();
        assert!(rest.is_empty());
        message.routes(&|index| Some(format!("if{index}")))
    }

    fn route(bytes: &[u8]) -> Option<Route> {
        let mut routes = routes(bytes).into_iter();
        routes.next().filter(|_| routes.next().is_none())
    }

    #[test]
    fn a_route_has_its_destination_its_way_and_its_table() {
        let (oif, table) = (7u32.to_ne_bytes(), 51820u32.to_ne_bytes());
        let attributes: [(u16, &[u8]); 3] =
            [(RTA_TABLE, &table), (RTA_DST, &[10, 8, 0, 0]), (RTA_OIF, &oif)];
        let found = route(&message([2, 16, 252, 1], &attributes)).unwrap();
        assert_eq!(found.to_string(), "10.8.0.0/16 dev if7 table 51820");
        let mut hops = [8, 0, 0, 0, 0, 0, 0, 0];
        hops[4..].copy_from_slice(&oif);
        let v6 = [0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let several: [(u16, &[u8]); 2] = [(RTA_DST, &v6), (RTA_MULTIPATH, &hops)];
        let found = route(&message([10, 48, 254, 1], &several)).unwrap();
        assert_eq!(found.to_string(), "fd00:56::/48 dev if7 table main");
        let both = [&[16, 0, 0, 0, 7, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1][..], &hops].concat();
        let ways = routes(&message([2, 0, 254, 1], &[(RTA_MULTIPATH, &both)]));
        let ways: Vec<_> = ways.iter().map(|route| route.interface.as_deref()).collect();
        assert_eq!(ways, [Some("if7"), Some("if7")]);
        let default = route(&message([2, 0, 253, 1], &[])).unwrap();
        assert_eq!(default.to_string(), "0.0.0.0/0 table default");
        let blackhole = route(&message([2, 8, 100, 6], &attributes[1..2])).unwrap();
        assert_eq!(blackhole.to_string(), "10.8.0.0/8 table 100");
    }

    #[test]
    fn what_is_no_way_somewhere_is_left_out() {
        let to: [(u16, &[u8]); 1] = [(RTA_DST, &[10, 8, 0, 1])];
        // Local, broadcast, anycast, multicast, throw.
        for kind in [2, 3, 4, 5, 9] {
            assert_eq!(route(&message([2, 32, 255, kind], &to)), None, "type {kind}");
        }
        // A family other than IP (128: IPv4 multicast routing).
        assert_eq!(route(&message([128, 32, 254, 1], &[])), None);
        let whole = message([2, 32, 254, 1], &to);
        for length in 0..whole.len() {
            assert!(Message::first(&whole[..length]).is_none(), "{length} bytes");
        }
    }
}
