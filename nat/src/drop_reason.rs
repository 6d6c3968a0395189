//! Drop reasons: the enum, the counter and the metric label in one.

use std::collections::BTreeMap;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use crate::io::PortMark;

trama_frame::drop_reasons! {
    "Why a frame or flow was dropped."
    BadEthernet "bad_ethernet"
        "The frame is shorter than an Ethernet header, or its source is a group address: check the sender's driver."
    OtherStation "other_station"
        "The frame is for another station, which the switch does not know yet: no action is needed."
    UnknownEthertype "unknown_ethertype"
        "The frame is not ARP, IPv4 or IPv6, and the gateway serves nothing else: no action is needed."
    BadArp "bad_arp"
        "The packet is not an Ethernet/IPv4 request or reply, or its sender is not the source of the frame: check the sender's ARP."
    BadIp "bad_ip"
        "The IP header is invalid, its checksum is wrong, or the packet is truncated: check the sender's driver and its offloads."
    BadFragment "bad_fragment"
        "The fragment is invalid or overlaps another of its packet: check the sender."
    FragmentLimit "fragment_limit"
        "The port, or all ports together, have too many incomplete packets: lower the size of the sender's datagrams, so that they are not fragmented."
    FragmentTimeout "fragment_timeout"
        "Fragments of the packet did not arrive in time: look for drops at the sender's port."
    ForeignSource "foreign_source"
        "The source address is not one of the network's: give the guest an address of its `subnet` or `subnet6`, for example by DHCP."
    OtherAddress "other_address"
        "The packet is for an address of the network that the gateway does not have: send it to the gateway's own address."
    UnknownProtocol "unknown_protocol"
        "The packet is not TCP, UDP or ICMP, which is all that NAT carries: use a `bridged` network for other protocols."
    BadIcmp "bad_icmp"
        "The ICMP or neighbour discovery message is malformed or breaks the rules: check the sender."
    IcmpUnanswered "icmp_unanswered"
        "The ICMP message needs no answer: no action is needed."
    IcmpUnmatched "icmp_unmatched"
        "The guest's ICMP error matches no flow of its port, or nothing in flight: no action is needed unless there are many."
    IcmpSoft "icmp_soft"
        "The guest's ICMP error is temporary or known already: no action is needed."
    BadUdp "bad_udp"
        "The UDP header is malformed: check the sender's driver and its offloads."
    TooLong "too_long"
        "The answer exceeds the network's MTU: raise the network's `mtu`, or ask over TCP."
    BadTcp "bad_tcp"
        "The TCP header is malformed: check the sender's driver and its offloads."
    NoFlow "no_flow"
        "The TCP segment belongs to no flow and was answered with a reset: connect again; the flow has ended or the gateway was replaced."
    FlowLimit "flow_limit"
        "The port has too many flows, or too many that are not established: close idle connections, or look for a scan or a flood behind the port."
    NoStation "no_station"
        "A client used a forward, but no station has the address that it leads to: start that guest, or correct the forward."
    NewFlowShare "new_flow_share"
        "The port opened more UDP or ICMP flows than its share while other ports opened some, too: send from fewer source ports and ping with fewer identifiers."
    FileLimit "file_limit"
        "The host has no descriptor left for another flow or DNS query: raise the limit of open files (`LimitNOFILE`) of the daemon."
    HopLimit "hop_limit"
        "The hop limit was exceeded at the gateway: no action is needed for traceroute; otherwise raise the sender's hop limit."
    Unreachable "unreachable"
        "The host has no route to the destination, or lost the source address: check the host's routes."
    Denied "denied"
        "The sender may not reach the destination: check the network's settings."
    RingFull "ring_full"
        "The ring from the gateway to the switch has no room: give the host more processor time."
    FlowEvicted "flow_evicted"
        "The flow was closed to make room, because its port or all ports together have too many: close idle flows, or look for a scan behind the port."
    HostBusy "host_busy"
        "A socket buffer of the host is full: make the sender slower, or raise `net.core.wmem_max` of the host."
    HostError "host_error"
        "The host or its network reported an error that does not concern the guest: check the host's network."
    PingForbidden "ping_forbidden"
        "The host does not allow the gateway to ping: include a group of the daemon in `net.ipv4.ping_group_range`."
    IcmpLimit "icmp_limit"
        "The port causes more ICMP errors than are sent to it: correct what the guest sends to forbidden or unreachable addresses."
    UdpUnasked "udp_unasked"
        "The datagram came from an address that the guest has not sent to: no action is needed; use a forward to let clients in."
    ReflectMalformed "reflect_malformed"
        "The mDNS or SSDP message is malformed: check the sender."
    ReflectWithheld "reflect_withheld"
        "A guest announced itself, but cannot be reached from the host's links: use a forward or a `bridged` network."
    ReflectLimit "reflect_limit"
        "The port sent or would get too many mDNS or SSDP messages: look for a program that repeats its queries."
    PolicyLoopback "policy_loopback"
        "The packet is for the host's loopback: set the network's `loopback` to reach services there."
    PolicyReserved "policy_reserved"
        "The packet is for a reserved address: correct the destination."
    PolicyLinkLocal "policy_link_local"
        "The packet is for a link-local address, which is not beyond a router: correct the destination."
    PolicyMetadata "policy_metadata"
        "The packet is for a cloud metadata service, which guests may not reach: no action is needed."
    PolicyMulticast "policy_multicast"
        "The packet is for a multicast group, which NAT does not carry: use a `bridged` network."
    PolicyBroadcast "policy_broadcast"
        "The packet is for the broadcast address, which NAT does not carry: use a `bridged` network."
}

impl DropReason {
    /// Whether guests may not reach the destination, in a way worth telling: packets to groups are
    /// not, which guests send all the time.
    pub(crate) fn is_policy(self) -> bool {
        matches!(
            self,
            DropReason::PolicyLoopback
                | DropReason::PolicyReserved
                | DropReason::PolicyLinkLocal
                | DropReason::PolicyMetadata
        )
    }
}

/// Counters of frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames received from the switch.
    pub received: u64,
    /// Frames sent to the switch.
    pub sent: u64,
    drops: Vec<u64>,
    /// Dropped frames by the port that sent them and the label of the reason.
    by_port: HashMap<(PortMark, &'static str), u64>,
}

/// Frames of a switch port that were dropped for a reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortDrops {
    /// The mark of the port.
    pub port: u64,
    /// The label of the reason.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl Default for Counters {
    fn default() -> Counters {
        let (drops, by_port) = (vec![0; DropReason::COUNT], HashMap::default());
        Counters { received: 0, sent: 0, drops, by_port }
    }
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts one dropped frame of a port.
    pub fn drop_from(&mut self, port: PortMark, reason: DropReason) {
        self.drop(reason);
        self.count_at(port, reason.name());
    }

    /// Counts a port's frame that the caller has dropped for a reason with this label.
    pub fn count_at(&mut self, port: PortMark, reason: &'static str) {
        *self.by_port.entry((port, reason)).or_default() += 1;
    }

    /// Dropped frames by port and reason, without zeros, in order.
    pub fn port_drops(&self) -> Vec<PortDrops> {
        let mut counted: Vec<_> = self.by_port.iter().collect();
        counted.sort_unstable();
        let drops = |(&(port, reason), &count): (&(PortMark, &str), &u64)| PortDrops {
            port: port.0,
            reason: reason.to_owned(),
            count,
        };
        counted.into_iter().map(drops).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        for reason in DropReason::ALL {
            let text = reason.describe();
            assert!(text.contains(": ") && text.ends_with('.'), "{}: {text}", reason.name());
        }
    }

    #[test]
    fn drops_of_a_port_are_told_apart() {
        let mut counters = Counters::default();
        counters.drop(DropReason::RingFull);
        for port in [9, 3, 9] {
            counters.drop_from(PortMark(port), DropReason::NewFlowShare);
        }
        assert_eq!(counters.dropped(DropReason::NewFlowShare), 3);
        let told = counters.port_drops();
        let told: Vec<_> = told.iter().map(|it| (it.port, &it.reason[..], it.count)).collect();
        assert_eq!(told, [(3, "new_flow_share", 1), (9, "new_flow_share", 2)]);
    }
}
