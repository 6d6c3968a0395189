//! Address configuration through the engine: frames in, frames and records out.

mod ipv6;
mod told;

use std::net::IpAddr;

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetFrame, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket,
};
use trama_dhcp::config::{Service, Settings};
use trama_nat::PortMark as Port;
use trama_nat::packet::ip_frame;

use super::*;
use crate::config::Dhcp;
use crate::drop_reason::NatDrop;
use crate::gateway::Gateway;
use crate::testing::*;

const EPOCH: Time = Time::from_secs(1_700_000_000);
const EVERYONE: MacAddr = MacAddr([0xff; 6]);
const PORT: Port = Port(1);
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn settings() -> Config {
    let settings = Settings {
        ranges: vec![Ipv4Addr::new(10, 0, 2, 101)..=Ipv4Addr::new(10, 0, 2, 254)],
        dns: Some(vec![GATEWAY4]),
        domain: "lab.example".parse().ok(),
        ..Settings::default()
    };
    let service = Service {
        settings,
        host_search: false,
        ranges6: vec!["fd00::1000".parse().unwrap()..="fd00::1fff".parse().unwrap()],
        ..Service::default()
    };
    let dhcp = Dhcp { folder: "/nowhere".into(), seed: 1, service };
    Config { dhcp: Some(dhcp), ..lab() }
}

fn gateway(records: Vec<Record>) -> Gateway {
    let mut gateway = Gateway::new(settings(), random());
    gateway.open_leases(Duration::ZERO, EPOCH, records);
    gateway
}

/// A client's message (RFC 2131, 2).
fn message(kind: u8, mac: MacAddr, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[12..16].copy_from_slice(&ciaddr.octets());
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

/// A broadcast of a client without an address.
fn broadcast(kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let payload = message(kind, GUEST, Ipv4Addr::UNSPECIFIED, options);
    let ends = ((Ipv4Addr::UNSPECIFIED.into(), 68), (Ipv4Addr::BROADCAST.into(), 67));
    udp_frame((GUEST, EVERYONE), ends.0, ends.1, &payload).unwrap()
}

/// Destination MAC address, source and destination of an IPv4 datagram, and its payload.
fn datagram(frame: &[u8]) -> (MacAddr, (Ipv4Addr, u16), (Ipv4Addr, u16), Vec<u8>) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    assert!(datagram.verify_checksum(&from.into(), &to.into()));
    let payload = datagram.payload().to_vec();
    let station = MacAddr(frame.dst_addr().0);
    (station, (from, datagram.src_port()), (to, datagram.dst_port()), payload)
}

/// The IPv4 packet that is sent.
fn ipv4(out: &Output) -> &[u8] {
    let mut packets = out.frames.iter().filter(|frame| frame[12..14] == [8, 0]);
    let packet = packets.next().expect("a packet");
    assert!(packets.next().is_none(), "there are two");
    packet
}

/// The message type and the address in a message.
fn parse_reply(payload: &[u8]) -> (u8, Ipv4Addr) {
    let options = trama_dhcp::wire::Packet::parse(payload).is_ok();
    assert!(options, "a whole message");
    let kind = payload[240..].windows(3).find(|it| it[..2] == [53, 1]).unwrap()[2];
    (kind, Ipv4Addr::new(payload[16], payload[17], payload[18], payload[19]))
}

fn probed(frame: &[u8]) -> Ipv4Addr {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!((frame.ethertype(), frame.dst_addr().0), (EthernetProtocol::Arp, EVERYONE.0));
    let packet = ArpPacket::new_checked(frame.payload()).unwrap();
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_protocol_addr: Ipv4Addr::UNSPECIFIED,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).unwrap()
    else {
        panic!("no probe")
    };
    target_protocol_addr
}

/// Lets the probes for an address time out. Returns the address offered.
fn offer(gateway: &mut Gateway) -> Ipv4Addr {
    let mut out = Output::default();
    gateway.handle(ms(0), PORT, &broadcast(DISCOVER, &[]), &mut out);
    let address = probed(&out.frames[0]);
    assert_eq!(out.frames.len(), 1);
    for now in [90, 180] {
        assert_eq!(gateway.deadline().map(|due| due <= ms(now)), Some(true));
        gateway.poll(ms(now), &mut out);
    }
    let probes: Vec<Ipv4Addr> =
        out.frames.drain(..).filter(|it| it[12..14] == [8, 6]).map(|it| probed(&it)).collect();
    assert_eq!(probes, [address; 3], "three probes");
    gateway.poll(ms(300), &mut out);
    let (station, from, to, payload) = datagram(out.frames.last().unwrap());
    assert_eq!((station, from, to), (GUEST, (GATEWAY4, 67), (address, 68)));
    assert_eq!(parse_reply(&payload), (OFFER, address));
    address
}

fn request(gateway: &mut Gateway, address: Ipv4Addr) -> Output {
    let mut out = Output::default();
    let octets = address.octets();
    let options: [(u8, &[u8]); 3] = [(50, &octets), (54, &GATEWAY4.octets()), (12, b"vm1")];
    gateway.handle(ms(400), PORT, &broadcast(REQUEST, &options), &mut out);
    out
}

#[test]
fn an_acknowledgement_waits_for_the_record_of_its_lease() {
    let mut first = gateway(Vec::new());
    let address = offer(&mut first);
    let out = request(&mut first, address);
    assert!(out.frames.is_empty(), "nothing leaves before the record is durable");
    let (station, _, _, payload) = datagram(&out.confirmed[0]);
    assert_eq!((station, parse_reply(&payload)), (GUEST, (ACK, address)));
    let (records, length) = Record::parse_all(&out.records);
    assert_eq!((records.len(), length), (1, out.records.len()));
    let row = first.lease_rows(ms(500)).remove(0);
    assert_eq!((row.address, row.state, row.mac), (address.into(), LeaseState::Bound, GUEST.0));
    assert_eq!((row.port, row.name.as_deref()), (PORT.0, Some("vm1")));
    assert_eq!(row.left, Some(3599), "of an hour");

    // Another gateway reads the record: the client renews, from its own address.
    let mut second = gateway(records);
    let payload = message(REQUEST, GUEST, address, &[]);
    let ends = ((address.into(), 68), (GATEWAY4.into(), 67));
    let renewal = udp_frame((GUEST, GATEWAY), ends.0, ends.1, &payload).unwrap();
    let mut out = Output::default();
    second.handle(ms(0), PORT, &renewal, &mut out);
    let (.., to, payload) = datagram(&out.confirmed[0]);
    assert_eq!((to, parse_reply(&payload)), ((address, 68), (ACK, address)));
    let status = second.status().dhcp.unwrap();
    assert_eq!((status.leases, status.pool), (1, 154));
    assert_eq!((status.received["request"], status.sent["ack"]), (1, 1));
}

#[test]
fn an_address_that_answers_the_probe_is_not_offered() {
    let mut gateway = gateway(Vec::new());
    let mut out = Output::default();
    gateway.handle(ms(0), PORT, &broadcast(DISCOVER, &[]), &mut out);
    let taken = probed(&out.frames.remove(0));
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ethernet_address(NEIGHBOUR),
        source_protocol_addr: taken,
        target_hardware_addr: ethernet_address(GATEWAY),
        target_protocol_addr: Ipv4Addr::UNSPECIFIED,
    };
    let reply = frame(NEIGHBOUR, GATEWAY, EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    });
    gateway.handle(ms(50), Port(2), &reply, &mut out);
    let next = probed(&out.frames.remove(0));
    assert_ne!(next, taken);
    let warnings = gateway.take_warnings();
    assert!(warnings[0].contains(&format!("{taken} is used by {NEIGHBOUR}")), "{warnings:?}");
    gateway.poll(ms(350), &mut out);
    assert_eq!(parse_reply(&datagram(ipv4(&out)).3), (OFFER, next));
    let state = |address| {
        gateway.lease_rows(ms(500)).iter().find(|it| it.address == address).map(|it| it.state)
    };
    assert_eq!(state(taken), Some(LeaseState::Conflict));
}

#[test]
fn a_relay_is_answered_at_its_own_address_by_the_station_that_sent() {
    let mut gateway = gateway(Vec::new());
    let relay = Ipv4Addr::new(10, 0, 2, 77);
    let mut payload = message(DISCOVER, NEIGHBOUR, Ipv4Addr::UNSPECIFIED, &[]);
    payload[24..28].copy_from_slice(&relay.octets());
    // The relay agent's address on the other side.
    for source in [relay, Ipv4Addr::new(192, 0, 2, 9)] {
        let ends = ((source.into(), 67), (GATEWAY4.into(), 67));
        let bytes = udp_frame((GUEST, GATEWAY), ends.0, ends.1, &payload).unwrap();
        gateway.handle(ms(0), PORT, &bytes, &mut Output::default());
    }
    let mut out = Output::default();
    gateway.poll(ms(300), &mut out);
    let (station, from, to, payload) = datagram(ipv4(&out));
    assert_eq!((station, from, to), (GUEST, (GATEWAY4, 67), (relay, 67)));
    assert_eq!(parse_reply(&payload).0, OFFER);
}

#[test]
fn broadcasts_are_accepted_for_dhcp_alone() {
    let to_all = |source: Ipv4Addr, destination: Ipv4Addr, port: u16| {
        let payload = message(DISCOVER, GUEST, Ipv4Addr::UNSPECIFIED, &[]);
        let ends = ((source.into(), 68), (destination.into(), port));
        let bytes = udp_frame((GUEST, EVERYONE), ends.0, ends.1, &payload).unwrap();
        let mut gateway = gateway(Vec::new());
        let mut out = Output::default();
        gateway.handle(ms(0), PORT, &bytes, &mut out);
        let reason = DropReason::all().find(|it| gateway.counters().dropped(*it) > 0);
        (out.frames.len(), reason)
    };
    let (unspecified, all) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let subnet = Ipv4Addr::new(10, 0, 2, 255);
    for (source, to) in [(unspecified, all), (unspecified, subnet), (GUEST4, all), (GUEST4, subnet)]
    {
        assert_eq!(to_all(source, to, 67), (1, None), "{source} to {to}");
    }
    assert_eq!(to_all(unspecified, all, 53), (0, Some(NatDrop::ForeignSource.into())));
    assert_eq!(to_all(GUEST4, all, 53), (0, Some(NatDrop::OtherAddress.into())));
    assert_eq!(to_all(GATEWAY4, all, 67), (0, Some(NatDrop::ForeignSource.into())));
    assert_eq!(to_all(all, all, 67), (0, Some(NatDrop::ForeignSource.into())));
    assert_eq!(
        to_all(unspecified, Ipv4Addr::new(10, 0, 3, 255), 67),
        (0, Some(NatDrop::OtherAddress.into()))
    );
    // Without leases, the port is closed.
    let mut bare = Gateway::new(lab(), random());
    bare.handle(ms(0), PORT, &broadcast(DISCOVER, &[]), &mut Output::default());
    assert_eq!(bare.counters().dropped(ServiceDrop::ClosedPort), 1);
}

#[test]
fn settings_that_change_keep_the_leases_and_none_end_them() {
    let mut gateway = gateway(Vec::new());
    let address = offer(&mut gateway);
    request(&mut gateway, address);
    let mut other = settings();
    other.dhcp.as_mut().unwrap().service.settings.domain = None;
    gateway.reconfigure(other);
    assert_eq!(gateway.lease_rows(ms(500)).len(), 1);
    gateway.reconfigure(lab());
    assert!(gateway.lease_rows(ms(500)).is_empty() && gateway.status().dhcp.is_none());
}

/// A DNS query for a name.
fn ask(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    let ends = ((GUEST4.into(), 4000), (GATEWAY4.into(), 53));
    udp_frame((GUEST, GATEWAY), ends.0, ends.1, &bytes).unwrap()
}

#[test]
fn dns_knows_the_names_of_leases_both_ways() {
    let mut gateway = gateway(Vec::new());
    let address = offer(&mut gateway);
    request(&mut gateway, address);
    let mut answer = |name: &str, kind| {
        let mut out = Output::default();
        gateway.handle(ms(500), PORT, &ask(name, kind), &mut out);
        datagram(&out.frames[0]).3
    };
    for name in ["vm1", "VM1.lab.example"] {
        assert!(answer(name, 1).ends_with(&address.octets()), "{name}");
    }
    let [a, b, c, d] = address.octets();
    let reverse = answer(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), 12);
    assert!(reverse.ends_with(b"\x03vm1\x03lab\x07example\0"), "{reverse:?}");
    // Other domains are not local, and there is no server to query.
    assert_eq!(answer("vm1.example", 1)[3] & 15, 2, "there is no server to ask");
    assert_eq!(answer("99.2.0.10.in-addr.arpa", 12)[3] & 15, 3);
}

fn solicitation(source: std::net::Ipv6Addr) -> Vec<u8> {
    let routers: std::net::Ipv6Addr = "ff02::2".parse().unwrap();
    let macs = (GUEST, MacAddr([0x33, 0x33, 0, 0, 0, 2]));
    let mut bytes =
        ip_frame(macs, (source.into(), routers.into()), (IpProtocol::Icmpv6, 255), 8, |bytes| {
            bytes[0] = 133;
        })
        .unwrap();
    mend_checksums(&mut bytes);
    bytes
}

/// MAC address, source and destination of a router advertisement.
fn advertisement(frame: &[u8]) -> (MacAddr, IpAddr, IpAddr) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!(packet.hop_limit(), 255);
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    assert_eq!(message.msg_type(), Icmpv6Message::RouterAdvert);
    assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    let prefix = GATEWAY6.octets();
    assert!(packet.payload().windows(8).any(|bytes| bytes == &prefix[..8]), "the prefix");
    (MacAddr(frame.dst_addr().0), packet.src_addr().into(), packet.dst_addr().into())
}

#[test]
fn routers_advertise_at_times_and_when_asked() {
    let mut gateway = gateway(Vec::new());
    let own = IpAddr::from(settings().station.link_local());
    let all: IpAddr = "ff02::1".parse().unwrap();
    let mut out = Output::default();
    gateway.poll(ms(0), &mut out);
    let everyone = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), own, all);
    assert_eq!(advertisement(&out.frames.remove(0)), everyone);
    let near: std::net::Ipv6Addr = "fe80::2".parse().unwrap();
    gateway.handle(ms(100), PORT, &solicitation(near), &mut out);
    gateway.handle(ms(100), PORT, &solicitation(near), &mut out);
    assert_eq!(gateway.counters().dropped(ServiceDrop::Throttled), 1);
    assert!(out.frames.is_empty());
    gateway.poll(ms(700), &mut out);
    assert_eq!(advertisement(&out.frames.remove(0)), (GUEST, own, near.into()));
    gateway.handle(ms(800), PORT, &solicitation(std::net::Ipv6Addr::UNSPECIFIED), &mut out);
    gateway.poll(ms(20_000), &mut out);
    assert_eq!(advertisement(&out.frames.remove(0)), everyone);
    // Without advertisements, solicitations are not answered.
    let mut bare = Gateway::new(lab(), random());
    bare.poll(ms(0), &mut out);
    bare.handle(ms(0), PORT, &solicitation(near), &mut out);
    assert!(out.frames.is_empty());
    assert_eq!(bare.counters().dropped(NatDrop::IcmpUnanswered), 1);
}

proptest! {
    /// Valid messages that are changed, mostly in their own fields; checksums are corrected.
    #[test]
    fn no_message_makes_it_panic_or_stop_serving(
        seed in 0..4usize,
        changes in prop::collection::vec((14..340usize, any::<u8>()), 0..12),
        cut in 14..400usize,
    ) {
        let near: std::net::Ipv6Addr = "fe80::2".parse().unwrap();
        let options: [(u8, &[u8]); 4] =
            [(61, &[1, 2, 0, 0, 0, 0, 2]), (12, b"vm1"), (55, &[1, 3, 6]), (50, &[10, 0, 2, 120])];
        let mut bytes = match seed {
            0 => broadcast(DISCOVER, &options),
            1 => broadcast(REQUEST, &options),
            2 => solicitation(near),
            _ => ipv6::information_request(),
        };
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        mend_checksums(&mut bytes);
        let mut gateway = gateway(Vec::new());
        let mut out = Output::default();
        gateway.poll(ms(0), &mut out);
        gateway.handle(ms(0), PORT, &bytes, &mut out);
        for now in [90, 300, 600, 1000] {
            gateway.poll(ms(now), &mut out);
        }
        prop_assert!(out.frames.len() + out.confirmed.len() <= 8, "{}", out.frames.len());
        // The next client is served in any case.
        let mut out = Output::default();
        let mut other = broadcast(DISCOVER, &[]);
        other[6..12].copy_from_slice(&NEIGHBOUR.0);
        let mac = 14 + 28 + 28;
        other[mac..mac + 6].copy_from_slice(&NEIGHBOUR.0);
        mend_checksums(&mut other);
        gateway.handle(ms(1000), Port(2), &other, &mut out);
        gateway.poll(ms(1400), &mut out);
        let offers = |it: &&Vec<u8>| it[12..14] == [8, 0] && parse_reply(&datagram(it).3).0 == OFFER;
        prop_assert_eq!(out.frames.iter().filter(offers).count(), 1);
    }
}
