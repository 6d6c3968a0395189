//! Drop reasons: the enum, the counter and the metric label in one.

use std::collections::BTreeMap;

trama_frame::drop_reasons! {
    "Why a frame or flow was dropped."
    BadEthernet "bad_ethernet"
        "Shorter than an Ethernet header, or its source is a group address."
    OtherStation "other_station"
        "For another station: the switch floods frames to unknown stations."
    UnknownEthertype "unknown_ethertype"
        "Not ARP, IPv4 or IPv6."
    BadArp "bad_arp"
        "Not an Ethernet/IPv4 request or reply, or its sender is not the source of the frame."
    BadIp "bad_ip"
        "Invalid header, wrong checksum, or truncated."
    BadFragment "bad_fragment"
        "Invalid, or overlaps another fragment of its packet."
    FragmentLimit "fragment_limit"
        "Too many incomplete packets of the switch port, or in total."
    FragmentTimeout "fragment_timeout"
        "Fragments of the packet did not arrive in time."
    ForeignSource "foreign_source"
        "The source address is not one of the network's."
    OtherAddress "other_address"
        "For an address that the gateway does not have."
    UnknownProtocol "unknown_protocol"
        "Not TCP, UDP or ICMP."
    BadIcmp "bad_icmp"
        "Malformed ICMP or neighbour discovery, or in violation of its rules."
    IcmpUnanswered "icmp_unanswered"
        "An ICMP message that needs no answer."
    IcmpUnmatched "icmp_unmatched"
        "A guest's ICMP error that matches no flow of its switch port, or nothing in flight."
    IcmpSoft "icmp_soft"
        "A guest's ICMP error that changes nothing: temporary, or known already."
    BadUdp "bad_udp"
        "Malformed UDP."
    TooLong "too_long"
        "The answer exceeds the network's MTU."
    BadTcp "bad_tcp"
        "Malformed TCP."
    NoFlow "no_flow"
        "TCP of no flow; answered with a reset."
    FlowLimit "flow_limit"
        "Too many flows of the sender, or too many that are not established."
    NoStation "no_station"
        "A client of a forward, but no station has the address that it leads to."
    FileLimit "file_limit"
        "No descriptor left on the host for another flow or DNS query."
    HopLimit "hop_limit"
        "The hop limit was exceeded at the gateway."
    Unreachable "unreachable"
        "The host has no route to the destination, or lost the source address."
    Denied "denied"
        "The sender may not reach the destination."
    RingFull "ring_full"
        "No room in the ring to the switch."
    FlowEvicted "flow_evicted"
        "A flow that was closed to make room: too many of its switch port, or in total."
    HostBusy "host_busy"
        "A socket buffer of the host is full."
    HostError "host_error"
        "An error of the host or the network that does not concern the guest."
    PingForbidden "ping_forbidden"
        "The host does not allow the gateway to ping."
    IcmpLimit "icmp_limit"
        "Too many ICMP errors to the switch port."
    UdpUnasked "udp_unasked"
        "A datagram from an address that the guest has not sent to."
    ReflectMalformed "reflect_malformed"
        "Malformed mDNS or SSDP."
    ReflectWithheld "reflect_withheld"
        "An announcement of a guest, which cannot be reached from the host's links."
    ReflectLimit "reflect_limit"
        "Too many mDNS or SSDP messages of the switch port, or to it."
    PolicyLoopback "policy_loopback"
        "For the host's loopback without a loopback map."
    PolicyReserved "policy_reserved"
        "For a reserved address."
    PolicyLinkLocal "policy_link_local"
        "For a link-local address."
    PolicyMetadata "policy_metadata"
        "For a cloud metadata service."
    PolicyMulticast "policy_multicast"
        "For a multicast group."
    PolicyBroadcast "policy_broadcast"
        "For the broadcast address."
}

/// Counters of frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames received from the switch.
    pub received: u64,
    /// Frames sent to the switch.
    pub sent: u64,
    drops: Vec<u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { received: 0, sent: 0, drops: vec![0; DropReason::COUNT] }
    }
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Drops for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Drops by label, without zeros.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let counted = DropReason::ALL.iter().zip(&self.drops).filter(|(_, count)| **count > 0);
        counted.map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
    }
}
