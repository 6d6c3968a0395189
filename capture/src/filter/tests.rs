//! Words and mistakes by example; what filters accept, against tcpdump and against frames without
//! tags and extension headers.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const REASONS: &[&str] = &["runt", "vlan_not_allowed"];

fn mistake(text: &str) -> Mistake {
    Filter::parse(text, REASONS).unwrap_err()
}

#[test]
fn a_mistake_has_its_column_and_what_to_write() {
    for (text, column, message, word) in [
        ("tpc port 80", 1, "\"tpc\" begins no test", "tpc"),
        ("tcp prot 80", 5, "\"prot\" follows a whole test; write 'and' or 'or' before it", "prot"),
        ("host 10.1.0.300", 6, "\"10.1.0.300\" is not an address", ""),
        ("arp or", 7, "a test is missing at the end", ""),
        ("", 1, "a test is missing at the end", ""),
        ("(arp or ip", 1, "this ( is not closed", ""),
        ("arp)", 4, "there is no ( for this )", ""),
        ("(arp ip)", 6, "\"ip\" stands where and, or or ) must", "ip"),
        ("port http", 6, "\"http\" is not a port", ""),
        ("port 90-80", 6, "\"90-80\" is not a port", ""),
        ("icmp port 80", 1, "icmp has no ports", ""),
        ("tcp src 10.1.0.1", 1, "tcp has no addresses; write tcp and host …", ""),
        ("vlan 4096", 6, "\"4096\" is not a VLAN; write 0 to 4095", ""),
        ("ether hots 1:2:3:4:5:6", 7, "\"hots\" after ether", "hots"),
        ("ether host 1:2:3", 12, "\"1:2:3\" is not a MAC address", ""),
        ("less many", 6, "\"many\" is not a length in bytes", ""),
        ("drop vlan", 6, "\"vlan\" is not a drop reason", "vlan"),
        ("é or drop", 1, "\"é\" begins no test", "é"),
        ("arp or é", 8, "\"é\" begins no test", "é"),
        ("port 80 or 10.1.0.1", 12, "\"10.1.0.1\" begins no test", "10.1.0.1"),
    ] {
        let found = mistake(text);
        assert!(found.message.starts_with(message), "{text}: {found}");
        assert_eq!((found.column, found.word.as_str()), (column, word), "{text}");
    }
    assert_eq!(mistake("drop vlan").known, REASONS);
    assert!(mistake("tpc").known.contains(&"tcp"));
}

#[test]
fn a_filter_is_bounded() {
    let many = vec!["arp"; MAX_NODES].join(" or ");
    assert!(mistake(&many).message.contains("more than 64"));
    assert!(mistake(&"(".repeat(100_000)).message.contains("more than 64"));
    assert!(mistake(&"not ".repeat(100_000)).message.contains("more than 64"));
}

#[test]
fn operators_have_words_and_signs_and_equal_rank() {
    let same = |left: &str, right: &str| {
        let read = |text| Filter::parse(text, REASONS).unwrap();
        assert_eq!(read(left), read(right), "{left}");
    };
    same("!arp&&ip||tcp", "not arp and ip or tcp");
    same("arp or ip and tcp", "(arp or ip) and tcp");
    same("tcp port 80 or 443 or 8000-8010", "tcp port 80 or tcp port 443 or tcp port 8000-8010");
    same("src 10.1.0.1 or ::1", "src host 10.1.0.1 or src host ::1");
    same("net 10.0.0.0/8", "host 10.0.0.0/8");
    same("not(arp)", "not arp");
}

#[test]
fn a_drop_reason_and_a_vlan_are_tested() {
    let holds = |text: &str, frame: &[u8], drop| {
        let glimpse = Glimpse { head: frame, len: frame.len(), drop };
        Filter::parse(text, REASONS).unwrap().matches(&glimpse)
    };
    let tagged = tag(&Packet::default().frame(), &[0x2007, 0x0009]);
    assert!(holds("drop vlan_not_allowed", &tagged, Some(1)));
    assert!(!holds("drop vlan_not_allowed", &tagged, Some(0)));
    assert!(!holds("drop runt", &tagged, None));
    assert!(holds("vlan", &tagged, None) && holds("vlan 7", &tagged, None));
    assert!(!holds("vlan 9", &tagged, None), "the outermost tag counts");
    assert!(!holds("vlan", &Packet::default().frame(), None));
    assert!(holds("not tcp", &tagged[..5], None), "what is not there does not hold");
}

/// A packet in a frame without tags.
#[derive(Clone, Debug)]
struct Packet {
    macs: [u8; 2],
    ethertype: u16,
    hosts: [u8; 2],
    protocol: u8,
    /// Of an IPv4 header, in words.
    header: u8,
    /// Of an IPv4 packet: flags and fragment offset.
    fragment: u16,
    ports: [u16; 2],
    len: usize,
}

impl Default for Packet {
    fn default() -> Packet {
        let (macs, hosts, ports) = ([1, 2], [1, 2], [80, 443]);
        let (ethertype, protocol, header, fragment, len) = (ETHERTYPE_IPV4, TCP, 5, 0, 120);
        Packet { macs, ethertype, hosts, protocol, header, fragment, ports, len }
    }
}

/// The 16 bytes of an IPv6 address.
fn address6(host: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, host);
    address
}

impl Packet {
    /// The bytes; all headers are there.
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; self.len.max(120)];
        for (at, mac) in [(0, self.macs[1]), (6, self.macs[0])] {
            frame[at..at + 6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, mac]);
        }
        frame[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
        let packet = &mut frame[14..];
        let ports = match self.ethertype {
            ETHERTYPE_IPV4 => {
                packet[0] = 0x40 | self.header;
                packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
                packet[9] = self.protocol;
                for (at, host) in [(12, self.hosts[0]), (16, self.hosts[1])] {
                    packet[at..at + 4].copy_from_slice(&[10, 0, 0, host]);
                }
                usize::from(self.header) * 4
            }
            ETHERTYPE_IPV6 => {
                packet[0] = 0x60;
                packet[6] = self.protocol;
                packet[8..24].copy_from_slice(&address6(self.hosts[0]));
                packet[24..40].copy_from_slice(&address6(self.hosts[1]));
                40
            }
            _ => {
                for (at, host) in [(14, self.hosts[0]), (24, self.hosts[1])] {
                    packet[at..at + 4].copy_from_slice(&[10, 0, 0, host]);
                }
                return frame;
            }
        };
        // A header length below the minimum lays the ports over the header, as tcpdump reads it.
        if ports >= 20 {
            packet[ports..ports + 2].copy_from_slice(&self.ports[0].to_be_bytes());
            packet[ports + 2..ports + 4].copy_from_slice(&self.ports[1].to_be_bytes());
        }
        frame
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let ethertypes = select(vec![0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x8035, 0x1234]);
    let protocols = select(vec![TCP, TCP, UDP, UDP, ICMP, ICMPV6, 132, 2]);
    let fragments = select(vec![0, 0, 0, 0x4000, 0x2000, 0x2001, 0x1fff]);
    let ends = [1_u8..4, 1..4];
    let ports = [79_u16..83, 79..83];
    let all =
        (ends.clone(), ethertypes, ends, protocols, 0..16_u8, fragments, ports, 120..140_usize);
    all.prop_map(|(macs, ethertype, hosts, protocol, header, fragment, ports, len)| Packet {
        macs,
        ethertype,
        hosts,
        protocol,
        header,
        fragment,
        ports,
        len,
    })
}

/// Filters in the words that tcpdump has, too.
fn filters() -> impl Strategy<Value = String> {
    let direction = || select(vec!["", "src ", "dst "]);
    let address = prop_oneof![
        (select(vec!["", "ip ", "arp "]), 1..4)
            .prop_map(|(of, host)| (of, format!("10.0.0.{host}"))),
        (select(vec!["", "ip6 "]), 1..4).prop_map(|(of, host)| (of, format!("fd00::{host}"))),
    ];
    let host = (address, direction())
        .prop_map(|((of, address), direction)| format!("{of}{direction}host {address}"));
    let net = (select(vec!["10.0.0.2/31", "10.0.0.0/30", "fd00::2/127"]), direction())
        .prop_map(|(net, direction)| format!("{direction}net {net}"));
    let of = || select(vec!["", "tcp ", "udp "]);
    let port = (of(), direction(), 79..83)
        .prop_map(|(of, direction, port)| format!("{of}{direction}port {port}"));
    let range = (of(), direction(), 79..83)
        .prop_map(|(of, direction, first)| format!("{of}{direction}portrange {first}-81"))
        .prop_filter("in order", |text| !text.contains("82-"));
    let mac = (select(vec!["host", "src", "dst"]), 1..4)
        .prop_map(|(end, mac)| format!("ether {end} 52:54:00:00:00:0{mac}"));
    let length = (select(vec!["less", "greater"]), 118..142)
        .prop_map(|(word, bytes)| format!("{word} {bytes}"));
    let protocol = select(vec!["ip", "ip6", "arp", "icmp", "icmp6", "tcp", "udp"]);
    let protocol = protocol.prop_map(str::to_owned);
    let test = prop_oneof![host, net, port, range, mac, length, protocol];
    test.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("not {one}")),
            inner.clone().prop_map(|one| format!("not ({one})")),
            (inner.clone(), select(vec!["and", "or"]), inner.clone())
                .prop_map(|(left, join, right)| format!("{left} {join} {right}")),
            (inner.clone(), select(vec!["and", "or"]), inner)
                .prop_map(|(left, join, right)| format!("{left} {join} ({right})")),
        ]
    })
}

/// Which frames tcpdump takes. Its optimiser refuses a filter that no frame can satisfy (-O).
fn tcpdump(filter: &str, frames: &[Vec<u8>]) -> Vec<bool> {
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut file = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (index, frame) in frames.iter().enumerate() {
        let time = Duration::from_secs(index as u64);
        file.write_packet(&PcapPacket::new(time, frame.len() as u32, frame)).unwrap();
    }
    let mut child = Command::new("tcpdump")
        .args(["-O", "-Z", "root", "-r", "-", "-w", "-", filter])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump; scripts/install.sh test installs it");
    child.stdin.take().unwrap().write_all(&file.into_writer()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{filter}: {}", String::from_utf8_lossy(&output.stderr));
    let mut taken = vec![false; frames.len()];
    let mut reader = PcapReader::new(output.stdout.as_slice()).unwrap();
    while let Some(packet) = reader.next_packet() {
        taken[packet.unwrap().timestamp.as_secs() as usize] = true;
    }
    taken
}

fn ours(filter: &Filter, frame: &[u8], len: usize) -> bool {
    filter.matches(&Glimpse { head: &frame[..frame.len().min(128)], len, drop: None })
}

/// The frame with tags of these TCIs.
fn tag(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let bytes = |(index, tci): (usize, &u16)| {
        let tpid: u16 = [0x8100, 0x88a8][index % 2];
        [tpid.to_be_bytes(), tci.to_be_bytes()].concat()
    };
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, tags.iter().enumerate().flat_map(bytes));
    tagged
}

/// An IPv6 packet with an extension header of each of these kinds.
fn extend(packet: &Packet, kinds: &[u8]) -> Vec<u8> {
    let mut frame = packet.frame();
    for kind in kinds {
        let mut header = [frame[20], 0, 0, 0, 0, 0, 0, 0];
        // Hop-by-hop options are the first, wherever they are put; here it does not matter.
        frame[20] = *kind;
        if *kind == 44 {
            header[3] = 1;
        }
        frame.splice(54..54, header);
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn frames_are_taken_as_tcpdump_takes_them(text in filters(), packets in vec(packets(), 60)) {
        let frames: Vec<_> = packets.iter().map(Packet::frame).collect();
        let filter = Filter::parse(&text, REASONS).unwrap();
        for (taken, frame) in tcpdump(&text, &frames).into_iter().zip(&frames) {
            prop_assert_eq!(ours(&filter, frame, frame.len()), taken, "{}: {:02x?}", text, frame);
        }
    }
}

proptest! {
    #[test]
    fn tags_change_nothing(text in filters(), packet in packets(), tags in vec(any::<u16>(), 0..9)) {
        let filter = Filter::parse(&text, REASONS).unwrap();
        let (plain, tagged) = (packet.frame(), tag(&packet.frame(), &tags));
        prop_assert_eq!(ours(&filter, &tagged, 120), ours(&filter, &plain, 120));
    }

    #[test]
    fn extension_headers_change_nothing(
        text in filters(),
        packet in packets().prop_map(|packet| Packet { ethertype: ETHERTYPE_IPV6, ..packet }),
        kinds in vec(select(vec![0, 43, 44, 60]), 0..4),
    ) {
        let filter = Filter::parse(&text, REASONS).unwrap();
        let (plain, extended) = (packet.frame(), extend(&packet, &kinds));
        prop_assert_eq!(ours(&filter, &extended, 120), ours(&filter, &plain, 120));
    }

    #[test]
    fn no_text_and_no_frame_panics(text in ".{0,80}", words in vec(select(vec![
        "and", "or", "not", "(", ")", "tcp", "ip6", "arp", "src", "dst", "host", "net", "port",
        "vlan", "ether", "less", "drop", "runt", "80", "10.0.0.1", "fd00::/8", "1:2:3:4:5:6",
    ]), 0..12), frame in vec(any::<u8>(), 0..200), kind in select(vec![0x0800, 0x86dd, 0x0806])) {
        let mut frame = frame;
        if frame.len() >= 14 {
            frame[12..14].copy_from_slice(&u16::to_be_bytes(kind));
        }
        for text in [text, words.join(" ")] {
            if let Ok(filter) = Filter::parse(&text, REASONS) {
                ours(&filter, &frame, frame.len());
            }
        }
    }
}
