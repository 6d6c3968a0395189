//! ICMP errors sent to guests (RFC 792, RFC 4443): from a router on the path, as reported to the
//! host, or from the gateway itself.
//!
//! Each quotes the guest's own packet, by which the guest finds the socket that it concerns. They
//! are limited for each switch port, so that no guest can make the gateway flood another one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;
use smoltcp::wire::IpProtocol;
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::host_socket::ErrorReport;
use crate::io::PortMark;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use crate::packet::outbound::Outbound;
use crate::rate_limiter::RateLimiter;

/// Errors that a port gets at once, and the time in which one more is allowed: Linux's limits
/// (`icmp_msgs_burst`, `icmp_msgs_per_sec`).
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(1);
/// Longest packet with an error: every path takes it (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
const LONGEST4: usize = 576;
const LONGEST6: usize = 1280;
const HEADER: usize = 8;

/// An ICMP error to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IcmpError {
    pub kind: u8,
    pub code: u8,
    /// The four bytes after the checksum.
    pub rest: u32,
}

impl IcmpError {
    pub(crate) fn time_exceeded(is_v6: bool) -> IcmpError {
        IcmpError { kind: if is_v6 { 3 } else { 11 }, code: 0, rest: 0 }
    }

    /// The packet exceeds the path MTU.
    pub(crate) fn too_big(is_v6: bool, mtu: u32) -> IcmpError {
        match is_v6 {
            // The minimum MTU (RFC 8200, 5; RFC 791).
            true => IcmpError { kind: 2, code: 0, rest: mtu.max(1280) },
            false => IcmpError { kind: 3, code: 4, rest: mtu.clamp(68, 65_535) },
        }
    }

    /// The host did not send the packet. `None` if the error says nothing about the destination.
    pub(crate) fn refused(is_v6: bool, error: Errno) -> Option<IcmpError> {
        let (code4, code6) = match error {
            // Without this version of IP, there is no route to its addresses.
            Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EAFNOSUPPORT => (0, 0),
            // Linux returns this for IPv6 if no link has it (`disable_ipv6`).
            Errno::EADDRNOTAVAIL if is_v6 => (0, 0),
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => (1, 3),
            Errno::ECONNREFUSED => (3, 4),
            Errno::EACCES | Errno::EPERM => (13, 1),
            _ => return None,
        };
        let (kind, code) = if is_v6 { (1, code6) } else { (3, code4) };
        Some(IcmpError { kind, code, rest: 0 })
    }

    /// The error of a router or of the host; `None` if it does not concern the guest.
    fn reported(is_v6: bool, report: ErrorReport) -> Option<IcmpError> {
        match report {
            ErrorReport::Icmp { kind, code, info, .. } => {
                let icmp_error = match (is_v6, kind, code) {
                    (false, 3, 4) | (true, 2, _) => IcmpError::too_big(is_v6, info),
                    (false, 3 | 11, _) | (true, 1 | 3, _) => IcmpError { kind, code, rest: 0 },
                    // A parameter problem is about the packet that the host made.
                    _ => return None,
                };
                Some(icmp_error)
            }
            ErrorReport::TooBig { mtu } => Some(IcmpError::too_big(is_v6, mtu)),
            ErrorReport::Local(error) => IcmpError::refused(is_v6, error),
        }
    }
}

/// Sends errors within the rate limit.
pub(crate) struct IcmpErrorSender {
    limiter: RateLimiter,
}

impl Default for IcmpErrorSender {
    fn default() -> IcmpErrorSender {
        IcmpErrorSender { limiter: RateLimiter::new(BURST, REFILL) }
    }
}

impl IcmpErrorSender {
    /// Answers a packet with an error of the gateway itself.
    pub(crate) fn send_error(
        &mut self,
        context: &mut Context<'_>,
        packet: &Inbound<'_>,
        icmp_error: IcmpError,
    ) -> Result<(), DropReason> {
        // No error answers an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
        let is_error = match packet.protocol {
            IpProtocol::Icmp => !matches!(packet.payload.first(), Some(0 | 8 | 13..=18)),
            IpProtocol::Icmpv6 => !matches!(packet.payload.first(), Some(128..)),
            _ => false,
        };
        if is_error {
            return Err(DropReason::IcmpUnanswered);
        }
        let from =
            context.config.station.address_for(packet.source).ok_or(DropReason::OtherAddress)?;
        let to = (packet.port, packet.mac, packet.source);
        self.send(context, to, from, icmp_error, packet.packet)
    }

    /// Forwards a reported error about a packet of the guest `to`. It quotes the packet as the
    /// guest sent it: to `quote.0`, with protocol `quote.1` and payload `quote.2`.
    pub(crate) fn forward_error(
        &mut self,
        context: &mut Context<'_>,
        to: (PortMark, MacAddr, IpAddr),
        report: ErrorReport,
        quote: (IpAddr, IpProtocol, &[u8]),
    ) -> Result<(), DropReason> {
        let (destination, protocol, payload) = quote;
        let icmp_error = IcmpError::reported(to.2.is_ipv6(), report);
        let icmp_error = icmp_error.ok_or(DropReason::HostError)?;
        let from = match report {
            ErrorReport::Icmp { from, .. } if !from.is_loopback() => Some(from),
            // The host itself, which to the guest is the gateway.
            _ => context.config.station.address_for(to.2),
        };
        let packet = rebuilt(to.2, destination, protocol, payload).ok_or(DropReason::HostError)?;
        self.send(context, to, from.ok_or(DropReason::OtherAddress)?, icmp_error, &packet)
    }

    fn send(
        &mut self,
        context: &mut Context<'_>,
        (port, mac, destination): (PortMark, MacAddr, IpAddr),
        from: IpAddr,
        icmp_error: IcmpError,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if !self.limiter.try_take(context.now, port) {
            return Err(DropReason::IcmpLimit);
        }
        let (protocol, longest) = match destination {
            IpAddr::V4(_) => (IpProtocol::Icmp, LONGEST4 - 20),
            IpAddr::V6(_) => (IpProtocol::Icmpv6, LONGEST6 - 40),
        };
        let quote = &packet[..packet.len().min(longest - HEADER)];
        let out = Outbound { mac, source: from, destination, protocol, hop_limit: HOP_LIMIT };
        let mut head = [0; HEADER];
        (head[0], head[1]) = (icmp_error.kind, icmp_error.code);
        head[4..].copy_from_slice(&icmp_error.rest.to_be_bytes());
        let pseudo = match destination {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => out.pseudo_sum(HEADER + quote.len()),
        };
        let sum = checksum::add(checksum::add(pseudo, &head), quote);
        head[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        out.send(context, &VnetHeader::default(), (&head, quote))
    }
}

/// A guest's packet, rebuilt as far as it is known after the host sent another one in its place.
fn rebuilt(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Some(rebuilt4(source, destination, protocol, payload))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Some(rebuilt6(source, destination, protocol, payload))
        }
        _ => None,
    }
}

fn rebuilt4(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + payload.len()];
    let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut bytes);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len((20 + payload.len()) as u16);
    packet.set_dont_frag(true);
    // The error's sender received it with the last hop.
    packet.set_hop_limit(1);
    packet.set_next_header(protocol);
    packet.set_src_addr(from);
    packet.set_dst_addr(to);
    packet.fill_checksum();
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

fn rebuilt6(from: Ipv6Addr, to: Ipv6Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40 + payload.len()];
    let mut packet = smoltcp::wire::Ipv6Packet::new_unchecked(&mut bytes);
    packet.set_version(6);
    packet.set_payload_len(payload.len() as u16);
    packet.set_hop_limit(1);
    packet.set_next_header(protocol);
    packet.set_src_addr(from);
    packet.set_dst_addr(to);
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_ipv6_on_its_links_has_no_route_to_ipv6_addresses() {
        let no_way = Some(IcmpError { kind: 1, code: 0, rest: 0 });
        for error in [Errno::EADDRNOTAVAIL, Errno::ENETUNREACH, Errno::EAFNOSUPPORT] {
            assert_eq!(IcmpError::refused(true, error), no_way, "{error}");
        }
        // For IPv4 it means that no port is free, which says nothing about the destination.
        assert_eq!(IcmpError::refused(false, Errno::EADDRNOTAVAIL), None);
    }
}
