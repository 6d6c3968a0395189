//! What passes of what machines say to a group, and of what is said to them, and how it is delivered.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::IpProtocol;
use trama_frame::MacAddr;

use super::groups::{MDNS4, MDNS6};
use super::{mdns, ssdp};
use crate::config::Discovery;
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::outbound::Outbound;
use crate::router::allowance::Allowances;
use crate::router::context::Context;
use crate::router::host_socket::Arrival;
use crate::router::udp::wire::{self, Size};

/// What goes out of a machine's message.
pub(super) fn question(service: Discovery, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
    match service {
        Discovery::Mdns => match mdns::said(payload) {
            mdns::Said::Questions(message) => Ok(message),
            mdns::Said::Announcement => Err(DropReason::ReflectWithheld),
            mdns::Said::Malformed => Err(DropReason::ReflectMalformed),
        },
        Discovery::Ssdp => match ssdp::kind(payload) {
            ssdp::Kind::Search => Ok(payload.to_vec()),
            ssdp::Kind::Notify => Err(DropReason::ReflectWithheld),
            _ => Err(DropReason::ReflectMalformed),
        },
    }
}

/// Whether what came to a group is for machines; the questions of others are not.
pub(super) fn announced(service: Discovery, arrival: &Arrival<'_>) -> Result<bool, DropReason> {
    match service {
        // Only those of this port are answers (RFC 6762, 6).
        Discovery::Mdns => match mdns::heard(arrival.bytes) {
            mdns::Heard::Answer if arrival.from.port() == MDNS4.port() => Ok(true),
            mdns::Heard::Question => Ok(false),
            _ => Err(DropReason::ReflectMalformed),
        },
        Discovery::Ssdp => match ssdp::kind(arrival.bytes) {
            ssdp::Kind::Notify => Ok(true),
            ssdp::Kind::Search => Ok(false),
            _ => Err(DropReason::ReflectMalformed),
        },
    }
}

/// Whether what came answers a search.
pub(super) fn found(service: Discovery, arrival: &Arrival<'_>) -> Result<(), DropReason> {
    let is_answer = match service {
        Discovery::Mdns => mdns::heard(arrival.bytes) == mdns::Heard::Answer,
        Discovery::Ssdp => ssdp::kind(arrival.bytes) == ssdp::Kind::Found,
    };
    if is_answer { Ok(()) } else { Err(DropReason::ReflectMalformed) }
}

/// Lets an answer in for `port`, if there are not too many: from whom machines see it come.
pub(super) fn admit(
    service: Discovery,
    arrival: &Arrival<'_>,
    port: PortId,
    answers: &mut Allowances,
    context: &Context<'_>,
) -> Result<SocketAddr, DropReason> {
    let from = arrival.from;
    if from.is_ipv4() {
        context.policy.allows(context.config, from.ip())?;
    }
    if !answers.allows(context.now, port) {
        return Err(DropReason::ReflectLimit);
    }
    match (service, from) {
        (Discovery::Ssdp, from) => Ok(from),
        (Discovery::Mdns, SocketAddr::V4(_)) => {
            let own = context.config.address_beside(from.ip()).ok_or(DropReason::OtherAddress)?;
            Ok(SocketAddr::new(own, MDNS4.port()))
        }
        (Discovery::Mdns, SocketAddr::V6(_)) => {
            Ok(SocketAddr::new(context.config.link_local().into(), MDNS6.port()))
        }
    }
}

/// Sends a machine, or all of them, what came for it.
pub(super) fn deliver(
    from: SocketAddr,
    (mac, to, hop_limit): (MacAddr, SocketAddr, u8),
    payload: &[u8],
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (source, destination) = (from.ip(), to.ip());
    let out = Outbound { mac, source, destination, protocol: IpProtocol::Udp, hop_limit };
    let size = Size::Mtu(context.config.mtu);
    wire::send(&out, (from.port(), to.port()), payload, size, context)
}

/// The hardware address of a group (RFC 1112, 6.4; RFC 2464, 7).
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
