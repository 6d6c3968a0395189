//! DHCPv6, and the settings that clients of both IP versions get.

use std::net::Ipv6Addr;

use smoltcp::wire::{Icmpv6Repr, NdiscNeighborFlags, NdiscRepr};
use trama_dhcp::name::DomainName;
use trama_nat::packet::checksums;

use super::*;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const ASK: u8 = 3;
const REPLY: u8 = 7;

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A client's message with an IA_NA for these addresses.
fn message6(kind: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut association = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    for address in addresses {
        association.extend([0, 5, 0, 24]);
        association.extend(address.octets());
        association.extend([0; 8]);
    }
    let mut bytes = vec![kind, 1, 2, 3, 0, 1, 0, 6, 0, 2, 0, 0, 0, 9];
    bytes.extend([0, 3, 0, association.len() as u8]);
    bytes.extend(association);
    if kind == ASK {
        bytes.extend([0, 2, 0, 10, 0, 3, 0, 1]);
        bytes.extend(settings().station.mac);
    }
    let macs = (GUEST, MacAddr([0x33, 0x33, 0, 1, 0, 2]));
    udp_frame(macs, (ip6("fe80::2").into(), 546), (ip6("ff02::1:2").into(), 547), &bytes).unwrap()
}

fn payload6(frame: &[u8]) -> Vec<u8> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.dst_addr().0, GUEST.0);
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!(packet.src_addr(), settings().station.link_local());
    assert_eq!(packet.dst_addr(), ip6("fe80::2"));
    UdpPacket::new_checked(packet.payload()).unwrap().payload().to_vec()
}

/// The address in a reply of this type.
#[track_caller]
fn leased6(frame: &[u8], kind: u8) -> Ipv6Addr {
    let payload = payload6(frame);
    assert_eq!(payload[..4], [kind, 1, 2, 3]);
    let at = payload.windows(4).position(|octets| octets == [0, 5, 0, 24]).unwrap() + 4;
    <[u8; 16]>::try_from(&payload[at..at + 16]).unwrap().into()
}

/// The target of a neighbour solicitation.
fn solicited(frame: &[u8]) -> Option<Ipv6Addr> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    match Icmpv6Repr::parse(&from, &to, &message, &checksums()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => Some(target_addr),
        _ => None,
    }
}

/// The neighbour advertisement of a guest that has the address.
fn advertise(address: Ipv6Addr) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED,
        target_addr: address,
        lladdr: Some(ethernet_address(NEIGHBOUR).into()),
    });
    let macs = (NEIGHBOUR, settings().station.mac());
    let ips = (IpAddr::V6(address), IpAddr::V6(GATEWAY6));
    ip_frame(macs, ips, (IpProtocol::Icmpv6, 255), message.buffer_len(), |bytes| {
        message.emit(&address, &GATEWAY6, &mut Icmpv6Packet::new_unchecked(bytes), &checksums());
    })
    .unwrap()
}

#[test]
fn an_ipv6_address_is_probed_offered_and_leased_when_its_record_is_durable() {
    let mut gateway = Gateway::new(settings(), random());
    let mut out = Output::default();
    gateway.poll(ms(0), &mut out);
    let flags = out.frames.remove(0)[14 + 40 + 5];
    assert_eq!(flags, 0xc0, "managed, and other parameters");
    gateway.handle(ms(0), PORT, &message6(SOLICIT, &[]), &mut out);
    assert!(out.frames.is_empty(), "no lease without a store");
    gateway.open_leases(Duration::ZERO, EPOCH, Vec::new());
    gateway.handle(ms(0), PORT, &message6(SOLICIT, &[]), &mut out);
    let taken = solicited(&out.frames[0]).unwrap();
    gateway.handle(ms(1), Port(2), &advertise(taken), &mut out);
    let free = solicited(out.frames.last().unwrap()).unwrap();
    assert_ne!(taken, free);
    for now in [100, 200, 302] {
        gateway.poll(ms(now), &mut out);
    }
    let asked = out.frames.iter().filter(|frame| solicited(frame) == Some(free)).count();
    assert_eq!(asked, 3);
    assert_eq!(leased6(out.frames.last().unwrap(), ADVERTISE), free);
    assert!(gateway.take_warnings()[0].contains(&taken.to_string()));
    out = Output::default();
    gateway.handle(ms(400), PORT, &message6(ASK, &[free]), &mut out);
    assert!(out.frames.is_empty());
    assert_eq!(leased6(&out.confirmed[0], REPLY), free);
    let (records, _) = Record::parse_all(&out.records);
    let rows = gateway.lease_rows(ms(400));
    let state = |address: Ipv6Addr| rows.iter().find(|it| it.address == address).map(|it| it.state);
    assert_eq!(state(free), Some(LeaseState::Bound));
    assert_eq!(state(taken), Some(LeaseState::Conflict));
    assert_eq!(gateway.status().dhcp6.unwrap().leases, 1);
    // The next gateway knows the lease, from the record and from the snapshot.
    let (snapshot, _) = Record::parse_all(&gateway.lease_snapshot());
    for records in [records, snapshot] {
        let mut next = super::gateway(records);
        assert_eq!(next.bound_leases(), 1);
        next.handle(ms(0), PORT, &message6(SOLICIT, &[]), &mut out);
        assert_eq!(leased6(out.frames.last().unwrap(), ADVERTISE), free);
    }
}

#[test]
fn the_search_domains_of_the_host_are_followed() {
    let mut config = settings();
    let service = &mut config.dhcp.as_mut().unwrap().service;
    (service.settings.domain, service.host_search) = (None, true);
    let mut gateway = Gateway::new(config.clone(), random());
    gateway.open_leases(Duration::ZERO, EPOCH, Vec::new());
    let long: Vec<String> = (0..30).map(|number| format!("domain-{number}.example")).collect();
    for (now, search) in
        [(0, vec!["corp.example", "example"]), (30, vec![]), (60, vec!["b.example"])]
    {
        let now = Duration::from_secs(now);
        let names: Vec<DomainName> = search.iter().map(|name| name.parse().unwrap()).collect();
        gateway.set_search(&names);
        let frames = replies(&mut gateway, now);
        let first = search.first().copied().unwrap_or("corp.example");
        let has_domain = |frame: &[u8]| text_of(frame).contains(&wire(first));
        assert_eq!(frames.map(|frame| has_domain(&frame)), [!search.is_empty(); 3], "{search:?}");
    }
    // A list that exceeds a packet is cut, and the reply is sent.
    let names: Vec<DomainName> = long.iter().map(|name| name.parse().unwrap()).collect();
    gateway.set_search(&names);
    for frame in replies(&mut gateway, Duration::from_secs(90)) {
        assert!(text_of(&frame).contains(&wire("domain-0.example")) && frame.len() < 1280 + 14);
    }
    // Settings with domains of their own, or none, keep them.
    config.dhcp.as_mut().unwrap().service.host_search = false;
    gateway.reconfigure(config.clone());
    for frame in replies(&mut gateway, Duration::from_secs(120)) {
        assert!(!text_of(&frame).contains(&wire("domain-0.example")));
    }
    // DHCPv6 has no option for a single domain, so it is the search list.
    config.dhcp.as_mut().unwrap().service.settings.domain = "own.example".parse().ok();
    gateway.reconfigure(config);
    let [advertised, by_dhcp6, _] = replies(&mut gateway, Duration::from_secs(150));
    for frame in [by_dhcp6, advertised] {
        assert!(text_of(&frame).contains(&wire("own.example")));
    }
}

fn wire(name: &str) -> String {
    name.split('.').fold(String::new(), |text, label| {
        format!("{text}{}{label}", char::from(label.len() as u8))
    })
}

fn text_of(frame: &[u8]) -> String {
    frame.iter().map(|octet| char::from(*octet)).collect()
}

/// A router advertisement, a DHCPv6 reply and a DHCPv4 reply.
fn replies(gateway: &mut Gateway, now: Duration) -> [Vec<u8>; 3] {
    let mut out = Output::default();
    gateway.poll(now, &mut out);
    gateway.poll(now + Duration::from_secs(16), &mut out);
    let is_advertisement = |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame[54] == 134;
    let advertisement = out.frames.iter().rfind(|frame| is_advertisement(frame)).unwrap().clone();
    let mut out = Output::default();
    gateway.handle(now, PORT, &information_request_for_all(), &mut out);
    let reply = out.frames.remove(0);
    let ask = message(8, GUEST, Ipv4Addr::new(10, 0, 2, 7), &[(55, &[15, 119])]);
    let ends = ((Ipv4Addr::new(10, 0, 2, 7).into(), 68), (GATEWAY4.into(), 67));
    let inform = udp_frame((GUEST, settings().station.mac()), ends.0, ends.1, &ask).unwrap();
    gateway.handle(now, PORT, &inform, &mut out);
    [advertisement, reply, out.frames.remove(0)]
}

fn information_request_for_all() -> Vec<u8> {
    let macs = (GUEST, MacAddr([0x33, 0x33, 0, 1, 0, 2]));
    let ends = ((ip6("fe80::2").into(), 546), (ip6("ff02::1:2").into(), 547));
    udp_frame(macs, ends.0, ends.1, &[11, 1, 2, 3]).unwrap()
}

/// A DHCPv6 INFORMATION-REQUEST for DNS servers.
pub(super) fn information_request() -> Vec<u8> {
    let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
    let near: Ipv6Addr = "fe80::2".parse().unwrap();
    let macs = (GUEST, MacAddr([0x33, 0x33, 0, 1, 0, 2]));
    let payload = [11, 1, 2, 3, 0, 6, 0, 2, 0, 23];
    udp_frame(macs, (near.into(), 546), (servers.into(), 547), &payload).unwrap()
}

#[test]
fn dhcpv6_announces_the_dns_server_from_the_link_local_address() {
    let mut gateway = gateway(Vec::new());
    let mut out = Output::default();
    gateway.poll(ms(0), &mut out);
    out.frames.clear();
    gateway.handle(ms(0), PORT, &information_request(), &mut out);
    let frame = EthernetFrame::new_checked(&out.frames[0][..]).unwrap();
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!(packet.src_addr(), settings().station.link_local());
    let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
    assert_eq!((datagram.src_port(), datagram.dst_port()), (547, 546));
    assert!(datagram.payload().ends_with(&GATEWAY6.octets()));
    assert_eq!(datagram.payload()[..4], [7, 1, 2, 3], "a REPLY to the same transaction");
}
