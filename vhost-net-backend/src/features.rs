//! The virtio features that are offered, and what an acknowledged set means for the rings.
//!
//! Numbers and names are those of virtio 1.2, sections 5.1.3 (network device) and 6 (reserved
//! feature bits), and of the vhost-user protocol.

use trama_frame::offload::Offloads;
use trama_virtqueue::RingFeatures;

/// The device accepts frames with a partial checksum.
pub const NET_F_CSUM: u64 = 1;
/// The driver accepts frames with a partial checksum.
pub const NET_F_GUEST_CSUM: u64 = 1 << 1;
/// The VMM may tell the driver an MTU.
pub const NET_F_MTU: u64 = 1 << 3;
/// The configuration has a MAC address.
pub const NET_F_MAC: u64 = 1 << 5;
/// The driver takes large TCPv4 segments.
pub const NET_F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes large TCPv6 segments.
pub const NET_F_GUEST_TSO6: u64 = 1 << 8;
/// The driver takes large TCP segments with ECN.
pub const NET_F_GUEST_ECN: u64 = 1 << 9;
/// The device takes large TCPv4 segments.
pub const NET_F_HOST_TSO4: u64 = 1 << 11;
/// The device takes large TCPv6 segments.
pub const NET_F_HOST_TSO6: u64 = 1 << 12;
/// The device takes large TCP segments with ECN.
pub const NET_F_HOST_ECN: u64 = 1 << 13;
/// A received frame may fill several buffers.
pub const NET_F_MRG_RXBUF: u64 = 1 << 15;
/// The configuration has a link status.
pub const NET_F_STATUS: u64 = 1 << 16;
/// There is a control queue. The VMM serves it; its ring is never passed to the backend.
pub const NET_F_CTRL_VQ: u64 = 1 << 17;
/// More than one pair of rings.
pub const NET_F_MQ: u64 = 1 << 22;
/// vhost: the backend marks the pages that it writes in a log. Frontends acknowledge it while
/// their guest migrates; drivers never see it.
pub const LOG_ALL: u64 = 1 << 26;
/// Indirect descriptors.
pub const RING_INDIRECT_DESC: u64 = 1 << 28;
/// Notifications at an index instead of by flag.
pub const RING_EVENT_IDX: u64 = 1 << 29;
/// vhost-user: protocol features can be negotiated, and rings start disabled.
pub const VHOST_USER_PROTOCOL_FEATURES: u64 = 1 << 30;
/// virtio 1.0 and later.
pub const VERSION_1: u64 = 1 << 32;
/// Buffers are used in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;

/// Everything that can be offered.
pub const ALL: u64 = NET_F_CSUM
    | NET_F_GUEST_CSUM
    | NET_F_MTU
    | NET_F_MAC
    | NET_F_GUEST_TSO4
    | NET_F_GUEST_TSO6
    | NET_F_GUEST_ECN
    | NET_F_HOST_TSO4
    | NET_F_HOST_TSO6
    | NET_F_HOST_ECN
    | NET_F_MRG_RXBUF
    | NET_F_STATUS
    | NET_F_CTRL_VQ
    | NET_F_MQ
    | LOG_ALL
    | RING_INDIRECT_DESC
    | RING_EVENT_IDX
    | VHOST_USER_PROTOCOL_FEATURES
    | VERSION_1
    | IN_ORDER;

/// Features that concern only the driver and its VMM (MAC address, control queue and its commands,
/// announcements). VMMs acknowledge them although no backend has offered them.
const ADDED_BY_VMM: u64 = NET_F_MAC | NET_F_STATUS | 0b0111_1111 << 17;

/// The features offered to a frontend: `mask` (see [`ALL`]) without those that the port lacks. The
/// same options always give the same features: a frontend that reconnects has already passed the
/// first offer on to its driver.
///
/// QEMU and DPDK's virtio-user add the features of the control queue themselves. Other VMMs offer
/// their driver only what the backend offers, so it must be a set that a driver accepts:
///
/// - A driver refuses a device with MQ and without CTRL_VQ (virtio 1.2, section 5.1.3.1), so the
///   two go together. cloud-hypervisor then serves the control queue itself.
/// - With one pair nothing needs CTRL_VQ. crosvm would leave the queue to the backend.
/// - The VMM adds further features of the control queue (CTRL_RX, CTRL_VLAN, CTRL_MAC_ADDR,
///   GUEST_ANNOUNCE, …) itself: cloud-hypervisor adds GUEST_ANNOUNCE, and asks for none of the
///   others.
/// - MAC is offered only if the port has an address: VMMs that read the configuration use the
///   address in it, and one of zeros would be worse than the VMM's own choice.
pub fn offered(mask: u64, queue_pairs: u16, has_mac: bool) -> u64 {
    let of_pairs = if queue_pairs > 1 { 0 } else { NET_F_MQ | NET_F_CTRL_VQ };
    let of_mac = if has_mac { 0 } else { NET_F_MAC };
    mask & ALL & !of_pairs & !of_mac
}

/// The acknowledged features that matter to the backend.
///
/// # Errors
/// The bits that were acknowledged without having been offered and that would change what the
/// rings carry.
pub fn acknowledge(offered: u64, acknowledged: u64) -> Result<u64, u64> {
    match acknowledged & !offered & !ADDED_BY_VMM {
        0 => Ok(acknowledged & offered),
        unknown => Err(unknown),
    }
}

/// The features that change the rings.
pub fn ring_features(acknowledged: u64) -> RingFeatures {
    RingFeatures {
        event_idx: acknowledged & RING_EVENT_IDX != 0,
        indirect: acknowledged & RING_INDIRECT_DESC != 0,
        in_order: acknowledged & IN_ORDER != 0,
        mergeable: acknowledged & NET_F_MRG_RXBUF != 0,
        short_header: acknowledged & (VERSION_1 | NET_F_MRG_RXBUF) == 0,
    }
}

/// The offloads that the driver accepts. Each kind of large segment needs checksum offload
/// (virtio 1.2, section 5.1.3.1), ECN needs one of them.
pub fn offloads(acknowledged: u64) -> Offloads {
    if acknowledged & NET_F_GUEST_CSUM == 0 {
        return Offloads::NONE;
    }
    let mut taken = Offloads::CSUM;
    for (bit, offload) in [(NET_F_GUEST_TSO4, Offloads::TSO4), (NET_F_GUEST_TSO6, Offloads::TSO6)] {
        if acknowledged & bit != 0 {
            taken |= offload;
        }
    }
    if taken != Offloads::CSUM && acknowledged & NET_F_GUEST_ECN != 0 {
        taken |= Offloads::ECN;
    }
    taken
}
