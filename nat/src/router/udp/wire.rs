//! UDP datagrams of machines, read and written (RFC 768).

use std::net::SocketAddr;

use smoltcp::wire::IpProtocol;
use trama_frame::vnet::{GSO_UDP_L4, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::drop_reason::DropReason;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use crate::packet::outbound::{Outbound, pseudo_sum};
use crate::router::context::Context;
use crate::router::host_socket::Arrival;

const HEADER: usize = 8;
/// Where the checksum is.
const CHECKSUM: u16 = 6;

/// Datagrams of a machine's train: what Linux makes at most (`UDP_MAX_SEGMENTS`). Each costs the host
/// as much as a frame of its own would.
const MAX_TRAIN: usize = 128;

/// A machine's datagram, or a train of datagrams with `segment` bytes each, of which the last may be
/// shorter.
pub(crate) struct Datagram<'a> {
    pub from: u16,
    pub to: u16,
    pub payload: &'a [u8],
    pub segment: usize,
}

/// Checks a datagram: ports, length, checksum.
pub(crate) fn datagram<'a>(packet: &Inbound<'a>) -> Result<Datagram<'a>, DropReason> {
    let (head, rest) = packet.payload.split_first_chunk::<HEADER>().ok_or(DropReason::BadUdp)?;
    let [f0, f1, t0, t1, l0, l1, c0, c1] = *head;
    let (from, to) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([t0, t1]));
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    // What follows is not of the datagram (RFC 768 leaves room for it).
    let payload = length.checked_sub(HEADER).and_then(|length| rest.get(..length));
    let payload = payload.filter(|_| from != 0 && to != 0).ok_or(DropReason::BadUdp)?;
    let has_sum = (c0, c1) != (0, 0);
    if !packet.offload.needs_csum() && (has_sum || packet.source.is_ipv6()) {
        let pseudo = pseudo_sum(packet.source, packet.destination, IpProtocol::Udp, length);
        let sum = checksum::add(checksum::add(pseudo, head), payload);
        // IPv6 has no datagrams without a checksum (RFC 8200, 8.1).
        if !has_sum || checksum::fold(sum) != 0xffff {
            return Err(DropReason::BadUdp);
        }
    }
    let is_train = packet.offload.gso_type == GSO_UDP_L4 && packet.offload.gso_size > 0;
    let segment = if is_train { packet.offload.gso_size.into() } else { payload.len() };
    if segment > 0 && payload.len().div_ceil(segment) > MAX_TRAIN {
        return Err(DropReason::BadUdp);
    }
    Ok(Datagram { from, to, payload, segment })
}

/// Whom datagrams from outside are for.
pub(super) struct Machine {
    pub mac: MacAddr,
    pub address: SocketAddr,
    /// The longest packet that the way to it takes, if the network does not take less.
    pub mtu: u16,
}

/// Sends a machine what came for it, from `shown`. What does not get there is counted.
pub(super) fn deliver(
    machine: &Machine,
    shown: SocketAddr,
    arrival: &Arrival<'_>,
    context: &mut Context<'_>,
) {
    let out = Outbound {
        mac: machine.mac,
        source: shown.ip(),
        destination: machine.address.ip(),
        protocol: IpProtocol::Udp,
        hop_limit: HOP_LIMIT,
    };
    let ports = (shown.port(), machine.address.port());
    let segment = arrival.segment.max(1);
    let mtu = machine.mtu.min(context.config.mtu);
    let is_train = segment < arrival.bytes.len()
        && out.fits(mtu, HEADER + segment)
        && out.fits(u16::MAX, HEADER + arrival.bytes.len());
    let result = if is_train {
        send(&out, ports, arrival.bytes, Size::Train(segment as u16), context)
    } else if arrival.bytes.is_empty() {
        send(&out, ports, &[], Size::Mtu(mtu), context)
    } else {
        let each = |payload: &[u8]| send(&out, ports, payload, Size::Mtu(mtu), context);
        arrival.bytes.chunks(segment).try_for_each(each)
    };
    if let Err(reason) = result {
        context.counters.drop(reason);
    }
}

/// How a payload is sent: as a datagram, in fragments of this size if it is longer; or as a train
/// of datagrams with this much payload each.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Mtu(u16),
    Train(u16),
}

/// Sends a datagram, or a large frame with a train of them.
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
        // Zero means "none".
        let sum = if sum == 0xffff { sum } else { !sum };
        head[6..].copy_from_slice(&sum.to_be_bytes());
        return out.send_fragments(context, mtu, (&head, payload));
    }
    // The machine, or the switch in its place, completes the checksum if somebody looks at it.
    head[6..].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    let start = out.head_len() as u16;
    let mut offload = VnetHeader {
        flags: NEEDS_CSUM,
        csum_start: start,
        csum_offset: CHECKSUM,
        ..VnetHeader::default()
    };
    if let Size::Train(segment) = size {
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

/// A datagram as an error quotes it.
pub(super) fn quoted(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut quoted = header((from, to), HEADER + payload.len()).to_vec();
    quoted.extend_from_slice(payload);
    quoted
}
