//! ICMP errors of machines, and of routers behind them, about packets that the gateway has sent
//! there (RFC 5508, 4.2).
//!
//! A process without privilege sends no ICMP errors, so nothing is passed on as it is. What an error
//! quotes says which flow it is about, and that flow draws the consequence: see `hear` of the flows
//! of TCP and of UDP. An error counts for flows of the switch port that it came by, and for no others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IPV6_HEADER_LEN, IpProtocol};

use super::icmp::{HEADER, message};
use super::inbound::Inbound;
use crate::drop_reason::DropReason;
use crate::io::PortId;

/// Less than this no way is believed to take. IPv4 allows less (RFC 791), but a liar would have each
/// packet cut to pieces; it is Linux's limit, too (`min_pmtu`). For IPv6 it is the rule (RFC 8200, 5).
const LEAST4: u16 = 552;
const LEAST6: u16 = 1280;
const FRAGMENT_HEADER: usize = 8;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The way takes packets of at most this many bytes.
    TooBig { mtu: u16 },
    /// Nobody listens: a hard error (RFC 1122, 4.2.3.9).
    Closed,
    /// The machine cannot be reached, or lets nobody in.
    Unreachable,
    /// What says nothing of the packets to come.
    Passing,
}

/// An error, and the packet that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    /// The switch port that it came by.
    pub port: PortId,
    pub fault: Fault,
    pub protocol: IpProtocol,
    /// Whom the packet was for, and from whom.
    pub guest: SocketAddr,
    pub remote: SocketAddr,
    /// What follows the ports; TCP's sequence number.
    pub sequence: u32,
}

/// Reads an error.
pub(crate) fn read(packet: &Inbound<'_>) -> Result<Heard, DropReason> {
    let (head, quoted) = message(packet)?;
    let (fault, quote) = match packet.source {
        IpAddr::V4(_) => (fault4(head), quoted4(quoted)),
        IpAddr::V6(_) => (fault6(head), quoted6(quoted)),
    };
    let Quote { from, to, protocol, bytes } = quote.ok_or(DropReason::BadIcmp)?;
    // It goes to the one whose packet it is about, or it is no answer to that.
    if from != packet.destination {
        return Err(DropReason::BadIcmp);
    }
    let [f0, f1, t0, t1, sequence @ ..] = *bytes.first_chunk::<8>().ok_or(DropReason::BadIcmp)?;
    Ok(Heard {
        port: packet.port,
        fault,
        protocol,
        guest: SocketAddr::new(to, u16::from_be_bytes([t0, t1])),
        remote: SocketAddr::new(from, u16::from_be_bytes([f0, f1])),
        sequence: u32::from_be_bytes(sequence),
    })
}

fn fault4(head: &[u8; HEADER]) -> Fault {
    match head[..2] {
        [3, 4] => Fault::TooBig { mtu: u16::from_be_bytes([head[6], head[7]]).max(LEAST4) },
        [3, 2 | 3] => Fault::Closed,
        [3, _] => Fault::Unreachable,
        _ => Fault::Passing,
    }
}

fn fault6(head: &[u8; HEADER]) -> Fault {
    match head[..2] {
        [2, _] => {
            let mtu = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            Fault::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX).max(LEAST6) }
        }
        // No such port; no such protocol.
        [1, 4] | [4, 1] => Fault::Closed,
        [1, _] => Fault::Unreachable,
        _ => Fault::Passing,
    }
}

/// The beginning of a packet, as far as it is quoted.
struct Quote<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    /// What the headers of IP are in front of.
    bytes: &'a [u8],
}

fn quoted4(quoted: &[u8]) -> Option<Quote<'_>> {
    let head = quoted.first_chunk::<20>()?;
    let length = usize::from(head[0] & 0xf) * 4;
    // A fragment behind the first one has no ports.
    let offset = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    if head[0] >> 4 != 4 || length < head.len() || offset != 0 {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*head[at..].first_chunk::<4>()?).into());
    let (from, to, protocol) = (address(12)?, address(16)?, head[9].into());
    Some(Quote { from, to, protocol, bytes: quoted.get(length..)? })
}

fn quoted6(quoted: &[u8]) -> Option<Quote<'_>> {
    let (head, bytes) = quoted.split_first_chunk::<IPV6_HEADER_LEN>()?;
    let address = |at: usize| Some(Ipv6Addr::from(*head[at..].first_chunk::<16>()?).into());
    let (from, to, protocol) = (address(8)?, address(24)?, IpProtocol::from(head[6]));
    if head[0] >> 4 != 6 {
        return None;
    }
    if protocol != IpProtocol::Ipv6Frag {
        return Some(Quote { from, to, protocol, bytes });
    }
    let (fragment, bytes) = bytes.split_first_chunk::<FRAGMENT_HEADER>()?;
    let offset = u16::from_be_bytes([fragment[2], fragment[3]]) & !7;
    (offset == 0).then_some(Quote { from, to, protocol: fragment[0].into(), bytes })
}
