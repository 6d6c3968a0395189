//! Makes the frame that a user describes.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use trama_api::explain::{Described, Packet, Protocol};
use trama_frame::MacAddr;

/// Length of the shortest frame on a wire, without FCS.
const SHORTEST: usize = 60;
/// The longest that is made: the largest IP packet with its header and a tag.
const LONGEST: usize = 65_535 + 18;
/// The Ethertype of a frame of which none is said: the first for local experiments (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;
/// The L4 port that packets come from, of the dynamic ones (RFC 6335).
const SOURCE_PORT: u16 = 49_152;
const HOP_LIMIT: u8 = 64;

/// Makes the frame; `src` is its source unless one is described.
///
/// # Errors
/// It cannot have what is described, and says why.
pub(super) fn build(frame: &Described, src: MacAddr) -> Result<Vec<u8>, String> {
    let src = frame.src.unwrap_or(src.0);
    let tag = frame.vlan.map(tag).transpose()?;
    let mut bytes = match &frame.packet {
        Some(packet) => with_packet(packet)?,
        None => frame.ethertype.unwrap_or(EXPERIMENTAL).to_be_bytes().to_vec(),
    };
    let start = [frame.dst, src].concat().into_iter().chain(tag.into_iter().flatten());
    bytes.splice(0..0, start);
    let len = frame.len.unwrap_or(bytes.len().max(SHORTEST));
    if !(bytes.len()..=LONGEST).contains(&len) {
        return Err(format!("len={len}: such a frame has {} to {LONGEST} bytes", bytes.len()));
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

fn tag(vlan: u16) -> Result<[u8; 4], String> {
    if vlan > 4094 {
        return Err(format!("vlan={vlan}: a VLAN ID is 0 to 4094"));
    }
    let [high, low] = vlan.to_be_bytes();
    Ok([0x81, 0x00, high, low])
}

/// Returns the Ethertype and the packet.
fn with_packet(packet: &Packet) -> Result<Vec<u8>, String> {
    let Packet { from, to, protocol, port } = *packet;
    // Its addresses are put in front later.
    let start = PacketBuilder::ethernet2([0; 6], [0; 6]);
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => start.ipv4(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(from), IpAddr::V6(to)) => start.ipv6(from.octets(), to.octets(), HOP_LIMIT),
        _ => return Err(format!("ip={from}>{to}: give two addresses of one IP version")),
    };
    let mut bytes = Vec::new();
    let written = match protocol {
        Protocol::Tcp => ip.tcp(SOURCE_PORT, port, 1, u16::MAX).syn().write(&mut bytes, &[]),
        Protocol::Udp => ip.udp(SOURCE_PORT, port).write(&mut bytes, &[]),
        Protocol::Icmp if from.is_ipv4() => ip.icmpv4_echo_request(1, 1).write(&mut bytes, &[]),
        Protocol::Icmp => ip.icmpv6_echo_request(1, 1).write(&mut bytes, &[]),
    };
    written.map_err(|error| error.to_string())?;
    Ok(bytes.split_off(12))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trama_frame::ethernet;

    const DST: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn described() -> Described {
        Described { dst: DST, src: None, vlan: None, len: None, ethertype: None, packet: None }
    }

    fn built(frame: &Described) -> Vec<u8> {
        build(frame, MacAddr([2, 0, 0, 0, 0, 1])).unwrap()
    }

    #[test]
    fn a_frame_has_what_is_described() {
        let plain = built(&described());
        let header = ethernet::parse(&plain).unwrap();
        assert_eq!((plain.len(), header.ethertype), (60, 0x88b5));
        assert_eq!((header.dst.0, header.src.0), (DST, [2, 0, 0, 0, 0, 1]));

        let packet = Packet {
            from: "10.0.2.15".parse().unwrap(),
            to: "8.8.8.8".parse().unwrap(),
            protocol: Protocol::Udp,
            port: 53,
        };
        let packet =
            Described { vlan: Some(7), len: Some(100), packet: Some(packet), ..described() };
        let bytes = built(&packet);
        assert_eq!(bytes.len(), 100);
        let parsed = etherparse::SlicedPacket::from_ethernet(&bytes).unwrap();
        assert_eq!(parsed.vlan_ids()[0].value(), 7);
        let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else { panic!("no UDP") };
        assert_eq!(udp.destination_port(), 53);
    }

    #[test]
    fn what_no_frame_can_have_is_refused() {
        let message = |frame: Described| build(&frame, MacAddr([2; 6])).unwrap_err();
        assert!(message(Described { len: Some(13), ..described() }).contains("14 to 65553 bytes"));
        assert!(message(Described { vlan: Some(4095), ..described() }).contains("0 to 4094"));
        let packet = Packet {
            from: "10.0.2.15".parse().unwrap(),
            to: "::1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 1,
        };
        let message = message(Described { packet: Some(packet), ..described() });
        assert!(message.contains("one IP version"), "{message}");
    }
}
