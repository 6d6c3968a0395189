//! The scripted guest on its network: its frames, and its ARP and ND answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, NetSlice, PacketBuilder, SlicedPacket, TcpHeader,
    TransportSlice,
};

use crate::nat::{GATEWAY, SOON, VM1};
use crate::process::wait_until;
use crate::raw_tap::RawTap;

const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
const BROADCAST: [u8; 6] = [0xff; 6];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Solicited and override flags (RFC 4861, 4.4).
const SOLICITED_OVERRIDE: [u8; 4] = [0x60, 0, 0, 0];

pub(super) struct Station {
    tap: RawTap,
    gateway: [u8; 6],
}

impl Station {
    /// Resolves the gateway's address.
    #[track_caller]
    pub(crate) fn new(tap: RawTap) -> Station {
        let question = arp(ArpOperation::REQUEST, BROADCAST, v4(GATEWAY[0]));
        let gateway = wait_until("the gateway answers", SOON, || {
            tap.send(&question);
            let answer = tap.receive(Duration::from_millis(200), |frame| {
                read_arp(frame).is_some_and(|arp| arp.sender_ipv4_addr() == v4(GATEWAY[0]))
            });
            answer.and_then(|frame| read_arp(&frame)).map(|arp| arp.sender_mac)
        });
        Station { tap, gateway }
    }

    pub(crate) fn send(&self, from: IpAddr, to: IpAddr, header: TcpHeader, data: &[u8]) {
        let ethernet = PacketBuilder::ethernet2(GUEST_MAC, self.gateway);
        let ip = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("{from} and {to} are of different versions of IP"),
        };
        let mut frame = Vec::new();
        ip.tcp_header(header).write(&mut frame, data).expect("a frame");
        self.tap.send(&frame);
    }

    /// Returns the next segment of a flow; meanwhile answers ARP and ND.
    #[track_caller]
    pub(crate) fn receive(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        limit: Duration,
    ) -> Option<(TcpHeader, Vec<u8>)> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.tap.receive(left, |_| true)?;
            if let Some(answer) = answer(&frame) {
                self.tap.send(&answer);
            } else if let Some((source, destination, header, data)) = read_tcp(&frame)
                && (source, destination) == (from, to)
            {
                return Some((header, data));
            }
        }
    }
}

fn v4(address: &str) -> Ipv4Addr {
    address.parse().expect("IPv4 address")
}

fn arp(operation: ArpOperation, to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: GUEST_MAC,
        sender_ipv4: v4(VM1[0]).octets(),
        target_mac: to,
        target_ipv4: target.octets(),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, to).arp(packet.into()).write(&mut frame).expect("a frame");
    frame
}

fn read_arp(frame: &[u8]) -> Option<ArpEthIpv4Packet> {
    match SlicedPacket::from_ethernet(frame).ok()?.net? {
        NetSlice::Arp(arp) => arp.to_packet().try_eth_ipv4().ok(),
        _ => None,
    }
}

/// Returns the answer to an ARP request or neighbour solicitation for the guest's address.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    if let Some(question) = read_arp(frame) {
        let is_ours = question.operation == ArpOperation::REQUEST
            && question.target_ipv4 == v4(VM1[0]).octets();
        let (mac, asker) = (question.sender_mac, question.sender_ipv4_addr());
        return is_ours.then(|| arp(ArpOperation::REPLY, mac, asker));
    }
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
        (&packet.net, &packet.transport)
    else {
        return None;
    };
    let own = VM1[1].parse::<Ipv6Addr>().expect("IPv6 address").octets();
    if icmp.type_u8() != NEIGHBOUR_SOLICITATION || icmp.slice().get(8..24) != Some(&own) {
        return None;
    }
    // The target, and the option with its link-layer address.
    let body = [&own[..], &[2, 1], &GUEST_MAC].concat();
    let asker = frame[6..12].try_into().expect("six bytes");
    let mut answer = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, asker)
        .ipv6(own, ip.header().source(), 255)
        .icmpv6_raw(NEIGHBOUR_ADVERTISEMENT, 0, SOLICITED_OVERRIDE)
        .write(&mut answer, &body)
        .expect("a frame");
    Some(answer)
}

/// Returns the segment in a frame, after verifying its checksum.
#[track_caller]
fn read_tcp(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, TcpHeader, Vec<u8>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let (from, to, sum): (IpAddr, IpAddr, _) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            let sum = tcp.calc_checksum_ipv4(ip.source(), ip.destination());
            (ip.source_addr().into(), ip.destination_addr().into(), sum)
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            let sum = tcp.calc_checksum_ipv6(ip.source(), ip.destination());
            (ip.source_addr().into(), ip.destination_addr().into(), sum)
        }
        _ => return None,
    };
    let header = tcp.to_header();
    assert_eq!(sum.ok(), Some(header.checksum), "the checksum of {header:?}");
    let (from, to) =
        (SocketAddr::new(from, header.source_port), SocketAddr::new(to, header.destination_port));
    Some((from, to, header, tcp.payload().to_vec()))
}
