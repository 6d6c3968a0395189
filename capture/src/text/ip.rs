//! Addresses and lengths of IP, of both versions.

use std::fmt::{self, Write as _};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket};

use super::datagram::Datagram;
use super::{Packet, icmp, transport};
use crate::head::{ICMP, ICMPV6, TCP, UDP, ipv6_payload};

pub(super) fn write(out: &mut String, ethertype: u16, packet: Packet<'_>) -> fmt::Result {
    let sliced = LaxSlicedPacket::from_ether_type(EtherType(ethertype), packet.bytes);
    let Some(datagram) = sliced.net.as_ref().and_then(|net| read(net, &packet)) else {
        out.push_str(if packet.has_name { "IP [|ip]" } else { "[|ip]" });
        return Ok(());
    };
    if packet.has_name {
        out.push_str(if datagram.source.is_ipv4() { "IP " } else { "IP6 " });
    }
    write_datagram(out, &datagram)
}

/// Reads the headers of IP.
fn read<'a>(net: &LaxNetSlice<'a>, packet: &Packet<'_>) -> Option<Datagram<'a>> {
    let len = packet.len;
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let (header, payload) = (ip.header(), ip.payload());
            let total = usize::from(header.total_len());
            // A segment too large for its header states no length.
            let total = if total == 0 { len } else { total };
            Some(Datagram {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                protocol: payload.ip_number.0,
                bytes: payload.payload,
                len: total.saturating_sub(header.slice().len()),
                is_rest: header.fragments_offset().value() != 0,
            })
        }
        LaxNetSlice::Ipv6(ip) => {
            let (header, payload) = (ip.header(), ip.payload());
            let extensions = ip.extensions().slice().len();
            let stated = usize::from(header.payload_length());
            let stated = if stated == 0 { len.saturating_sub(40) } else { stated };
            // `etherparse` reads beyond the end where it iterates over headers that are cut off.
            let is_rest = ipv6_payload(packet.bytes).is_some_and(|it| !it.is_first);
            Some(Datagram {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                protocol: payload.ip_number.0,
                bytes: payload.payload,
                len: stated.saturating_sub(extensions),
                is_rest,
            })
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn write_datagram(out: &mut String, datagram: &Datagram<'_>) -> fmt::Result {
    let Datagram { source, destination, protocol, .. } = datagram;
    if datagram.is_rest {
        return write!(out, "{source} > {destination}: ip-proto-{protocol}");
    }
    match *protocol {
        TCP => transport::write_tcp(out, datagram),
        UDP => transport::write_udp(out, datagram),
        ICMP if source.is_ipv4() => icmp::write_v4(out, datagram),
        ICMPV6 if source.is_ipv6() => icmp::write_v6(out, datagram),
        _ => write!(out, "{source} > {destination}: ip-proto-{protocol} {}", datagram.len),
    }
}
