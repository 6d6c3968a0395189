//! Why a frame got no answer. The reason is the enum, the counter and the metric's label in one.

use std::collections::BTreeMap;

trama_frame::drop_reasons! {
    "Why the gateway refused a frame, or what came of it."
    BadEthernet "bad_ethernet"
        "Shorter than an Ethernet header, or from a group address."
    OtherStation "other_station"
        "For another station; the switch floods what it does not know yet."
    UnknownEthertype "unknown_ethertype"
        "Neither ARP nor IPv4 nor IPv6."
    BadArp "bad_arp"
        "Not an Ethernet/IPv4 request or reply, or its sender is not who sent the frame."
    BadIp "bad_ip"
        "Broken header, wrong checksum, or shorter than it says."
    Fragment "fragment"
        "A fragment of a packet for a group, or for everybody."
    BadFragment "bad_fragment"
        "A fragment that cannot be one, or overlaps another one of its packet."
    FragmentLimit "fragment_limit"
        "The switch port, or all together, had too many packets in fragments under way."
    FragmentTimeout "fragment_timeout"
        "Fragments of a packet did not come in time."
    ForeignSource "foreign_source"
        "The sender's address is none of the network."
    OtherAddress "other_address"
        "For an address that the gateway does not have."
    UnknownProtocol "unknown_protocol"
        "Neither ICMP nor UDP."
    BadIcmp "bad_icmp"
        "Malformed ICMP or neighbour discovery, or one that breaks its rules."
    IcmpUnanswered "icmp_unanswered"
        "Well-formed ICMP that asks nothing of a gateway."
    IcmpUnmatched "icmp_unmatched"
        "An ICMP error of a machine about no flow of its switch port, or about what is not on its way."
    IcmpSoft "icmp_soft"
        "An ICMP error of a machine that changes nothing: one that may pass, or tells what is known."
    BadUdp "bad_udp"
        "Malformed UDP."
    ClosedPort "closed_port"
        "UDP for a port on which nothing is offered."
    BadDns "bad_dns"
        "Not a DNS question; unless it may be an answer, it was answered FORMERR."
    DnsLimit "dns_limit"
        "The sender has its share of DNS questions (it was answered SERVFAIL), or of connections."
    DnsUnasked "dns_unasked"
        "A DNS server sent what answers no question."
    BadTftp "bad_tftp"
        "Not a TFTP packet that a server takes."
    TftpLimit "tftp_limit"
        "The sender, or all together, have too many TFTP transfers under way."
    DhcpRefused "dhcp_refused"
        "The DHCP server does not answer it; its own counters say why."
    Throttled "throttled"
        "What it asks for is under way already."
    TooLong "too_long"
        "The answer does not fit into the network's MTU."
    BadTcp "bad_tcp"
        "Malformed TCP."
    NoFlow "no_flow"
        "TCP of no flow; it was reset."
    FlowLimit "flow_limit"
        "The sender has as many flows, or as many that begin, as one may have."
    NoStation "no_station"
        "A client of a forward came, but no machine has the address that it leads to."
    FileLimit "file_limit"
        "The host has no descriptor left for another flow or DNS question."
    HopLimit "hop_limit"
        "The packet's hops ended at the gateway."
    Unreachable "unreachable"
        "The host knows no way to the packet's destination, or lost the address that it leaves from."
    Denied "denied"
        "The sender may not reach the packet's destination."
    RingFull "ring_full"
        "The ring to the switch has no room for the answer."
    FlowEvicted "flow_evicted"
        "A flow ended before its time to make room: its switch port, or all together, had too many."
    HostBusy "host_busy"
        "The host takes no more for now: a socket's buffer is full."
    HostError "host_error"
        "The host or the network reported what is nothing for a machine."
    PingForbidden "ping_forbidden"
        "The host does not let this process ping."
    IcmpLimit "icmp_limit"
        "The switch port got as many ICMP errors as it may."
    UdpUnasked "udp_unasked"
        "A datagram from somebody to whom the machine has sent nothing."
    ReflectMalformed "reflect_malformed"
        "mDNS or SSDP that is neither a question nor an answer as it should be."
    ReflectWithheld "reflect_withheld"
        "What a machine announces of itself: nobody on the host's links could reach it."
    ReflectLimit "reflect_limit"
        "More of mDNS and SSDP than a switch port may send out, or than is let in."
    PolicyLoopback "policy_loopback"
        "For the host's loopback, which only a loopback map opens."
    PolicyReserved "policy_reserved"
        "For an address that stands for no machine, or hides another one."
    PolicyLinkLocal "policy_link_local"
        "For an address that only has a meaning on one link."
    PolicyMetadata "policy_metadata"
        "For a service that tells a cloud machine its secrets."
    PolicyMulticast "policy_multicast"
        "For a group."
    PolicyBroadcast "policy_broadcast"
        "For everybody."
}

/// What a gateway did so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames taken from the switch.
    pub received: u64,
    /// Frames given to the switch.
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

    /// Drops by label, without those that did not happen.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let counted = DropReason::ALL.iter().zip(&self.drops).filter(|(_, count)| **count > 0);
        counted.map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
    }
}
