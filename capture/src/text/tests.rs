//! Lines, against those of tcpdump where both say the same.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use etherparse::TcpOptionElement;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use proptest::prelude::*;

use super::*;

const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const A4: [u8; 4] = [10, 0, 0, 1];
const B4: [u8; 4] = [10, 0, 0, 2];

fn a6() -> [u8; 16] {
    "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn b6() -> [u8; 16] {
    "fe80::5054:ff:fe00:2".parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn arp(operation: ArpOperation, target: [u8; 6]) -> Vec<u8> {
    let (ethernet, ip) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let packet = ArpPacket::new(ethernet, ip, operation, &A, &A4, &target, &B4).unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(A, [0xff; 6]).arp(packet).write(&mut frame).unwrap();
    frame.resize(60, 0);
    frame
}

/// Frames of IPv4 or IPv6.
fn over(is_v4: bool) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match is_v4 {
        true => PacketBuilder::ethernet2(A, B).ipv4(A4, B4, 64),
        false => PacketBuilder::ethernet2(A, B).ipv6(a6(), b6(), 64),
    }
}

fn tcp(is_v4: bool, payload: &[u8]) -> Vec<u8> {
    let options = [
        TcpOptionElement::MaximumSegmentSize(1460),
        TcpOptionElement::SelectiveAcknowledgementPermitted,
        TcpOptionElement::Timestamp(7, 9),
        TcpOptionElement::Noop,
        TcpOptionElement::WindowScale(7),
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::SelectiveAcknowledgement((5, 6), [None; 3]),
    ];
    let mut frame = Vec::new();
    let segment = over(is_v4).tcp(4321, 9000, u32::MAX - 3, 64240).ack(77).psh();
    segment.options(&options).unwrap().write(&mut frame, payload).unwrap();
    frame
}

fn plain_tcp(set: impl Fn(&mut etherparse::TcpHeader)) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(4321, 9000, 1000, 100);
    set(&mut header);
    let mut frame = Vec::new();
    over(true).tcp_header(header).write(&mut frame, &[]).unwrap();
    frame
}

fn udp(is_v4: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    over(is_v4).udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
    frame
}

fn icmp4(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    over(true).icmpv4_raw(kind, code, rest).write(&mut frame, payload).unwrap();
    frame
}

fn icmp6(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    over(false).icmpv6_raw(kind, code, rest).write(&mut frame, payload).unwrap();
    frame
}

fn dhcp(operation: u8) -> Vec<u8> {
    let mut message = vec![0; 300];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[28..34].copy_from_slice(&A);
    message[236..241].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 0xff]);
    let ports = if operation == 1 { (68, 67) } else { (67, 68) };
    udp(true, ports, &message)
}

/// Frames of which tcpdump says the same.
fn common() -> Vec<Vec<u8>> {
    let quoted4 = udp(true, (1111, 2222), b"quoted")[14..].to_vec();
    let quoted6 = udp(false, (1111, 2222), b"quoted")[14..].to_vec();
    let target = [b6().to_vec(), vec![1, 1, 0x52, 0x54, 0, 0, 0, 2]].concat();
    vec![
        arp(ArpOperation::REQUEST, [0; 6]),
        arp(ArpOperation::REQUEST, B),
        arp(ArpOperation::REPLY, B),
        tcp(true, b""),
        tcp(true, b"some data"),
        tcp(false, b"some data"),
        plain_tcp(|tcp| tcp.syn = true),
        plain_tcp(|tcp| (tcp.fin, tcp.ack, tcp.ece, tcp.cwr) = (true, true, true, true)),
        plain_tcp(|tcp| (tcp.urg, tcp.urgent_pointer) = (true, 5)),
        plain_tcp(|tcp| tcp.rst = true),
        plain_tcp(|_| ()),
        udp(true, (1111, 2222), b"1234567"),
        udp(false, (1111, 2222), b""),
        dhcp(1),
        dhcp(2),
        icmp4(8, 0, [0, 1, 0, 2], &[0; 56]),
        icmp4(0, 0, [0, 1, 0, 2], &[0; 56]),
        icmp4(3, 0, [0; 4], &quoted4),
        icmp4(3, 1, [0; 4], &quoted4),
        icmp4(3, 2, [0; 4], &quoted4),
        icmp4(3, 3, [0; 4], &quoted4),
        icmp4(3, 4, [0, 0, 5, 120], &quoted4),
        icmp4(3, 13, [0; 4], &quoted4),
        icmp4(5, 1, [10, 0, 0, 9], &quoted4),
        icmp4(11, 0, [0; 4], &quoted4),
        icmp4(11, 1, [0; 4], &quoted4),
        icmp6(128, 0, [0, 1, 0, 2], &[0; 56]),
        icmp6(129, 0, [0, 1, 0, 2], &[0; 56]),
        icmp6(1, 4, [0; 4], &quoted6),
        icmp6(1, 3, [0; 4], &quoted6),
        icmp6(1, 0, [0; 4], &quoted6),
        icmp6(2, 0, [0, 0, 5, 0], &quoted6),
        icmp6(3, 0, [0; 4], &quoted6),
        icmp6(135, 0, [0; 4], &target),
        icmp6(136, 0, [0x60, 0, 0, 0], &target),
        icmp6(133, 0, [0; 4], &[]),
        {
            let mut unknown = udp(true, (1, 2), b"unknown protocol");
            unknown[23] = 253;
            unknown
        },
        {
            let mut rest = udp(true, (1, 2), b"later fragment");
            rest[20..22].copy_from_slice(&[0x20, 3]);
            rest
        },
    ]
}

/// What tcpdump prints of frames, a line each.
fn tcpdump(frames: &[Vec<u8>], options: &[&str]) -> Vec<String> {
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut file = PcapWriter::with_header(Vec::new(), header).unwrap();
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        file.write_packet(&packet).unwrap();
    }
    let mut child = Command::new("tcpdump")
        .args(["-Z", "root", "-t", "-n", "-S", "-r", "-"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tcpdump; scripts/install.sh test installs it");
    child.stdin.take().unwrap().write_all(&file.into_writer()).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let text = String::from_utf8(output).unwrap();
    text.lines().filter(|line| !line.starts_with('\t')).map(str::to_owned).collect()
}

/// The line of a frame without its time, its port and its way.
fn ours(frame: &[u8], link_level: bool) -> String {
    let line = line(&captured(frame, frame.len()), "vm1", link_level);
    line.strip_prefix("00:00:07.000009 vm1 In  ").unwrap().to_owned()
}

fn captured(frame: &[u8], shown: usize) -> Frame<'_> {
    Frame {
        interface: 0,
        time: Duration::new(86_400 * 3 + 7, 9_999),
        way: Way::In,
        id: 0,
        queue: 0,
        missed: 0,
        comment: None,
        len: frame.len() as u32,
        bytes: frame[..shown].into(),
    }
}

#[test]
fn lines_are_those_of_tcpdump() {
    let frames = common();
    for (options, link_level) in [(&[][..], false), (&["-e"], true)] {
        let theirs = tcpdump(&frames, options);
        assert_eq!(theirs.len(), frames.len(), "{theirs:#?}");
        let ours: Vec<_> = frames.iter().map(|frame| ours(frame, link_level)).collect();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // It sets a second space before the number of a protocol.
            assert_eq!(ours, &theirs.replace(":  ", ": "));
        }
    }
}

#[test]
fn tags_are_those_of_tcpdump() {
    let tag = |frame: Vec<u8>, tag: [u8; 4]| [&frame[..12], &tag, &frame[12..]].concat();
    let one = tag(arp(ArpOperation::REQUEST, [0; 6]), [0x81, 0, 0x70, 10]);
    let two = tag(tag(udp(true, (1, 2), b"x"), [0x81, 0, 0, 9]), [0x88, 0xa8, 0, 10]);
    let frames = [one, two];
    let ours: Vec<_> = frames.iter().map(|frame| ours(frame, true)).collect();
    assert_eq!(ours, tcpdump(&frames, &["-e"]));
}

#[test]
fn what_tcpdump_says_otherwise() {
    let dns = udp(true, (1111, 53), b"a question");
    assert_eq!(ours(&dns, false), "IP 10.0.0.1.1111 > 10.0.0.2.53: DNS, length 10");
    let mut frame = vec![0; 60];
    frame[..12].copy_from_slice(&[B, A].concat());
    let link = "52:54:00:00:00:01 > 52:54:00:00:00:02";
    assert_eq!(ours(&frame, false), format!("{link}, 802.3, length 60"));
    frame[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
    let vlan = "ethertype 802.1Q (0x8100), length 60: vlan 7, p 0, 802.3";
    assert_eq!(ours(&frame, false), format!("{link}, {vlan}"));
    let tagged = [&dns[..12], &[0x81, 0, 0, 7], &dns[12..]].concat();
    assert!(ours(&tagged, false).starts_with("vlan 7, p 0, IP 10.0.0.1.1111 > "));
    let dropped = Frame {
        comment: Some("dropped at vm1: runt: why".into()),
        way: Way::Out,
        ..captured(&dns, 52)
    };
    let line = line(&dropped, "vm1", false);
    assert!(line.starts_with("00:00:07.000009 vm1 Out IP "), "{line}");
    assert!(line.ends_with("DNS, length 10, dropped at vm1: runt: why"), "{line}");
}

#[test]
fn lengths_are_those_of_the_whole_frame() {
    let frame = tcp(true, &[1; 900]);
    let line = line(&captured(&frame, 100), "vm1", false);
    assert!(line.ends_with("length 900"), "{line}");
}

#[test]
fn extension_headers_may_be_cut_off() {
    for header in [0, 43, 44, 51, 60] {
        let mut frame = udp(false, (1, 2), &[header; 40]);
        frame[20] = header;
        for shown in 54..=frame.len() {
            let line = line(&captured(&frame, shown), "vm1", false);
            assert!(line.contains("IP6 fd00::1"), "{header}, {shown} bytes: {line}");
        }
    }
    let mut later = udp(false, (1, 2), &[0; 8]);
    later[20] = 44;
    later[54..62].copy_from_slice(&[17, 0, 0, 8, 0, 0, 0, 1]);
    assert!(ours(&later, false).ends_with(": ip-proto-17"), "{}", ours(&later, false));
}

proptest! {
    #[test]
    fn no_frame_panics(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((0..120_usize, any::<u8>()), 0..6),
        shown in 0..120_usize,
    ) {
        let frames = common();
        let mut frame = frames[which.index(frames.len())].clone();
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        let shown = shown.min(frame.len());
        prop_assert!(!line(&captured(&frame, shown), "vm1", true).contains('\n'));
    }
}
