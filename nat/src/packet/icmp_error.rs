//! ICMP errors from guests, and from routers behind them, about packets that the gateway sent (RFC
//! 5508, 4.2).
//!
//! A process without privileges cannot send ICMP errors, so none is forwarded. The quoted packet
//! tells which flow an error is about, and the TCP or UDP flow handles it. An error only applies to
//! flows of the switch port that it came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IPV6_HEADER_LEN, IpProtocol};

use super::icmp::{HEADER, message};
use super::inbound::Inbound;
use crate::drop_reason::DropReason;
use crate::io::PortMark;

/// Smallest path MTU accepted from an ICMP error. IPv4 allows less (RFC 791), but then a forged
/// error could fragment every packet; it is Linux's limit (`min_pmtu`). For IPv6 it is the minimum
/// MTU (RFC 8200, 5).
const MIN_MTU4: u16 = 552;
const MIN_MTU6: u16 = 1280;
const FRAGMENT_HEADER: usize = 8;

/// What an error reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpFault {
    /// The path MTU, in bytes.
    TooBig { mtu: u16 },
    /// Port or protocol unreachable: a hard error (RFC 1122, 4.2.3.9).
    PortUnreachable,
    /// Any other destination unreachable.
    Unreachable,
    /// An error that says nothing about later packets.
    Soft,
}

/// An ICMP error and the packet that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReceivedIcmpError {
    /// The switch port that it came from.
    pub port: PortMark,
    pub fault: IcmpFault,
    pub protocol: IpProtocol,
    /// Destination and source of that packet.
    pub guest: SocketAddr,
    pub remote: SocketAddr,
    /// The four bytes after the ports: TCP's sequence number.
    pub sequence: u32,
}

/// Parses an error.
pub(crate) fn read(packet: &Inbound<'_>) -> Result<ReceivedIcmpError, DropReason> {
    let (head, quoted) = message(packet)?;
    let (fault, quote) = match packet.source {
        IpAddr::V4(_) => (fault4(head), quoted4(quoted)),
        IpAddr::V6(_) => (fault6(head), quoted6(quoted)),
    };
    let Quote { from, to, protocol, bytes } = quote.ok_or(DropReason::BadIcmp)?;
    // The error has to go to the source of the packet that it quotes.
    // spec: rfc5927 payload
    if from != packet.destination {
        return Err(DropReason::BadIcmp);
    }
    let [f0, f1, t0, t1, sequence @ ..] = *bytes.first_chunk::<8>().ok_or(DropReason::BadIcmp)?;
    Ok(ReceivedIcmpError {
        port: packet.port,
        fault,
        protocol,
        guest: SocketAddr::new(to, u16::from_be_bytes([t0, t1])),
        remote: SocketAddr::new(from, u16::from_be_bytes([f0, f1])),
        sequence: u32::from_be_bytes(sequence),
    })
}

fn fault4(head: &[u8; HEADER]) -> IcmpFault {
    match head[..2] {
        [3, 4] => IcmpFault::TooBig { mtu: u16::from_be_bytes([head[6], head[7]]).max(MIN_MTU4) },
        [3, 2 | 3] => IcmpFault::PortUnreachable,
        [3, _] => IcmpFault::Unreachable,
        // spec: rfc9293 MUST-55, rfc5927 quench
        _ => IcmpFault::Soft,
    }
}

fn fault6(head: &[u8; HEADER]) -> IcmpFault {
    match head[..2] {
        [2, _] => {
            let mtu = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            IcmpFault::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX).max(MIN_MTU6) }
        }
        // Port unreachable, and unrecognized next header.
        [1, 4] | [4, 1] => IcmpFault::PortUnreachable,
        [1, _] => IcmpFault::Unreachable,
        _ => IcmpFault::Soft,
    }
}

/// The quoted start of a packet.
struct Quote<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    /// What follows the IP headers.
    bytes: &'a [u8],
}

fn quoted4(quoted: &[u8]) -> Option<Quote<'_>> {
    let head = quoted.first_chunk::<20>()?;
    let length = usize::from(head[0] & 0xf) * 4;
    // Only the first fragment has ports.
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
