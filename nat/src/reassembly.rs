//! Reassembly of guests' packets (RFC 791, 3.2; RFC 8200, 4.5), within limits.
//!
//! A packet with overlapping fragments is discarded, including fragments that arrive later (RFC
//! 5722; applied to IPv4, too, where overlaps only occur in attacks). Only exact duplicates of a
//! fragment are ignored. An incomplete packet is dropped after 30 s. A switch port with too many
//! incomplete packets loses its own oldest.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::{EthernetProtocol, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet};
use trama_frame::MacAddr;

use crate::drop_reason::{Counters, DropReason};
use crate::flow_table::{FlowTable, Limits};
use crate::io::PortMark;
use crate::packet::inbound::Inbound;
use crate::packet::outbound::FRAGMENT_HEADER;

/// Within the 60 s of RFC 8200, and as in Linux for IPv4.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Incomplete packets. Each takes at most 64 KiB: 4 MiB for a port, 32 MiB in total.
const LIMITS: Limits = Limits { port: 64, total: 512 };
/// Fragments of a packet: enough for the longest one in packets of 576 bytes, which every host
/// accepts.
const MAX_FRAGMENTS: usize = 128;

/// What the fragments of a packet have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortMark,
    source: IpAddr,
    destination: IpAddr,
    /// Of IPv4, where identifications of different protocols may coincide; 0 for IPv6.
    protocol: u8,
    id: u32,
}

/// A fragment without its headers.
#[derive(Clone, Copy)]
struct Fragment<'a> {
    offset: usize,
    more: bool,
    bytes: &'a [u8],
    /// The headers of the whole packet if this is its first fragment.
    head: &'a [u8],
}

/// The fragments of a packet so far.
#[derive(Default)]
struct Partial {
    head: Vec<u8>,
    bytes: Vec<u8>,
    /// Start and end of each fragment, sorted.
    ranges: Vec<(usize, usize)>,
    filled: usize,
    /// The length, once the last fragment has arrived.
    total: Option<usize>,
    /// Fragments overlapped, so the packet is discarded.
    is_discarded: bool,
}

/// Incomplete packets.
pub(crate) struct Reassembly {
    table: FlowTable<Key, Partial, 1>,
}

impl Default for Reassembly {
    fn default() -> Reassembly {
        Reassembly { table: FlowTable::new([TIMEOUT], LIMITS) }
    }
}

impl Reassembly {
    /// Adds a fragment. Returns the whole packet if this one completes it: for IPv4 without a trace
    /// of fragmentation, for IPv6 with the fragment header of an atomic fragment, which shows that
    /// it was fragmented.
    pub(crate) fn add(
        &mut self,
        now: Duration,
        packet: &Inbound<'_>,
        counters: &mut Counters,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let (key, fragment) = parse(packet).ok_or(DropReason::BadFragment)?;
        let number = match self.table.find(&key) {
            Some(number) => number,
            None => {
                if let Some(number) = self.table.eviction_candidate(key.port) {
                    self.table.remove(number);
                    counters.drop(DropReason::FragmentLimit);
                }
                self.table.insert(now, key.port, key, Partial::default(), 0)
            }
        };
        let Some(partial) = self.table.get_mut(number) else { return Ok(None) };
        if !partial.add(&fragment)? {
            return Ok(None);
        }
        let whole = self.table.remove(number).and_then(|(_, partial)| partial.assemble());
        whole.ok_or(DropReason::BadFragment).map(Some)
    }

    /// Drops packets that are incomplete for too long.
    pub(crate) fn poll(&mut self, now: Duration, counters: &mut Counters) {
        while let Some(number) = self.table.expired(now) {
            self.table.remove(number);
            counters.drop(DropReason::FragmentTimeout);
        }
    }

    /// When [`Reassembly::poll`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.table.deadline()
    }
}

impl Partial {
    /// Adds a fragment. Returns whether the packet is complete.
    fn add(&mut self, fragment: &Fragment<'_>) -> Result<bool, DropReason> {
        let (start, end) = (fragment.offset, fragment.offset + fragment.bytes.len());
        if self.is_discarded {
            return Err(DropReason::BadFragment);
        }
        let at = self.ranges.partition_point(|range| range.0 < start);
        if self.ranges.get(at) == Some(&(start, end)) && self.bytes[start..end] == *fragment.bytes {
            return Ok(false);
        }
        let before = at.checked_sub(1).map_or(0, |before| self.ranges[before].1);
        let after = self.ranges.get(at).map_or(usize::MAX, |range| range.0);
        let longest = self.ranges.last().map_or(0, |range| range.1);
        let is_odd_end = match (self.total, fragment.more) {
            (Some(total), true) => end > total,
            (Some(_), false) => true,
            (None, true) => false,
            (None, false) => longest > end,
        };
        if start < before || end > after || is_odd_end || self.ranges.len() >= MAX_FRAGMENTS {
            *self = Partial { is_discarded: true, ..Partial::default() };
            return Err(DropReason::BadFragment);
        }
        self.ranges.insert(at, (start, end));
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(fragment.bytes);
        self.filled += fragment.bytes.len();
        if start == 0 {
            self.head = fragment.head.to_vec();
        }
        if !fragment.more {
            self.total = Some(end);
        }
        Ok(self.total == Some(self.filled))
    }

    /// The whole packet.
    fn assemble(self) -> Option<Vec<u8>> {
        let mut whole = self.head;
        let head = whole.len();
        whole.extend_from_slice(&self.bytes);
        let total = u16::try_from(whole.len()).ok()?;
        if whole.first()? >> 4 == 4 {
            whole[6..8].fill(0);
            let mut packet = Ipv4Packet::new_unchecked(&mut whole[..]);
            packet.set_total_len(total);
            packet.fill_checksum();
        } else {
            let field = head - FRAGMENT_HEADER + 2;
            whole[field..field + 2].fill(0);
            let length = total.checked_sub(IPV6_HEADER_LEN as u16)?;
            Ipv6Packet::new_unchecked(&mut whole[..]).set_payload_len(length);
        }
        Some(whole)
    }
}

/// Parses a fragment; `None` if it is not valid.
fn parse<'a>(packet: &Inbound<'a>) -> Option<(Key, Fragment<'a>)> {
    let head = packet.packet.len() - packet.payload.len();
    let (id, protocol, offset, more, head) = match packet.source {
        IpAddr::V4(_) => {
            let header = Ipv4Packet::new_unchecked(packet.packet);
            let (id, protocol) = (header.ident().into(), header.next_header().into());
            (id, protocol, header.frag_offset(), header.more_frags(), head)
        }
        IpAddr::V6(_) => {
            let [_, _, high, low, id @ ..] = *packet.payload.first_chunk::<FRAGMENT_HEADER>()?;
            let field = u16::from_be_bytes([high, low]);
            (u32::from_be_bytes(id), 0, field & !7, field & 1 == 1, head + FRAGMENT_HEADER)
        }
    };
    let (head, bytes) = packet.packet.split_at_checked(head)?;
    let offset = usize::from(offset);
    let is_whole_words = bytes.len() % 8 == 0;
    let fits = head.len() + offset + bytes.len() <= usize::from(u16::MAX);
    if bytes.is_empty() || (more && !is_whole_words) || !fits {
        return None;
    }
    let (port, source, destination) = (packet.port, packet.source, packet.destination);
    Some((Key { port, source, destination, protocol, id }, Fragment { offset, more, bytes, head }))
}

/// Parses the packet that reassembly made, whose last fragment was `last`.
pub(crate) fn parse_whole<'a>(packet: &'a [u8], last: &Inbound<'_>) -> Option<Inbound<'a>> {
    let (protocol, hop_limit, head) = match last.source {
        IpAddr::V4(_) => {
            let header = Ipv4Packet::new_checked(packet).ok()?;
            (header.next_header(), header.hop_limit(), header.header_len().into())
        }
        IpAddr::V6(_) => {
            let header = Ipv6Packet::new_checked(packet).ok()?;
            let next = IpProtocol::from(*packet.get(IPV6_HEADER_LEN)?);
            (next, header.hop_limit(), IPV6_HEADER_LEN + FRAGMENT_HEADER)
        }
    };
    let payload = packet.get(head..)?;
    let offload = trama_frame::VnetHeader::default();
    Some(Inbound { protocol, hop_limit, packet, payload, offload, ..*last })
}

/// A frame with a reassembled packet, for the station `to`. It does not show that the packet was
/// fragmented.
pub(crate) fn to_frame(to: MacAddr, whole: &Inbound<'_>) -> Vec<u8> {
    let (ethertype, mut packet) = match whole.source {
        IpAddr::V4(_) => (EthernetProtocol::Ipv4, whole.packet.to_vec()),
        IpAddr::V6(_) => {
            let mut packet = whole.packet[..IPV6_HEADER_LEN].to_vec();
            packet.extend_from_slice(whole.payload);
            (EthernetProtocol::Ipv6, packet)
        }
    };
    if whole.source.is_ipv6() {
        let mut header = Ipv6Packet::new_unchecked(&mut packet[..]);
        header.set_next_header(whole.protocol);
        header.set_payload_len(whole.payload.len() as u16);
    }
    let fill = |bytes: &mut [u8]| bytes.copy_from_slice(&packet);
    crate::packet::frame(whole.mac, to, ethertype, packet.len(), fill)
}

#[cfg(test)]
mod tests;
