//! Why a frame got no answer. The reason is the enum, the counter and the metric's label in one.

use std::collections::BTreeMap;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why the gateway refused a frame, or what came of it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DropReason {
            $($(#[$doc])* $name,)+
        }

        impl DropReason {
            /// All of them.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];

            /// As metrics spell it.
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header, or from a group address.
    BadEthernet = "bad_ethernet",
    /// For another station; the switch floods what it does not know yet.
    OtherStation = "other_station",
    /// Neither ARP nor IPv4 nor IPv6.
    UnknownEthertype = "unknown_ethertype",
    /// Not an Ethernet/IPv4 request or reply, or its sender is not who sent the frame.
    BadArp = "bad_arp",
    /// Broken header, wrong checksum, or shorter than it says.
    BadIp = "bad_ip",
    /// A fragment: what the gateway offers fits in one packet.
    Fragment = "fragment",
    /// A fragment that cannot be one, or overlaps another one of its packet.
    BadFragment = "bad_fragment",
    /// The switch port, or all together, had too many packets in fragments under way.
    FragmentLimit = "fragment_limit",
    /// Fragments of a packet did not come in time.
    FragmentTimeout = "fragment_timeout",
    /// The sender's address is none of the network.
    ForeignSource = "foreign_source",
    /// For an address that the gateway does not have.
    OtherAddress = "other_address",
    /// Neither ICMP nor UDP.
    UnknownProtocol = "unknown_protocol",
    /// Malformed ICMP or neighbour discovery, or one that breaks its rules.
    BadIcmp = "bad_icmp",
    /// Well-formed ICMP that asks nothing of a gateway.
    IcmpUnanswered = "icmp_unanswered",
    /// Malformed UDP.
    BadUdp = "bad_udp",
    /// UDP for a port on which nothing is offered.
    ClosedPort = "closed_port",
    /// Not a DNS question.
    BadDns = "bad_dns",
    /// The sender, or all together, have too many DNS questions waiting.
    DnsLimit = "dns_limit",
    /// A DNS server sent what answers no question.
    DnsUnasked = "dns_unasked",
    /// Not a TFTP packet that a server takes.
    BadTftp = "bad_tftp",
    /// The sender, or all together, have too many TFTP transfers under way.
    TftpLimit = "tftp_limit",
    /// The DHCP server does not answer it; its own counters say why.
    DhcpRefused = "dhcp_refused",
    /// What it asks for is under way already.
    Throttled = "throttled",
    /// The answer does not fit into the network's MTU.
    TooLong = "too_long",
    /// Malformed TCP.
    BadTcp = "bad_tcp",
    /// TCP of no flow; it was reset.
    NoFlow = "no_flow",
    /// The sender has as many flows, or as many that begin, as one may have.
    FlowLimit = "flow_limit",
    /// A client of a forward came, but no machine has the address that it leads to.
    NoStation = "no_station",
    /// The host has no descriptor left for another flow.
    FileLimit = "file_limit",
    /// The packet's hops ended at the gateway.
    HopLimit = "hop_limit",
    /// The host knows no way to the packet's destination.
    Unreachable = "unreachable",
    /// The sender may not reach the packet's destination.
    Denied = "denied",
    /// The ring to the switch has no room for the answer.
    RingFull = "ring_full",
    /// A flow ended before its time to make room: its switch port, or all together, had too many.
    FlowEvicted = "flow_evicted",
    /// The host takes no more for now: a socket's buffer is full.
    HostBusy = "host_busy",
    /// The host or the network reported what is nothing for a machine.
    HostError = "host_error",
    /// The host does not let this process ping.
    PingForbidden = "ping_forbidden",
    /// The switch port got as many ICMP errors as it may.
    IcmpLimit = "icmp_limit",
    /// A datagram from somebody to whom the machine has sent nothing.
    UdpUnasked = "udp_unasked",
    /// For the host's loopback, which only a loopback map opens.
    PolicyLoopback = "policy_loopback",
    /// For an address that stands for no machine, or hides another one.
    PolicyReserved = "policy_reserved",
    /// For an address that only has a meaning on one link.
    PolicyLinkLocal = "policy_link_local",
    /// For a service that tells a cloud machine its secrets.
    PolicyMetadata = "policy_metadata",
    /// For a group.
    PolicyMulticast = "policy_multicast",
    /// For everybody.
    PolicyBroadcast = "policy_broadcast",
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
        Counters { received: 0, sent: 0, drops: vec![0; DropReason::ALL.len()] }
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
        counted.map(|(reason, count)| (reason.label().to_owned(), *count)).collect()
    }
}
