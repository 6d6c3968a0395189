//! Which messages of service discovery pass, and how they are delivered.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::IpProtocol;
use trama_frame::MacAddr;

use super::groups::{MDNS4, MDNS6};
use super::{mdns, ssdp};
use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::host_socket::HostDatagram;
use crate::io::PortMark;
use crate::packet::outbound::Outbound;
use crate::policy;
use crate::rate_limiter::RateLimiter;
use crate::rules::Discovery;
use crate::udp::wire::{self, Size};

/// The query to send for a guest's message.
pub(super) fn outgoing_query(service: Discovery, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
    match service {
        Discovery::Mdns => match mdns::classify_query(payload) {
            mdns::FromGuest::Questions(message) => Ok(message),
            mdns::FromGuest::Announcement => Err(DropReason::ReflectWithheld),
            mdns::FromGuest::Malformed => Err(DropReason::ReflectMalformed),
        },
        Discovery::Ssdp => match ssdp::kind(payload) {
            ssdp::Kind::Search => Ok(payload.to_vec()),
            ssdp::Kind::Notify => Err(DropReason::ReflectWithheld),
            _ => Err(DropReason::ReflectMalformed),
        },
    }
}

/// Whether a group's message is for guests; queries of others are not.
pub(super) fn is_announcement(
    service: Discovery,
    datagram: &HostDatagram<'_>,
) -> Result<bool, DropReason> {
    match service {
        // Only messages from this port are responses (RFC 6762, 6).
        Discovery::Mdns => match mdns::classify_response(datagram.bytes) {
            mdns::FromLink::Answer if datagram.from.port() == MDNS4.port() => Ok(true),
            mdns::FromLink::Question => Ok(false),
            _ => Err(DropReason::ReflectMalformed),
        },
        Discovery::Ssdp => match ssdp::kind(datagram.bytes) {
            ssdp::Kind::Notify => Ok(true),
            ssdp::Kind::Search => Ok(false),
            _ => Err(DropReason::ReflectMalformed),
        },
    }
}

/// Checks that a message responds to a search.
pub(super) fn check_response(
    service: Discovery,
    datagram: &HostDatagram<'_>,
) -> Result<(), DropReason> {
    let is_answer = match service {
        Discovery::Mdns => mdns::classify_response(datagram.bytes) == mdns::FromLink::Answer,
        Discovery::Ssdp => ssdp::kind(datagram.bytes) == ssdp::Kind::Found,
    };
    if is_answer { Ok(()) } else { Err(DropReason::ReflectMalformed) }
}

/// Checks destination policy and rate limit of a response. Returns the source address that guests
/// see.
pub(super) fn admit(
    service: Discovery,
    datagram: &HostDatagram<'_>,
    port: PortMark,
    responses: &mut RateLimiter,
    context: &Context<'_>,
) -> Result<SocketAddr, DropReason> {
    let from = datagram.from;
    if from.is_ipv4() {
        policy::allows(context.config, from.ip())?;
    }
    if !responses.try_take(context.now, port) {
        return Err(DropReason::ReflectLimit);
    }
    match (service, from) {
        (Discovery::Ssdp, from) => Ok(from),
        (Discovery::Mdns, SocketAddr::V4(_)) => {
            let gateway =
                context.config.station.address_for(from.ip()).ok_or(DropReason::OtherAddress)?;
            Ok(SocketAddr::new(gateway, MDNS4.port()))
        }
        (Discovery::Mdns, SocketAddr::V6(_)) => {
            Ok(SocketAddr::new(context.config.station.link_local().into(), MDNS6.port()))
        }
    }
}

/// Sends a message to a guest, or to all of them.
pub(super) fn deliver(
    from: SocketAddr,
    (mac, to, hop_limit): (MacAddr, SocketAddr, u8),
    payload: &[u8],
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (source, destination) = (from.ip(), to.ip());
    let out = Outbound { mac, source, destination, protocol: IpProtocol::Udp, hop_limit };
    let size = Size::Mtu(context.config.station.mtu);
    wire::send(&out, (from.port(), to.port()), payload, size, context)
}

/// The MAC address of a group (RFC 1112, 6.4; RFC 2464, 7).
pub(super) fn group_mac(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            MacAddr([1, 0, 0x5e, a & 0x7f, b, c])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}
