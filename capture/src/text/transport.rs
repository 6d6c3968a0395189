//! TCP and UDP.

use std::fmt::{self, Write as _};

use etherparse::{TcpOptionElement, TcpSlice, UdpSlice};
use trama_frame::MacAddr;

use super::datagram::Datagram;

/// What is spoken at L4 ports of UDP.
const SERVICES: [(u16, &str); 8] = [
    (53, "DNS"),
    (69, "TFTP"),
    (123, "NTP"),
    (546, "DHCPv6"),
    (547, "DHCPv6"),
    (1900, "SSDP"),
    (4789, "VXLAN"),
    (5353, "mDNS"),
];

/// L4 ports of a DHCP server and of its client.
const DHCP: [u16; 2] = [67, 68];

pub(super) fn write_tcp(out: &mut String, datagram: &Datagram<'_>) -> fmt::Result {
    let Datagram { source, destination, .. } = datagram;
    let Ok(tcp) = TcpSlice::from_slice(datagram.bytes) else {
        return write!(out, "{source} > {destination}: [|tcp]");
    };
    let (from, to) = (tcp.source_port(), tcp.destination_port());
    write!(out, "{source}.{from} > {destination}.{to}: Flags [{}]", flags(&tcp))?;
    let length = datagram.len.saturating_sub(tcp.header_slice().len());
    let sequence = tcp.sequence_number();
    if length > 0 {
        write!(out, ", seq {sequence}:{}", sequence.wrapping_add(length as u32))?;
    } else if tcp.syn() || tcp.fin() || tcp.rst() {
        write!(out, ", seq {sequence}")?;
    }
    if tcp.ack() {
        write!(out, ", ack {}", tcp.acknowledgment_number())?;
    }
    write!(out, ", win {}", tcp.window_size())?;
    if tcp.urg() {
        write!(out, ", urg {}", tcp.urgent_pointer())?;
    }
    if !tcp.options().is_empty() {
        write!(out, ", options [{}]", options(&tcp))?;
    }
    write!(out, ", length {length}")
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let all = [
        (tcp.fin(), 'F'),
        (tcp.syn(), 'S'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.ack(), '.'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
    ];
    let set: String = all.iter().filter(|(is_set, _)| *is_set).map(|(_, sign)| sign).collect();
    if set.is_empty() { "none".to_owned() } else { set }
}

fn options(tcp: &TcpSlice<'_>) -> String {
    let mut texts = Vec::new();
    let mut options = tcp.options_iterator();
    while let Some(option) = options.next() {
        texts.push(match option {
            Ok(TcpOptionElement::Noop) => "nop".to_owned(),
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => format!("mss {size}"),
            Ok(TcpOptionElement::WindowScale(shift)) => format!("wscale {shift}"),
            Ok(TcpOptionElement::SelectiveAcknowledgementPermitted) => "sackOK".to_owned(),
            Ok(TcpOptionElement::SelectiveAcknowledgement(first, rest)) => {
                let blocks = std::iter::once(Some(first)).chain(rest).flatten();
                let blocks: Vec<_> =
                    blocks.map(|(left, right)| format!("{{{left}:{right}}}")).collect();
                format!("sack {} {}", blocks.len(), blocks.concat())
            }
            Ok(TcpOptionElement::Timestamp(value, echo)) => format!("TS val {value} ecr {echo}"),
            // The iterator ends with it.
            Err(_) => format!("unknown-{}", options.rest().first().copied().unwrap_or(0)),
        });
    }
    // The end of the list is no element for the iterator.
    if options.rest().first() == Some(&0) {
        texts.push("eol".to_owned());
    }
    texts.join(",")
}

pub(super) fn write_udp(out: &mut String, datagram: &Datagram<'_>) -> fmt::Result {
    let Datagram { source, destination, .. } = datagram;
    let Ok(udp) = UdpSlice::from_slice_lax(datagram.bytes) else {
        return write!(out, "{source} > {destination}: [|udp]");
    };
    let ports = [udp.source_port(), udp.destination_port()];
    write!(out, "{source}.{} > {destination}.{}: ", ports[0], ports[1])?;
    let length = match usize::from(udp.length()) {
        // A segment too large for its header states no length.
        0 => datagram.len.saturating_sub(8),
        stated => stated.saturating_sub(8),
    };
    if ports.iter().any(|port| DHCP.contains(port)) {
        return write_dhcp(out, udp.payload(), length);
    }
    let name = SERVICES.iter().find(|(port, _)| ports.contains(port)).map_or("UDP", |it| it.1);
    write!(out, "{name}, length {length}")
}

/// Writes which side a DHCP message is from (RFC 2131, figure 1).
fn write_dhcp(out: &mut String, message: &[u8], length: usize) -> fmt::Result {
    let mac = || message.get(28..).and_then(|bytes| bytes.first_chunk()).copied().map(MacAddr);
    match (message.first(), mac()) {
        (Some(1), Some(mac)) => {
            write!(out, "BOOTP/DHCP, Request from {mac}, length {length}")
        }
        (Some(2), _) => write!(out, "BOOTP/DHCP, Reply, length {length}"),
        _ => write!(out, "BOOTP/DHCP, length {length}"),
    }
}
