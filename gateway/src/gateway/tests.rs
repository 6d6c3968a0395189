//! What the engine answers and what it drops, and that no bytes make it panic.

use mio::Poll;
use proptest::prelude::*;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};
use trama_frame::vnet::NEEDS_CSUM;
use trama_nat::packet::{checksums, frame, ip_frame, udp_frame};
use trama_nat::{Cable, Handled, Nat, Rules, Station};

use super::*;
use crate::io::Upstream;
use crate::testing::*;

const NOW: Duration = Duration::ZERO;
const PORT: PortMark = PortMark(1);

fn with(station: Station) -> Config {
    Config { station, ..lab() }
}

/// The answer to `bytes`, or why there is none.
fn handle(gateway: &mut Gateway, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut out = Output::default();
    let before = gateway.counters().clone();
    gateway.handle(NOW, PORT, bytes, &mut out);
    match out.frames.pop() {
        Some(frame) => {
            assert!(out.frames.is_empty(), "one frame in, two out");
            assert_eq!(before.drops(), gateway.counters().drops());
            Ok(frame)
        }
        None => {
            let grew =
                |reason: &DropReason| gateway.counters().dropped(*reason) > before.dropped(*reason);
            Err(DropReason::all().find(grew).expect("a drop has a reason"))
        }
    }
}

fn answer(bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    handle(&mut Gateway::new(lab(), random()), bytes)
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(GUEST.0),
        source_protocol_addr: sender.into(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target.into(),
    };
    frame(GUEST, MacAddr::BROADCAST, EthernetProtocol::Arp, request.buffer_len(), |bytes| {
        request.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}

#[test]
fn a_request_for_our_address_gets_an_arp_reply() {
    for sender in [GUEST4.octets(), [0; 4]] {
        let reply = answer(&arp(sender, GATEWAY4.octets())).unwrap();
        assert_eq!(reply.len(), 60);
        assert!(reply[42..].iter().all(|byte| *byte == 0), "padding leaks");
        let reply = EthernetFrame::new_checked(&reply[..]).unwrap();
        assert_eq!((reply.dst_addr().0, reply.src_addr().0), (GUEST.0, GATEWAY.0));
        let reply = ArpRepr::parse(&ArpPacket::new_checked(reply.payload()).unwrap()).unwrap();
        let wanted = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(GATEWAY.0),
            source_protocol_addr: GATEWAY4,
            target_hardware_addr: EthernetAddress(GUEST.0),
            target_protocol_addr: sender.into(),
        };
        assert_eq!(reply, wanted);
    }
}

#[test]
fn other_arp_is_refused() {
    assert_eq!(answer(&arp(GUEST4.octets(), [10, 0, 2, 9])), Err(NatDrop::OtherAddress.into()));
    assert_eq!(
        answer(&arp([192, 168, 0, 1], GATEWAY4.octets())),
        Err(NatDrop::ForeignSource.into())
    );
    let mut forged = arp(GUEST4.octets(), GATEWAY4.octets());
    forged[27] ^= 1;
    assert_eq!(
        answer(&forged),
        Err(NatDrop::BadArp.into()),
        "the sender is not the source of the frame"
    );
    let whole = arp(GUEST4.octets(), GATEWAY4.octets());
    assert_eq!(answer(&whole[..41]), Err(NatDrop::BadArp.into()));
    let mut gateway = Gateway::new(with(Station { ipv4: None, ..lab().station }), random());
    assert_eq!(handle(&mut gateway, &whole), Err(NatDrop::OtherAddress.into()));
}

#[test]
fn echo_is_answered_with_the_same_data() {
    for len in [0, 1, 56, 1400] {
        let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
        let reply = answer(&ping(GUEST4.into(), GATEWAY4.into(), &data)).unwrap();
        let reply = EthernetFrame::new_checked(&reply[..]).unwrap();
        assert_eq!((reply.dst_addr().0, reply.src_addr().0), (GUEST.0, GATEWAY.0));
        let packet = Ipv4Packet::new_checked(reply.payload()).unwrap();
        let header = Ipv4Repr::parse(&packet, &checksums()).unwrap();
        assert_eq!((header.src_addr, header.dst_addr), (GATEWAY4, GUEST4));
        let echo = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        let wanted = Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: &data };
        assert_eq!(Icmpv4Repr::parse(&echo, &checksums()), Ok(wanted));

        for own in [GATEWAY6, lab().station.link_local()] {
            let reply = answer(&ping(GUEST6.into(), own.into(), &data)).unwrap();
            let reply = EthernetFrame::new_checked(&reply[..]).unwrap();
            let packet = Ipv6Packet::new_checked(reply.payload()).unwrap();
            let header = Ipv6Repr::parse(&packet).unwrap();
            assert_eq!((header.src_addr, header.dst_addr), (own, GUEST6));
            let echo = Icmpv6Packet::new_checked(packet.payload()).unwrap();
            let wanted = Icmpv6Repr::EchoReply { ident: 7, seq_no: 9, data: &data };
            assert_eq!(Icmpv6Repr::parse(&own, &GUEST6, &echo, &checksums()), Ok(wanted));
        }
    }
}

/// A gateway like VirtualBox's: DNS and TFTP have their own addresses.
fn service_addresses() -> Config {
    let address = |last: u8| IpAddr::from([10, 0, 2, last]);
    let address6 = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let service_addresses = vec![
        (address(3), Service::Dns),
        (address(4), Service::Tftp),
        (address6(3), Service::Dns),
        (address6(4), Service::Tftp),
    ];
    Config { tftp: Some("/".into()), ..with(Station { service_addresses, ..lab().station }) }
}

#[test]
fn service_addresses_are_the_gateways_too() {
    let reply = |bytes: &[u8]| handle(&mut Gateway::new(service_addresses(), random()), bytes);
    for last in [1, 3, 4] {
        let (v4, v6) = ([10, 0, 2, last], [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
        let frame = reply(&arp(GUEST4.octets(), v4)).unwrap();
        let packet = ArpPacket::new_checked(&frame[14..]).unwrap();
        assert_eq!(packet.source_protocol_addr(), v4);
        let frame = reply(&ping(GUEST4.into(), v4.into(), b"x")).unwrap();
        assert_eq!(Ipv4Packet::new_checked(&frame[14..]).unwrap().src_addr().octets(), v4);
        let frame = reply(&ping(GUEST6.into(), v6.into(), b"x")).unwrap();
        assert_eq!(Ipv6Packet::new_checked(&frame[14..]).unwrap().src_addr().segments(), v6);
        assert_eq!(
            reply(&ping(v4.into(), GATEWAY4.into(), b"x")),
            Err(NatDrop::ForeignSource.into())
        );
        assert_eq!(
            reply(&ping(v6.into(), GATEWAY6.into(), b"x")),
            Err(NatDrop::ForeignSource.into())
        );
    }
    assert_eq!(reply(&arp(GUEST4.octets(), [10, 0, 2, 5])), Err(NatDrop::OtherAddress.into()));
    let asked = solicit("fd00::f", "ff02::1:ff00:3", "fd00::3", 255, true);
    assert!(reply(&asked).is_ok(), "an ARP request for the address of DNS");
    assert_eq!(answer(&asked), Err(NatDrop::OtherAddress.into()));
}

/// Scans every UDP port of every address of the gateway.
#[test]
fn a_scan_of_the_gateway_finds_each_service_at_its_address() {
    let scan = |config: &Config, last: u8| -> Vec<(u16, bool)> {
        let mut gateway = Gateway::new(config.clone(), random());
        let macs = (GUEST, GATEWAY);
        let mut open = Vec::new();
        for v6 in [false, true] {
            let (from, to) = match v6 {
                false => (GUEST4.into(), IpAddr::from([10, 0, 2, last])),
                true => (GUEST6.into(), [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into()),
            };
            // The ports of TFTP sessions answer no one without a session.
            for port in 1..1024 {
                let probe = udp_frame(macs, (from, 4000), (to, port), b"\0\x01probe").unwrap();
                if handle(&mut gateway, &probe) != Err(ServiceDrop::ClosedPort.into()) {
                    open.push((port, v6));
                }
            }
        }
        open
    };
    let at = |ports: &[u16]| -> Vec<(u16, bool)> {
        [false, true].iter().flat_map(|v6| ports.iter().map(move |port| (*port, *v6))).collect()
    };
    assert_eq!(scan(&service_addresses(), 1), []);
    assert_eq!(scan(&service_addresses(), 3), at(&[53]));
    assert_eq!(scan(&service_addresses(), 4), at(&[69]));
    assert_eq!(scan(&Config { tftp: None, ..service_addresses() }, 4), []);
    let without = Config { station: lab().station, ..service_addresses() };
    assert_eq!(scan(&without, 1), at(&[53, 69]));
}

#[test]
fn echo_for_others_or_from_strangers_is_not_answered() {
    let outside = [8, 8, 8, 8].into();
    assert_eq!(answer(&ping(GUEST4.into(), outside, b"x")), Err(NatDrop::OtherAddress.into()));
    assert_eq!(answer(&ping(outside, GATEWAY4.into(), b"x")), Err(NatDrop::ForeignSource.into()));
    assert_eq!(
        answer(&ping(GATEWAY4.into(), GATEWAY4.into(), b"x")),
        Err(NatDrop::ForeignSource.into())
    );
    let broadcast = [10, 0, 2, 255].into();
    assert_eq!(answer(&ping(broadcast, GATEWAY4.into(), b"x")), Err(NatDrop::ForeignSource.into()));
    assert_eq!(answer(&ping(GUEST4.into(), broadcast, b"x")), Err(NatDrop::OtherAddress.into()));
    let stranger = "2001:db8::1".parse().unwrap();
    assert_eq!(answer(&ping(stranger, GATEWAY6.into(), b"x")), Err(NatDrop::ForeignSource.into()));
    assert_eq!(answer(&ping(GUEST6.into(), stranger, b"x")), Err(NatDrop::OtherAddress.into()));
    let loopback = "::1".parse().unwrap();
    assert_eq!(answer(&ping(loopback, GATEWAY6.into(), b"x")), Err(NatDrop::ForeignSource.into()));
}

#[test]
fn broken_packets_are_refused_by_what_is_broken() {
    let whole = ping(GUEST4.into(), GATEWAY4.into(), &[5; 60]);
    let changed = |at: usize, value: u8| {
        let mut frame = whole.clone();
        frame[at] = value;
        answer(&frame)
    };
    let mut fragment = whole.clone();
    fragment[20] = 0x20;
    mend_checksums(&mut fragment);
    assert_eq!(answer(&fragment), Err(ServiceDrop::Fragment.into()), "more fragments");
    assert_eq!(changed(22, 1), Err(NatDrop::BadIp.into()), "header checksum");
    assert_eq!(changed(14, 0x65), Err(NatDrop::BadIp.into()), "version");
    assert_eq!(changed(14, 0x4f), Err(NatDrop::BadIp.into()), "header length");
    assert_eq!(changed(50, 99), Err(NatDrop::BadIcmp.into()), "checksum of the message");
    assert_eq!(changed(5, 99), Err(NatDrop::OtherStation.into()));
    assert_eq!(changed(6, 1), Err(NatDrop::BadEthernet.into()), "sent by a group");
    assert_eq!(changed(12, 0x88), Err(NatDrop::UnknownEthertype.into()));
    assert_eq!(answer(&whole[..13]), Err(NatDrop::BadEthernet.into()));
    assert_eq!(answer(&whole[..33]), Err(NatDrop::BadIp.into()));
    let mut to_all = whole.clone();
    to_all[..6].fill(0xff);
    assert_eq!(
        answer(&to_all),
        Err(NatDrop::OtherAddress.into()),
        "a unicast packet in a broadcast frame"
    );
    let tcp = ip_frame(
        (GUEST, GATEWAY),
        (GUEST4.into(), GATEWAY4.into()),
        (IpProtocol::Tcp, 64),
        20,
        |_| (),
    );
    assert_eq!(answer(&tcp.unwrap()), Err(NatDrop::UnknownProtocol.into()));
}

#[test]
fn udp_to_a_closed_port_is_counted() {
    let send = |source: u16, payload: &[u8]| {
        let (from, to) = ((GUEST4.into(), source), (GATEWAY4.into(), 9));
        udp_frame((GUEST, GATEWAY), from, to, payload).unwrap()
    };
    assert_eq!(answer(&send(1000, b"x")), Err(ServiceDrop::ClosedPort.into()));
    assert_eq!(answer(&send(0, b"x")), Err(NatDrop::BadUdp.into()));
    let mut wrong = send(1000, b"xyz");
    wrong[43] ^= 1;
    assert_eq!(answer(&wrong), Err(NatDrop::BadUdp.into()), "checksum");
    let offload = VnetHeader { flags: NEEDS_CSUM, ..VnetHeader::default() };
    let unfinished = received::parse(GATEWAY, PORT, offload, &wrong).unwrap();
    let mut gateway = Gateway::new(lab(), random());
    gateway.handle_parsed(NOW, &unfinished.into(), &mut Output::default());
    assert_eq!(
        gateway.counters().dropped(ServiceDrop::ClosedPort),
        1,
        "its sender left it to be completed"
    );
}

/// A neighbour solicitation with its hop limit.
fn solicit(source: &str, destination: &str, target: &str, hop_limit: u8, named: bool) -> Vec<u8> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: target.parse().unwrap(),
        lladdr: named.then(|| EthernetAddress(GUEST.0).into()),
    });
    let to = MacAddr([0x33, 0x33, 0xff, 0, 0, 1]);
    let kind = (IpProtocol::Icmpv6, hop_limit);
    let ips = (source, destination);
    let (source, destination) = match ips {
        (IpAddr::V6(a), IpAddr::V6(b)) => (a, b),
        _ => unreachable!(),
    };
    ip_frame((GUEST, to), ips, kind, message.buffer_len(), |bytes| {
        let mut packet = Icmpv6Packet::new_unchecked(bytes);
        message.emit(&source, &destination, &mut packet, &checksums());
    })
    .unwrap()
}

fn advert(frame: &[u8]) -> (MacAddr, std::net::Ipv6Addr, NdiscNeighborFlags) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    let header = Ipv6Repr::parse(&packet).unwrap();
    assert_eq!(header.hop_limit, 255);
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let message =
        Icmpv6Repr::parse(&header.src_addr, &header.dst_addr, &message, &checksums()).unwrap();
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = message
    else {
        panic!("{message:?}")
    };
    assert_eq!(target_addr, header.src_addr);
    assert_eq!(lladdr, Some(EthernetAddress(GATEWAY.0).into()));
    (MacAddr(frame.dst_addr().0), header.dst_addr, flags)
}

#[test]
fn neighbour_solicitations_are_answered() {
    let group = "ff02::1:ff00:1";
    let reply = answer(&solicit("fd00::f", group, "fd00::1", 255, true)).unwrap();
    let (to, destination, flags) = advert(&reply);
    assert_eq!((to, destination), (GUEST, GUEST6));
    assert!(flags.contains(NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE));
    let reply = answer(&solicit("::", group, "fd00::1", 255, false)).unwrap();
    let (to, destination, flags) = advert(&reply);
    assert_eq!((to.0[0], destination.to_string().as_str()), (0x33, "ff02::1"));
    assert!(!flags.contains(NdiscNeighborFlags::SOLICITED));
}

#[test]
fn solicitations_that_break_a_rule_are_refused() {
    let group = "ff02::1:ff00:1";
    let refused = |frame: Vec<u8>| answer(&frame).unwrap_err();
    assert_eq!(refused(solicit("fd00::f", group, "fd00::1", 254, true)), NatDrop::BadIcmp.into());
    assert_eq!(refused(solicit("::", group, "fd00::1", 255, true)), NatDrop::BadIcmp.into());
    assert_eq!(
        refused(solicit("fd00::f", group, "fd00::2:1", 255, true)),
        NatDrop::OtherAddress.into()
    );
    assert_eq!(refused(solicit("fd00::f", group, "ff02::1", 255, true)), NatDrop::BadIcmp.into());
    assert_eq!(
        refused(solicit("2001:db8::1", group, "fd00::1", 255, true)),
        NatDrop::ForeignSource.into()
    );
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ((GUEST4.into(), 1000), (GATEWAY4.into(), port));
    udp_frame((GUEST, GATEWAY), from, to, payload).unwrap()
}

/// A DNS query (RFC 1035, 4.1) for the addresses of a.bc.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";

#[test]
fn a_question_is_forwarded_and_its_answer_delivered() {
    let mut gateway = Gateway::new(lab(), random());
    gateway.set_servers(vec![([192, 0, 2, 1], 53).into()]);
    let mut out = Output::default();
    gateway.handle(NOW, PORT, &udp(53, QUESTION), &mut out);
    assert!(out.frames.is_empty() && gateway.counters().drops().is_empty());
    let Some(Upstream::Ask { slot, message, .. }) = out.upstream.pop() else { panic!("{out:?}") };
    let mut answer = message;
    answer[2] |= 0x80;
    gateway.server_answered(NOW, slot, &answer, &mut out);
    let mut wanted = QUESTION.to_vec();
    wanted[2] |= 0x80;
    let macs = (GATEWAY, GUEST);
    let frame = udp_frame(macs, (GATEWAY4.into(), 53), (GUEST4.into(), 1000), &wanted);
    assert_eq!(out.frames, [frame.unwrap()]);
}

#[test]
fn a_file_is_served_from_the_folder_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("boot"), "#!ipxe a script longer than padding").unwrap();
    let tftp = Some(folder.path().to_owned());
    let mut gateway = Gateway::new(Config { tftp, ..lab() }, random());
    let request = udp(69, b"\0\x01boot\0octet\0");
    let reply = handle(&mut gateway, &request).unwrap();
    assert!(reply.ends_with(b"\0\x03\0\x01#!ipxe a script longer than padding"), "{reply:?}");
    let mut out = Output::default();
    let due = gateway.deadline().unwrap();
    gateway.poll(due, &mut out);
    assert_eq!(out.frames, [reply], "not sent again");

    gateway.reconfigure(Config { tftp: Some(folder.path().join("boot")), ..lab() });
    assert_eq!(gateway.take_warnings().len(), 1, "a file is no folder");
    assert_eq!(handle(&mut gateway, &request), Err(ServiceDrop::ClosedPort.into()));
}

/// Valid frames to start from.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        arp(GUEST4.octets(), GATEWAY4.octets()),
        ping(GUEST4.into(), GATEWAY4.into(), &[3; 20]),
        ping(GUEST6.into(), GATEWAY6.into(), &[3; 20]),
        solicit("fd00::f", "ff02::1:ff00:1", "fd00::1", 255, true),
        udp(53, QUESTION),
        udp(69, b"\0\x01boot/file\0octet\0blksize\x001400\0"),
    ]
}

proptest! {
    /// Nearly valid frames reach deeper than random ones. Checksums are corrected, which would hide
    /// other faults.
    #[test]
    fn no_frame_makes_it_panic_or_answer_more_than_it_got(
        seed in 0..6usize,
        changes in prop::collection::vec((0..120usize, any::<u8>()), 0..6),
        cut in 0..140usize,
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        mend_checksums(&mut bytes);
        bytes.truncate(cut.max(14));
        bytes.extend(tail);
        let mut gateway = Gateway::new(lab(), random());
        gateway.set_servers(vec![([192, 0, 2, 1], 53).into()]);
        let mut out = Output::default();
        gateway.handle(NOW, PORT, &bytes, &mut out);
        prop_assert!(out.frames.len() <= 1);
        for frame in &out.frames {
            prop_assert!(frame.len() <= bytes.len().max(90), "{} from {}", frame.len(), bytes.len());
        }
        let counters = gateway.counters();
        let drops: u64 = counters.drops().values().sum();
        let asked = out.upstream.len() as u64;
        // A malformed DNS query is answered and counted.
        let answered = counters.dropped(ServiceDrop::BadDns).min(counters.frames.sent);
        prop_assert_eq!(counters.frames.received, counters.frames.sent + drops + asked - answered);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(&bytes);
    }
}

/// A cable that keeps nothing: these frames have no flow.
struct NoCable;

impl Cable for NoCable {
    fn room(&mut self) -> usize {
        64
    }

    fn send(&mut self, _: &VnetHeader, _: &[&[u8]]) -> Result<(), NatDrop> {
        panic!("a flow sent a frame")
    }
}

/// What the gateway answers to the fragments of a guest's packet, with the NAT in front of it.
fn answer_to_fragments(gateway: &mut Gateway, whole: Vec<u8>) -> Output {
    let (poll, mut nat, mut out) = (Poll::new().unwrap(), Nat::default(), Output::default());
    for frame in fragments(whole, 1500, 7).unwrap() {
        let mut cable = NoCable;
        let context = &mut gateway.shared.context(NOW, poll.registry(), &mut cable);
        match nat.receive(PORT, VnetHeader::default(), &frame, context) {
            Handled::Reassembled(frame) => gateway.handle(NOW, PORT, &frame, &mut out),
            Handled::Consumed => {}
            Handled::Local(_) => panic!("a fragment"),
        }
    }
    out
}

/// The payload of a packet to the guest, from its fragments in order.
fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    for bytes in fragments {
        assert!(bytes.len() <= 14 + 1500);
        let frame = received::parse(GUEST, PORT, VnetHeader::default(), bytes).unwrap();
        let Frame::Fragment(packet) = frame else { panic!("not a fragment") };
        let (offset, data) = match packet.source {
            IpAddr::V4(_) => {
                let offset = Ipv4Packet::new_checked(packet.packet).unwrap().frag_offset();
                (offset, packet.payload)
            }
            IpAddr::V6(_) => {
                let (header, data) = packet.payload.split_first_chunk::<8>().unwrap();
                (u16::from_be_bytes([header[2], header[3]]) & !7, data)
            }
        };
        assert_eq!(usize::from(offset), whole.len());
        whole.extend_from_slice(data);
    }
    whole
}

#[test]
fn a_long_ping_in_fragments_is_answered_in_fragments() {
    let data: Vec<u8> = (0..3000).map(|at| at as u8).collect();
    let link_local = "fe80::15".parse().unwrap();
    let pings: [(IpAddr, IpAddr); 3] = [
        (GUEST4.into(), GATEWAY4.into()),
        (GUEST6.into(), GATEWAY6.into()),
        (IpAddr::V6(link_local), GATEWAY6.into()),
    ];
    // With NAT, and without.
    for nat in [Some(Rules::default()), None] {
        for (guest, own) in pings {
            let mut gateway = Gateway::new(Config { nat: nat.clone(), ..lab() }, random());
            let out = answer_to_fragments(&mut gateway, ping(guest, own, &data));
            assert_eq!(gateway.counters().drops().len(), 0);
            assert_eq!(out.frames.len(), 3, "{guest}");
            assert_eq!(joined(&out.frames)[8..], data);
        }
    }
}

#[test]
fn a_ping_in_fragments_from_a_foreign_source_is_not_answered() {
    let stranger = "192.0.2.1".parse().unwrap();
    let mut gateway = Gateway::new(lab(), random());
    let out = answer_to_fragments(&mut gateway, ping(stranger, GATEWAY4.into(), &[7; 2000]));
    assert_eq!(out.frames.len(), 0);
    assert_eq!(gateway.counters().dropped(NatDrop::ForeignSource), 1);
}
