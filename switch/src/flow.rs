//! Chooses the driver's receive ring for a frame by its flow.
//!
//! All frames of a flow have the same hash in both directions, so a driver finds a connection on
//! one ring and in order. The hash is seeded: a sender cannot aim at one ring of another guest. It
//! uses only bytes that the private head holds for every virtio-net header and number of tags,
//! because one flow has frames with and without offloads.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use trama_frame::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MIN_HEADER, TAG_LEN};

/// Bytes used from the network header on: an IPv6 header and two L4 ports.
const HASHED_LEN: usize = 44;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Hashes flows with a secret seed.
pub(crate) struct FlowHasher(FixedState);

impl Default for FlowHasher {
    fn default() -> Self {
        FlowHasher::new(0)
    }
}

impl FlowHasher {
    pub(crate) fn new(seed: u64) -> FlowHasher {
        FlowHasher(FixedState::with_seed(seed))
    }

    /// Returns one of `count` (at least one) rings for the frame that begins with `head`.
    pub(crate) fn ring_for(&self, head: &[u8], count: usize) -> usize {
        // The upper half of a product spreads 32 bits evenly over any count.
        (((self.hash(head) >> 32) * count as u64) >> 32) as usize
    }

    fn hash(&self, head: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        if !hash_network(&mut hasher, head)
            && let Some(ethernet) = ethernet::parse(head)
        {
            add_pair(&mut hasher, ethernet.dst.to_u64(), ethernet.src.to_u64());
        }
        hasher.finish()
    }
}

/// Adds a pair of values independently of their order.
fn add_pair<T: Ord + Into<u64>>(hasher: &mut impl Hasher, one: T, other: T) {
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    hasher.write_u64(low.into());
    hasher.write_u64(high.into());
}

/// Adds addresses and L4 ports of an IP packet; returns `false` if it is not one.
fn hash_network(hasher: &mut impl Hasher, head: &[u8]) -> bool {
    let Some((ethertype, packet)) = network(head) else { return false };
    let (pair, ports) = match ethertype {
        ETHERTYPE_IPV4 => (packet.get(12..20), ipv4_ports(packet)),
        ETHERTYPE_IPV6 => (packet.get(8..40), ipv6_ports(packet)),
        _ => return false,
    };
    let Some((source, destination)) = pair.map(|pair| pair.split_at(pair.len() / 2)) else {
        return false;
    };
    // Slices compare by their bytes.
    let (low, high) =
        if source < destination { (source, destination) } else { (destination, source) };
    hasher.write(low);
    hasher.write(high);
    if let Some([a, b, c, d]) = ports.and_then(|ports| ports.first_chunk()) {
        add_pair(hasher, u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    }
    true
}

/// Returns the EtherType behind the tags, and the part of the packet to hash.
fn network(head: &[u8]) -> Option<(u16, &[u8])> {
    let (start, ethertype) = ethernet::behind_tags(head)?;
    let inner_tags = start.saturating_sub(MIN_HEADER + TAG_LEN);
    let packet = head.get(start..)?;
    Some((ethertype, &packet[..packet.len().min(HASHED_LEN - inner_tags)]))
}

/// Returns the L4 ports of an unfragmented packet: later fragments have none and belong to the
/// first.
fn ipv4_ports(packet: &[u8]) -> Option<&[u8]> {
    let [length, flags, offset, protocol] = [0, 6, 7, 9].map(|at| packet.get(at).copied());
    let is_whole = flags? & 0x3f == 0 && offset? == 0;
    let start = usize::from(length? & 0xf) * 4;
    if !is_whole || !matches!(protocol?, TCP | UDP) {
        return None;
    }
    packet.get(start..start + 4)
}

fn ipv6_ports(packet: &[u8]) -> Option<&[u8]> {
    matches!(packet.get(6)?, &TCP | &UDP).then(|| packet.get(40..44))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds the head of a TCP or UDP packet with these tags.
    fn packet(tags: &[u16], v6: bool, ends: [(u8, u16); 2], protocol: u8) -> Vec<u8> {
        let [(from, from_port), (to, to_port)] = ends;
        let mut bytes = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from];
        for tci in tags {
            bytes.extend([0x81, 0x00]);
            bytes.extend(tci.to_be_bytes());
        }
        if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, protocol, 64]);
            for address in [from, to] {
                bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, address]);
            }
        } else {
            bytes.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0]);
            [from, to].iter().for_each(|address| bytes.extend([10, 0, 0, *address]));
        }
        bytes.extend(from_port.to_be_bytes());
        bytes.extend(to_port.to_be_bytes());
        bytes.resize(128, 0xee);
        bytes
    }

    fn hash(head: &[u8]) -> u64 {
        FlowHasher::new(5).hash(head)
    }

    proptest! {
        #[test]
        fn both_directions_are_one_flow_whatever_the_tags_and_the_head(
            v6: bool,
            tags in prop::collection::vec(any::<u16>(), 0..12),
            a in any::<(u8, u16)>(),
            b in any::<(u8, u16)>(),
            protocol in prop::sample::select(vec![TCP, UDP]),
        ) {
            let there = packet(&tags, v6, [a, b], protocol);
            let back = packet(&tags, v6, [b, a], protocol);
            prop_assert_eq!(hash(&there), hash(&back));
            // As long as the head of a plain header, and as one that has lost its tag.
            prop_assert_eq!(hash(&there), hash(&there[..64]));
            if let [_, rest @ ..] = &tags[..] {
                let popped = packet(rest, v6, [a, b], protocol);
                if tags.len() == 1 {
                    prop_assert_eq!(hash(&there), hash(&popped[..60]));
                }
            }
        }

        #[test]
        fn any_number_of_bytes_is_hashed(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            prop_assert!(FlowHasher::new(1).ring_for(&bytes, 3) < 3);
        }
    }

    #[test]
    fn l4_ports_distinguish_and_spread_flows() {
        for v6 in [false, true] {
            let mut rings = [0; 4];
            for port in 1000..2000 {
                let head = packet(&[], v6, [(1, port), (2, 80)], TCP);
                rings[FlowHasher::new(9).ring_for(&head, 4)] += 1;
            }
            assert!(rings.iter().all(|flows| (150..350).contains(flows)), "{rings:?}");
        }
    }

    #[test]
    fn fragments_stay_with_their_first() {
        let mut first = packet(&[], false, [(1, 1000), (2, 80)], UDP);
        first[14 + 6] = 0x20;
        let mut later = first.clone();
        later[14 + 6] = 0;
        later[14 + 7] = 185;
        later[14 + 20] ^= 0xff;
        assert_eq!(hash(&first), hash(&later));
    }

    #[test]
    fn the_seed_decides_and_other_protocols_go_by_station() {
        let arp = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6][..], &[0; 50]].concat();
        let answer = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6][..], &[7; 50]].concat();
        assert_eq!(hash(&arp), hash(&answer));
        assert_ne!(hash(&arp), FlowHasher::new(6).hash(&arp));
    }
}
