//! ICMP messages from guests (RFC 792, RFC 4443).

use smoltcp::wire::IpProtocol;
use trama_frame::checksum;

use super::inbound::Inbound;
use super::outbound::pseudo_sum;
use crate::drop_reason::DropReason;

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 8;

/// Header and body of a message whose checksum is right.
pub(crate) fn message<'a>(
    packet: &Inbound<'a>,
) -> Result<(&'a [u8; HEADER], &'a [u8]), DropReason> {
    let message = packet.payload;
    let pseudo = match packet.protocol {
        IpProtocol::Icmp if packet.source.is_ipv4() => 0,
        IpProtocol::Icmpv6 if packet.source.is_ipv6() => {
            pseudo_sum(packet.source, packet.destination, packet.protocol, message.len())
        }
        _ => return Err(DropReason::BadIcmp),
    };
    if !packet.offload.needs_csum() && checksum::fold(checksum::add(pseudo, message)) != 0xffff {
        return Err(DropReason::BadIcmp);
    }
    message.split_first_chunk::<HEADER>().ok_or(DropReason::BadIcmp)
}

/// Header and data of an echo request; no other message is answered from outside.
pub(crate) fn echo_request<'a>(
    packet: &Inbound<'a>,
) -> Result<(&'a [u8; HEADER], &'a [u8]), DropReason> {
    let (head, data) = message(packet)?;
    let request = if packet.source.is_ipv4() { 8 } else { 128 };
    match head[..2] {
        [kind, 0] if kind == request => Ok((head, data)),
        _ => Err(DropReason::IcmpUnanswered),
    }
}

/// Whether a packet is an ICMP error.
pub(crate) fn is_error(packet: &Inbound<'_>) -> bool {
    match packet.protocol {
        IpProtocol::Icmp => matches!(packet.payload.first(), Some(3 | 4 | 11 | 12)),
        IpProtocol::Icmpv6 => matches!(packet.payload.first(), Some(1..=4)),
        _ => false,
    }
}
