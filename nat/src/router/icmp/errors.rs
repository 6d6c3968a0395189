//! ICMP errors for the network's machines (RFC 792, RFC 4443): from a router on the way, as it
//! reported them to the host, or from the gateway itself.
//!
//! Each quotes the machine's own packet, by which the machine finds the program that it concerns.
//! They are limited by switch port, so that no machine can have the gateway flood another one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;
use smoltcp::wire::IpProtocol;
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use crate::packet::outbound::Outbound;
use crate::router::allowance::Allowances;
use crate::router::context::Context;
use crate::router::host_socket::ErrorReport;

/// Errors that a port gets at once, and how fast the right to more comes back: what Linux allows
/// (`icmp_msgs_burst`, `icmp_msgs_per_sec`).
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(1);
/// Longest packet with an error: every way takes it (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
const LONGEST4: usize = 576;
const LONGEST6: usize = 1280;
const HEADER: usize = 8;

/// What there is to say, in ICMP's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Complaint {
    pub kind: u8,
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: u32,
}

impl Complaint {
    pub fn time_exceeded(is_v6: bool) -> Complaint {
        Complaint { kind: if is_v6 { 3 } else { 11 }, code: 0, rest: 0 }
    }

    /// The packet is longer than `mtu`, which the way allows.
    pub fn too_big(is_v6: bool, mtu: u32) -> Complaint {
        match is_v6 {
            // Less than this no way may have (RFC 8200, 5; RFC 791).
            true => Complaint { kind: 2, code: 0, rest: mtu.max(1280) },
            false => Complaint { kind: 3, code: 4, rest: mtu.clamp(68, 65_535) },
        }
    }

    /// The host refused to send the packet. `None`: that says nothing about the destination.
    pub fn refused(is_v6: bool, error: Errno) -> Option<Complaint> {
        let (code4, code6) = match error {
            // Without a version of IP there is no way to its addresses.
            Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EAFNOSUPPORT => (0, 0),
            // So does Linux say it of IPv6 where no link has it (`disable_ipv6`).
            Errno::EADDRNOTAVAIL if is_v6 => (0, 0),
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => (1, 3),
            Errno::ECONNREFUSED => (3, 4),
            Errno::EACCES | Errno::EPERM => (13, 1),
            _ => return None,
        };
        let (kind, code) = if is_v6 { (1, code6) } else { (3, code4) };
        Some(Complaint { kind, code, rest: 0 })
    }

    /// What a router, or the host, reported; `None`: it is nothing for the machine.
    fn reported(is_v6: bool, report: ErrorReport) -> Option<Complaint> {
        match report {
            ErrorReport::Icmp { kind, code, info, .. } => {
                let complaint = match (is_v6, kind, code) {
                    (false, 3, 4) | (true, 2, _) => Complaint::too_big(is_v6, info),
                    (false, 3 | 11, _) | (true, 1 | 3, _) => Complaint { kind, code, rest: 0 },
                    // A parameter problem is one of the packet that the host made of it.
                    _ => return None,
                };
                Some(complaint)
            }
            ErrorReport::TooBig { mtu } => Some(Complaint::too_big(is_v6, mtu)),
            ErrorReport::Local(error) => Complaint::refused(is_v6, error),
        }
    }
}

/// Sends errors, not too many.
pub(crate) struct Errors {
    allowances: Allowances,
}

impl Default for Errors {
    fn default() -> Errors {
        Errors { allowances: Allowances::new(BURST, REFILL) }
    }
}

impl Errors {
    /// The gateway complains of a packet.
    pub fn complain(
        &mut self,
        context: &mut Context<'_>,
        packet: &Inbound<'_>,
        complaint: Complaint,
    ) -> Result<(), DropReason> {
        // No error about an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
        let is_error = match packet.protocol {
            IpProtocol::Icmp => !matches!(packet.payload.first(), Some(0 | 8 | 13..=18)),
            IpProtocol::Icmpv6 => !matches!(packet.payload.first(), Some(128..)),
            _ => false,
        };
        if is_error {
            return Err(DropReason::IcmpUnanswered);
        }
        let from = context.config.address_beside(packet.source).ok_or(DropReason::OtherAddress)?;
        let to = (packet.port, packet.mac, packet.source);
        self.send(context, to, from, complaint, packet.packet)
    }

    /// Passes on what was reported about a packet of the machine `to`, which is quoted as the machine
    /// sent it: from `quote.0` to `quote.1`, with this protocol and payload.
    pub fn pass_on(
        &mut self,
        context: &mut Context<'_>,
        to: (PortId, MacAddr, IpAddr),
        report: ErrorReport,
        quote: (IpAddr, IpProtocol, &[u8]),
    ) -> Result<(), DropReason> {
        let (destination, protocol, payload) = quote;
        let complaint = Complaint::reported(to.2.is_ipv6(), report);
        let complaint = complaint.ok_or(DropReason::HostError)?;
        let from = match report {
            ErrorReport::Icmp { from, .. } if !from.is_loopback() => Some(from),
            // The host itself: to the machine that is the gateway.
            _ => context.config.address_beside(to.2),
        };
        let packet = rebuilt(to.2, destination, protocol, payload).ok_or(DropReason::HostError)?;
        self.send(context, to, from.ok_or(DropReason::OtherAddress)?, complaint, &packet)
    }

    fn send(
        &mut self,
        context: &mut Context<'_>,
        (port, mac, destination): (PortId, MacAddr, IpAddr),
        from: IpAddr,
        complaint: Complaint,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if !self.allowances.allows(context.now, port) {
            return Err(DropReason::IcmpLimit);
        }
        let (protocol, longest) = match destination {
            IpAddr::V4(_) => (IpProtocol::Icmp, LONGEST4 - 20),
            IpAddr::V6(_) => (IpProtocol::Icmpv6, LONGEST6 - 40),
        };
        let quote = &packet[..packet.len().min(longest - HEADER)];
        let out = Outbound { mac, source: from, destination, protocol, hop_limit: HOP_LIMIT };
        let mut head = [0; HEADER];
        (head[0], head[1]) = (complaint.kind, complaint.code);
        head[4..].copy_from_slice(&complaint.rest.to_be_bytes());
        let pseudo = match destination {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => out.pseudo_sum(HEADER + quote.len()),
        };
        let sum = checksum::add(checksum::add(pseudo, &head), quote);
        head[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        out.send(context, &VnetHeader::default(), (&head, quote))
    }
}

/// A machine's packet, as far as it is known once the host has sent another one in its place.
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
    // It arrived where the error comes from with its last hop.
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
    fn a_host_whose_links_have_no_ipv6_has_no_way_to_its_addresses() {
        let no_way = Some(Complaint { kind: 1, code: 0, rest: 0 });
        for error in [Errno::EADDRNOTAVAIL, Errno::ENETUNREACH, Errno::EAFNOSUPPORT] {
            assert_eq!(Complaint::refused(true, error), no_way, "{error}");
        }
        // Of IPv4 it says that no port is free, which is nothing about the destination.
        assert_eq!(Complaint::refused(false, Errno::EADDRNOTAVAIL), None);
    }
}
