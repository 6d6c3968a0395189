//! A line for each frame, in tcpdump's words: `tcpdump -n -S`, with the port and the way as its
//! `-i any` has them.
//!
//! Lengths are those that the headers state, because a capture may hold the beginning of a frame
//! only. What cannot be read ends the line with `[|ip]`, as there. It differs in this: a tag is
//! always shown, of what is above UDP only the name is said (but for DHCP), and a dropped frame
//! ends with its reason.

mod arp;
mod datagram;
mod icmp;
mod ip;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use trama_frame::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN};

use crate::head::ETHERTYPE_ARP;
use crate::pcapng::{Frame, Way};

/// EtherType of LLDP.
const ETHERTYPE_LLDP: u16 = 0x88cc;
/// The least EtherType; below it is a length (IEEE 802.3).
const MIN_ETHERTYPE: u16 = 0x0600;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// Returns the line of a frame that passed `port`; `link_level` adds its Ethernet header.
pub fn line(frame: &Frame<'_>, port: &str, link_level: bool) -> String {
    let mut line = String::new();
    // Writing to memory does not fail.
    let _ = write_line(&mut line, frame, port, link_level);
    line
}

/// Returns what a frame carries, in words, from its first bytes; `len` is that of all of it. `None`
/// if it ends within its Ethernet header.
pub fn packet(bytes: &[u8], len: u32) -> Option<String> {
    let frame = Frame {
        interface: 0,
        time: Duration::ZERO,
        way: Way::In,
        id: 0,
        queue: 0,
        missed: 0,
        comment: None,
        len,
        bytes: bytes.into(),
    };
    let mut text = String::new();
    // Writing to memory does not fail.
    write_ethernet(&mut text, &frame, false).ok().flatten().map(|()| text)
}

fn write_line(out: &mut String, frame: &Frame<'_>, port: &str, link_level: bool) -> fmt::Result {
    let seconds = frame.time.as_secs() % DAY;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = frame.time.subsec_micros();
    let way = match frame.way {
        Way::In => "In",
        Way::Out => "Out",
    };
    write!(out, "{hours:02}:{minutes:02}:{seconds:02}.{micros:06} {port} {way:<3} ")?;
    if write_ethernet(out, frame, link_level)?.is_none() {
        out.push_str("[|ether]");
    }
    if let Some(reason) = frame.comment.as_deref() {
        write!(out, ", {reason}")?;
    }
    Ok(())
}

/// Writes what follows the place and the way; `None` if the frame ends within its header.
fn write_ethernet(
    out: &mut String,
    frame: &Frame<'_>,
    link_level: bool,
) -> Result<Option<()>, fmt::Error> {
    let Some(header) = ethernet::parse(&frame.bytes) else { return Ok(None) };
    let Some((start, ethertype)) = ethernet::behind_tags(&frame.bytes) else { return Ok(None) };
    let is_known = matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_ARP);
    let link_level = link_level || !is_known;
    if link_level {
        let outer = header.tag.map_or(header.ethertype, |tag| tag.tpid);
        let kind = Kind(outer);
        write!(out, "{} > {}, {kind}, length {}: ", header.src, header.dst, frame.len)?;
    }
    write_tags(out, &frame.bytes[14..start], link_level)?;
    let packet = Packet {
        bytes: &frame.bytes[start..],
        len: (frame.len as usize).saturating_sub(start),
        has_name: !link_level,
    };
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip::write(out, ethertype, packet)?,
        ETHERTYPE_ARP => arp::write(out, packet)?,
        // Nothing more is known of others.
        _ => out.truncate(out.trim_end_matches([':', ' ', ',']).len()),
    }
    Ok(Some(()))
}

/// Writes tags; each has a TCI and the type of what follows.
fn write_tags(out: &mut String, tags: &[u8], link_level: bool) -> fmt::Result {
    for tag in tags.chunks_exact(4) {
        let (tci, next) = (u16::from_be_bytes([tag[0], tag[1]]), [tag[2], tag[3]]);
        let dei = if tci & 0x1000 != 0 { ", DEI" } else { "" };
        write!(out, "vlan {}, p {}{dei}, ", tci & 0xfff, tci >> 13)?;
        if link_level {
            write!(out, "{}, ", Kind(u16::from_be_bytes(next)))?;
        }
    }
    Ok(())
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy)]
struct Packet<'a> {
    /// The captured part.
    bytes: &'a [u8],
    /// Its whole length with padding.
    len: usize,
    /// Whether its protocol is said here, as no Ethernet header is shown.
    has_name: bool,
}

/// What an EtherType or a length says.
struct Kind(u16);

impl Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            length if length < MIN_ETHERTYPE => return out.write_str("802.3"),
            ETHERTYPE_IPV4 => "IPv4",
            ETHERTYPE_IPV6 => "IPv6",
            ETHERTYPE_ARP => "ARP",
            ETHERTYPE_VLAN => "802.1Q",
            ETHERTYPE_QINQ => "802.1Q-QinQ",
            ETHERTYPE_LLDP => "LLDP",
            _ => "Unknown",
        };
        write!(out, "ethertype {name} ({:#06x})", self.0)
    }
}
