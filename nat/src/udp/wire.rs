//! UDP datagrams (RFC 768), parsed from guests and sent to them.

use std::net::SocketAddr;

use smoltcp::wire::IpProtocol;
use trama_frame::vnet::{GSO_UDP_L4, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::host_socket::HostDatagram;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use crate::packet::outbound::{Outbound, pseudo_sum};

const HEADER: usize = 8;
/// Offset of the checksum.
const CHECKSUM: u16 = 6;

/// Datagrams in a GSO batch of a guest: as many as Linux makes (`UDP_MAX_SEGMENTS`). Each costs the
/// host as much as a frame of its own.
const MAX_GSO_SEGMENTS: usize = 128;

/// A guest's datagram, or a GSO batch of datagrams of `segment` bytes each, of which the last may
/// be shorter.
pub(crate) struct Datagram<'a> {
    pub from: u16,
    pub to: u16,
    pub payload: &'a [u8],
    pub segment: usize,
}

/// Checks ports, length and checksum.
pub(crate) fn datagram<'a>(packet: &Inbound<'a>) -> Result<Datagram<'a>, DropReason> {
    let (head, rest) = packet.payload.split_first_chunk::<HEADER>().ok_or(DropReason::BadUdp)?;
    let [f0, f1, t0, t1, l0, l1, c0, c1] = *head;
    let (from, to) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([t0, t1]));
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    // Bytes after the datagram's length are ignored.
    let payload = length.checked_sub(HEADER).and_then(|length| rest.get(..length));
    let payload = payload.filter(|_| from != 0 && to != 0).ok_or(DropReason::BadUdp)?;
    let has_sum = (c0, c1) != (0, 0);
    if !packet.offload.needs_csum() && (has_sum || packet.source.is_ipv6()) {
        let pseudo = pseudo_sum(packet.source, packet.destination, IpProtocol::Udp, length);
        let sum = checksum::add(checksum::add(pseudo, head), payload);
        // IPv6 requires a checksum (RFC 8200, 8.1).
        if !has_sum || checksum::fold(sum) != 0xffff {
            return Err(DropReason::BadUdp);
        }
    }
    let is_gso = packet.offload.gso_type == GSO_UDP_L4 && packet.offload.gso_size > 0;
    let segment = if is_gso { packet.offload.gso_size.into() } else { payload.len() };
    if segment > 0 && payload.len().div_ceil(segment) > MAX_GSO_SEGMENTS {
        return Err(DropReason::BadUdp);
    }
    Ok(Datagram { from, to, payload, segment })
}

/// The guest that datagrams from outside go to.
pub(super) struct GuestDestination {
    pub mac: MacAddr,
    pub address: SocketAddr,
    /// Path MTU to the guest, if less than the network's.
    pub mtu: u16,
}

/// Sends datagrams to a guest, from `visible`. Drops are counted.
pub(super) fn deliver(
    guest: &GuestDestination,
    visible: SocketAddr,
    datagram: &HostDatagram<'_>,
    context: &mut Context<'_>,
) {
    let out = Outbound {
        mac: guest.mac,
        source: visible.ip(),
        destination: guest.address.ip(),
        protocol: IpProtocol::Udp,
        hop_limit: HOP_LIMIT,
    };
    let ports = (visible.port(), guest.address.port());
    let segment = datagram.segment.max(1);
    let mtu = guest.mtu.min(context.config.station.mtu);
    let is_gso = segment < datagram.bytes.len()
        && out.fits(mtu, HEADER + segment)
        && out.fits(u16::MAX, HEADER + datagram.bytes.len());
    let result = if is_gso {
        send(&out, ports, datagram.bytes, Size::Gso(segment as u16), context)
    } else if datagram.bytes.is_empty() {
        send(&out, ports, &[], Size::Mtu(mtu), context)
    } else {
        let each = |payload: &[u8]| send(&out, ports, payload, Size::Mtu(mtu), context);
        datagram.bytes.chunks(segment).try_for_each(each)
    };
    if let Err(reason) = result {
        context.counters.drop(reason);
    }
}

/// How a payload is sent: as a datagram, in fragments if it exceeds the MTU; or as a GSO batch with
/// this much payload in each datagram.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Mtu(u16),
    Gso(u16),
}

/// Sends a datagram, or a GSO batch as one large frame.
pub(crate) fn send(
    out: &Outbound,
    ports: (u16, u16),
    payload: &[u8],
    size: Size,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let length = HEADER + payload.len();
    let mut head = header(ports, length);
    let pseudo = out.pseudo_sum(length);
    if let Size::Mtu(mtu) = size
        && !out.fits(mtu, length)
    {
        let sum = checksum::fold(checksum::add(checksum::add(pseudo, &head), payload));
        // Zero means no checksum.
        let sum = if sum == 0xffff { sum } else { !sum };
        head[6..].copy_from_slice(&sum.to_be_bytes());
        return out.send_fragments(context, mtu, (&head, payload));
    }
    // The guest, or the switch in its place, completes the checksum if it is needed.
    head[6..].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    let start = out.head_len() as u16;
    let mut offload = VnetHeader {
        flags: NEEDS_CSUM,
        csum_start: start,
        csum_offset: CHECKSUM,
        ..VnetHeader::default()
    };
    if let Size::Gso(segment) = size {
        offload.gso_type = GSO_UDP_L4;
        offload.gso_size = segment;
        offload.hdr_len = start + HEADER as u16;
    }
    out.send(context, &offload, (&head, payload))
}

fn header((from, to): (u16, u16), length: usize) -> [u8; HEADER] {
    let ([f0, f1], [t0, t1]) = (from.to_be_bytes(), to.to_be_bytes());
    let [l0, l1] = (length as u16).to_be_bytes();
    [f0, f1, t0, t1, l0, l1, 0, 0]
}

/// A datagram as an ICMP error quotes it.
pub(super) fn quoted(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut quoted = header((from, to), HEADER + payload.len()).to_vec();
    quoted.extend_from_slice(payload);
    quoted
}
