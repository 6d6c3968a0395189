//! Valid frames of a guest, for seeds, and their checksums.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use trama_frame::checksum;

/// The gateway.
pub(crate) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The guest.
pub(crate) const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Their addresses.
pub(crate) const GATEWAY4: [u8; 4] = [10, 0, 2, 1];
pub(crate) const GUEST4: [u8; 4] = [10, 0, 2, 15];
pub(crate) const GATEWAY6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const GUEST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15];

/// Returns a datagram of the guest over IPv4.
pub(crate) fn udp4(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST, GATEWAY)
        .ipv4(GUEST4, to, 64)
        .udp(4000, port)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// Returns a datagram of the guest over IPv6.
pub(crate) fn udp6(to: [u8; 16], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST, GATEWAY)
        .ipv6(GUEST6, to, 255)
        .udp(4000, port)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// Returns a segment of the guest; `flags` are SYN, ACK and FIN.
pub(crate) fn tcp4(to: [u8; 4], port: u16, (syn, ack, fin): (bool, bool, bool)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv4(GUEST4, to, 64);
    let mut segment = builder.tcp(4000, port, 1000, 60_000);
    if syn {
        segment = segment.syn();
    }
    if ack {
        segment = segment.ack(1);
    }
    if fin {
        segment = segment.fin();
    }
    segment.write(&mut frame, if syn { &[][..] } else { b"hello" }).unwrap();
    frame
}

/// Returns echo requests of the guest over both versions of IP.
pub(crate) fn pings(to4: [u8; 4], to6: [u8; 16]) -> [Vec<u8>; 2] {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let builder = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv4(GUEST4, to4, 64);
    builder.icmpv4_echo_request(7, 9).write(&mut v4, b"ping").unwrap();
    let builder = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv6(GUEST6, to6, 255);
    builder.icmpv6_echo_request(7, 9).write(&mut v6, b"ping").unwrap();
    [v4, v6]
}

/// Returns the fragments of a packet over IPv4, each with this many bytes of payload.
pub(crate) fn fragments4(frame: &[u8], len: usize) -> Vec<Vec<u8>> {
    let (head, payload) = frame.split_at(34);
    let pieces = payload.chunks(len / 8 * 8);
    let count = pieces.len();
    let one = |(number, piece): (usize, &[u8])| {
        let mut part = [head, piece].concat();
        let more = if number + 1 < count { 0x2000 } else { 0 };
        let field = more | (number * (len / 8)) as u16;
        part[16..18].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
        part[20..22].copy_from_slice(&field.to_be_bytes());
        mend_checksums(&mut part);
        part
    };
    pieces.enumerate().map(one).collect()
}

/// Returns the fragments of a packet over IPv6, each with this many bytes of payload.
pub(crate) fn fragments6(frame: &[u8], len: usize) -> Vec<Vec<u8>> {
    let (head, payload) = frame.split_at(54);
    let pieces = payload.chunks(len / 8 * 8);
    let count = pieces.len();
    let one = |(number, piece): (usize, &[u8])| {
        let field = (number * (len / 8 * 8)) as u16 | u16::from(number + 1 < count);
        let extension = [&[head[20], 0][..], &field.to_be_bytes(), &[0, 0, 0, 7]].concat();
        let mut part = [head, &extension, piece].concat();
        part[18..20].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
        part[20] = 44;
        part
    };
    pieces.enumerate().map(one).collect()
}

/// Returns an ARP request or reply of the guest about `target`.
pub(crate) fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let to = if operation == 1 { [0xff; 6] } else { GATEWAY };
    let head = [&to[..], &GUEST, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head[..], &GUEST, &GUEST4, &GATEWAY, &target].concat()
}

/// Returns a message of neighbour discovery: 133 router solicitation, 135 neighbour solicitation,
/// 136 advertisement.
pub(crate) fn discovery(kind: u8, target: [u8; 16]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, 0x60, 0, 0, 0];
    if kind != 133 {
        body.extend_from_slice(&target);
    }
    body.extend_from_slice(&[if kind == 136 { 2 } else { 1 }, 1]);
    body.extend_from_slice(&GUEST);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv6(GUEST6, GATEWAY6, 255);
    // ICMPv6, whose header is a part of the body here.
    builder.write(&mut frame, etherparse::IpNumber::IPV6_ICMP, &body).unwrap();
    mend_checksums(&mut frame);
    frame
}

/// Where the checksum of a transport header is, and what it covers.
struct Sum {
    start: usize,
    end: usize,
    field: usize,
    /// The sum of the pseudo-header.
    pseudo: u32,
}

impl Sum {
    fn find(frame: &[u8]) -> Option<Sum> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (transport, net) = (packet.transport?, packet.net?);
        let ip = net.ip_payload_ref()?;
        let (at, has_pseudo) = match transport {
            TransportSlice::Udp(_) => (6, true),
            TransportSlice::Tcp(_) => (16, true),
            TransportSlice::Icmpv4(_) => (2, false),
            TransportSlice::Icmpv6(_) => (2, true),
            TransportSlice::Igmp(_) => return None,
        };
        let start = ip.payload.as_ptr() as usize - frame.as_ptr() as usize;
        let (len, number) = (ip.payload.len(), ip.ip_number.0);
        let mut pseudo = 0;
        if has_pseudo {
            let addresses = if matches!(net, NetSlice::Ipv4(_)) { 26..34 } else { 22..54 };
            pseudo = checksum::add(checksum::sum(&frame[addresses]), &(len as u32).to_be_bytes());
            pseudo = checksum::add(pseudo, &[0, number]);
        }
        Some(Sum { start, end: start + len, field: start + at, pseudo })
    }
}

/// Corrects checksums, which would hide all other faults.
pub(crate) fn mend_checksums(frame: &mut [u8]) {
    if frame.get(12..14) == Some(&[8, 0]) && frame.len() >= 34 {
        frame[24..26].fill(0);
        let sum = checksum::internet(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let Some(Sum { start, end, field, pseudo }) = Sum::find(frame) else { return };
    frame[field..field + 2].fill(0);
    let sum = !checksum::fold(checksum::add(pseudo, &frame[start..end]));
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
