//! Real sockets of the host on one side, a scripted guest on the other. Tests without loopback maps
//! run in a network namespace, whose loopback interface has outside addresses.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use smoltcp::wire::IpProtocol;
use trama_frame::VnetHeader;

use super::*;
use crate::LoopbackMap;
use crate::host_socket::HostDatagram;
use crate::test_world::{datagram, *};
use crate::testing::{GATEWAY4, GATEWAY6};

const WORLD4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const WORLD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// Gives the host these outside addresses.
const SETUP: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 198.51.100.2/32 dev lo
    ip addr add 2001:db8::1/128 dev lo nodad";

/// A server outside.
fn server(address: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut room).expect("a datagram");
    (room[..length].to_vec(), from)
}

fn guest(to: SocketAddr) -> SocketAddr {
    SocketAddr::new(guest_for(to.ip()), 4000)
}

#[test]
fn a_datagram_goes_out_and_only_its_peers_answer() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        let ((one, to_one), (two, to_two)) = (server(address), server(address));
        world.send(&[datagram(to_one, 64, b"hello"), datagram(to_two, 64, b"")]);
        let ((said, from), (empty, same)) = (receive(&one), receive(&two));
        assert_eq!((&said[..], &empty[..]), (&b"hello"[..], &b""[..]));
        assert_eq!(from, same, "a guest's port has one outside port for all destinations");

        for (server, address) in [(&one, to_one), (&two, to_two)] {
            server.send_to(b"welcome", from).unwrap();
            let answer = (address, guest(address), b"welcome".to_vec());
            assert_eq!(read_datagram(&world.frame()), answer);
        }
        one.send_to(b"", from).unwrap();
        assert_eq!(read_datagram(&world.frame()), (to_one, guest(to_one), Vec::new()));
        assert_eq!(world.counters.drops().len(), 0);
    }
    let mut world = World::new();
    let ((friend, to), (stranger, _)) = (server(WORLD4), server(OTHER4));
    world.send(&[datagram(to, 64, b"hello")]);
    let (_, from) = receive(&friend);
    stranger.send_to(b"let me in", from).unwrap();
    world.until("the stranger's datagram", |world| world.dropped(DropReason::UdpUnasked) == 1);
    assert!(world.wire.0.is_empty());
}

#[test]
fn only_a_map_leads_to_loopback_and_its_answers_come_from_there() {
    let (secret, to_secret) = server(Ipv4Addr::LOCALHOST.into());
    let (open, to_open) = server(Ipv4Addr::LOCALHOST.into());
    let mut world = World::new();
    let visible = SocketAddr::new(GATEWAY4.into(), 5300);
    let map = LoopbackMap { transport: Transport::Udp, guest: visible, host: to_open };
    world.config.nat.as_mut().unwrap().loopback.push(map);

    world.send(&[datagram(visible, 64, b"hello")]);
    let (said, from) = receive(&open);
    assert_eq!((&said[..], from.ip()), (&b"hello"[..], Ipv4Addr::LOCALHOST.into()));
    open.send_to(b"welcome", from).unwrap();
    assert_eq!(read_datagram(&world.frame()), (visible, guest(visible), b"welcome".to_vec()));

    world.send(&[datagram(to_secret, 64, b"hello")]);
    assert_eq!(world.dropped(DropReason::PolicyLoopback), 1);
    let applied = read_icmp(&world.frame());
    assert_eq!((applied.from, applied.kind), (GATEWAY4.into(), (3, 13)), "forbidden, at once");
    secret.set_nonblocking(true).unwrap();
    assert!(secret.recv(&mut [0; 9]).is_err(), "it got through");
}

#[test]
fn a_burst_arrives_as_it_was_sent() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        let ((one, to_one), (two, to_two)) = (server(address), server(address));
        // As many as the server's socket buffers while it does not read.
        let lengths = (0..75).map(|index| if index % 30 == 29 { 30 } else { 200 });
        let payloads: Vec<Vec<u8>> = lengths
            .enumerate()
            .map(|(index, length)| (0..length).map(|at| (at * 7 + index) as u8).collect())
            .collect();
        let mut burst: Vec<_> = payloads.iter().map(|data| datagram(to_one, 64, data)).collect();
        burst.push(datagram(to_two, 64, b"in between"));
        burst.push(datagram(to_one, 64, b"last"));
        world.send(&burst);
        for (index, payload) in payloads.iter().enumerate() {
            assert!(receive(&one).0 == *payload, "datagram {index}");
        }
        assert_eq!(receive(&one).0, b"last");
        assert_eq!(receive(&two).0, b"in between");
    }
}

#[test]
fn a_burst_leaves_with_one_call() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        // The loopback interface does not segment GSO batches.
        let mut socket = HostSocket::udp(address.is_ipv6()).unwrap();
        let to = SocketAddr::new(address, 5000);
        socket.bind(to).unwrap();
        let burst: Vec<_> = (0..20u8).map(|index| datagram(to, 64, &[index; 1000])).collect();
        world.send(&burst);
        // The kernel may deliver a datagram a while after it was sent.
        let mut ready = [PollFd::new(&socket, PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&Duration::from_secs(20).try_into().unwrap())), Ok(1));
        let mut arrivals = Vec::new();
        let keep =
            |datagram: HostDatagram<'_>| arrivals.push((datagram.bytes.len(), datagram.segment));
        ReceiveBuffers::default().receive(&socket, BATCH, keep).unwrap();
        assert_eq!(arrivals, [(20_000, 1000)]);
    }
}

#[test]
fn a_gso_frame_of_the_guest_is_segmented() {
    let (socket, host) = server(Ipv4Addr::LOCALHOST.into());
    let mut world = World::new();
    let visible = SocketAddr::new(GATEWAY4.into(), 5300);
    let map = LoopbackMap { transport: Transport::Udp, guest: visible, host };
    world.config.nat.as_mut().unwrap().loopback.push(map);
    let payload: Vec<u8> = (0..2500).map(|at| at as u8).collect();
    let frame = datagram(visible, 64, &payload);
    let (gso_size, gso_type) = (1000, trama_frame::vnet::GSO_UDP_L4);
    let flags = trama_frame::vnet::NEEDS_CSUM;
    let header = VnetHeader { flags, gso_type, gso_size, ..VnetHeader::default() };
    world.with(|nat, context| nat.receive(PortMark(1), header, &frame, context));
    world.turn(Duration::ZERO);
    for part in payload.chunks(1000) {
        assert_eq!(receive(&socket).0, part);
    }
}

#[test]
fn a_gso_frame_with_too_many_segments_is_refused() {
    let (socket, host) = server(Ipv4Addr::LOCALHOST.into());
    let mut world = World::new();
    let visible = SocketAddr::new(GATEWAY4.into(), 5300);
    let map = LoopbackMap { transport: Transport::Udp, guest: visible, host };
    world.config.nat.as_mut().unwrap().loopback.push(map);
    let (flags, gso_type) = (trama_frame::vnet::NEEDS_CSUM, trama_frame::vnet::GSO_UDP_L4);
    let header = VnetHeader { flags, gso_type, gso_size: 1, ..VnetHeader::default() };
    let mut send = |count| {
        let frame = datagram(visible, 64, &vec![7; count]);
        world.with(|nat, context| nat.receive(PortMark(1), header, &frame, context));
        world.turn(Duration::ZERO);
        world.dropped(DropReason::BadUdp)
    };
    assert_eq!(send(60_000), 1, "a frame of sixty thousand datagrams");
    assert_eq!(send(128), 1);
    for _ in 0..128 {
        assert_eq!(receive(&socket).0, [7]);
    }
}

#[test]
fn a_gro_batch_is_one_large_frame() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        let (server, to) = server(address);
        world.send(&[datagram(to, 64, b"more")]);
        let (_, from) = receive(&server);
        let payload: Vec<u8> = (0..10_300).map(|at| at as u8).collect();
        let slices = [std::io::IoSlice::new(&payload)];
        let from = SockaddrStorage::from(from);
        let cut = [ControlMessage::UdpGsoSegments(&1000)];
        sendmsg(server.as_raw_fd(), &slices, &cut, MsgFlags::empty(), Some(&from)).unwrap();
        let frames = world.frames(1);
        assert_eq!(frames[0].0.gso_size, 1000);
        let segments = segments(&frames[0].0, &frames[0].1);
        let received = segments.iter().map(|segment| {
            let (source, destination, payload) = read_datagram(segment);
            assert_eq!((source, destination), (to, guest(to)));
            payload
        });
        assert_eq!(received.collect::<Vec<_>>(), payload.chunks(1000).collect::<Vec<_>>());
    }
}

#[test]
fn datagrams_longer_than_the_mtu_are_fragmented() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        let (server, to) = server(address);
        world.send(&[datagram(to, 64, b"more")]);
        let (_, from) = receive(&server);
        let payload: Vec<u8> = (0..5000).map(|at| (at / 3) as u8).collect();
        server.send_to(&payload, from).unwrap();
        let frames = world.frames(4);
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for (_, frame) in &frames {
            assert!(frame.len() <= 14 + 1500);
            let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
            let payload = packet.net.as_ref().unwrap().ip_payload_ref().unwrap();
            assert!(payload.fragmented);
            let (offset, more) = match packet.net.as_ref().unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    let ip = ip.header();
                    (ip.fragments_offset().byte_offset(), ip.more_fragments())
                }
                _ => {
                    let field = u16::from_be_bytes([frame[56], frame[57]]);
                    (field & !7, field & 1 == 1)
                }
            };
            offsets.push((usize::from(offset), more));
            bytes.extend_from_slice(payload.payload);
        }
        let step = offsets[1].0;
        let wanted = (0..4).map(|index| (index * step, index < 3)).collect::<Vec<_>>();
        assert_eq!(offsets, wanted);
        assert_eq!(&bytes[8..], payload);
        let pseudo = crate::packet::outbound::pseudo_sum(
            to.ip(),
            guest_for(address),
            IpProtocol::Udp,
            bytes.len(),
        );
        let sum = trama_frame::checksum::add(pseudo, &bytes);
        assert_eq!(trama_frame::checksum::fold(sum), 0xffff, "the checksum of the whole");
    }
}

#[test]
fn a_closed_port_is_reported_to_the_guest() {
    if !is_isolated(SETUP) {
        return;
    }
    for (address, kind) in [(WORLD4, (3, 3)), (WORLD6, (1, 4))] {
        let mut world = World::new();
        let to = SocketAddr::new(address, 9);
        world.send(&[datagram(to, 64, b"anybody?")]);
        let applied = read_icmp(&world.frame());
        assert_eq!((applied.from, applied.kind), (address, kind));
        let ethernet = datagram(to, 64, b"anybody?");
        let head = if address.is_ipv4() { 20 } else { 40 };
        let sent = &ethernet[14 + head..];
        let quoted = &applied.body[head..];
        assert_eq!(quoted[..6], sent[..6], "ports and length");
        assert_eq!(quoted[8..], sent[8..]);
        // The flow continues.
        let (server, to) = server(address);
        world.send(&[datagram(to, 64, b"hello")]);
        assert_eq!(receive(&server).0, b"hello");
    }
}

#[test]
fn a_missing_route_is_reported_to_the_guest() {
    if !is_isolated("true") {
        return;
    }
    let mut world = World::new();
    for (address, from, kind) in
        [(WORLD4, GATEWAY4.into(), (3, 0)), (WORLD6, IpAddr::from(GATEWAY6), (1, 0))]
    {
        world.send(&[datagram(SocketAddr::new(address, 9), 64, b"hello")]);
        let applied = read_icmp(&world.frame());
        assert_eq!((applied.from, applied.kind), (from, kind));
    }
}

#[test]
fn a_flow_that_asks_dns_ends_with_its_last_answer() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = World::new();
    let server = UdpSocket::bind((WORLD4, DNS_PORT)).unwrap();
    let to = server.local_addr().unwrap();
    // Like resolvers that query both address types.
    world.send(&[datagram(to, 64, b"A?"), datagram(to, 64, b"AAAA?")]);
    let (_, from) = receive(&server);
    server.send_to(b"A!", from).unwrap();
    world.frames(1);
    assert_eq!(world.nat.udp.table.len(), 1, "there is a second question");
    server.send_to(b"AAAA!", from).unwrap();
    world.frames(1);
    assert_eq!(world.nat.udp.table.len(), 0);
    // A query without an answer.
    world.send(&[datagram(to, 64, b"A?")]);
    world.now += LIFETIMES[DNS];
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.udp.table.len(), 0);
}

#[test]
fn a_flow_lives_as_long_as_it_is_used_and_then_its_time() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = World::new();
    let (server, to) = server(WORLD4);
    world.send(&[datagram(to, 64, b"hello")]);
    let (_, from) = receive(&server);
    assert_eq!(world.nat.deadline(world.now), Some(LIFETIMES[UNANSWERED]));
    server.send_to(b"welcome", from).unwrap();
    world.frames(1);
    assert_eq!(world.nat.deadline(world.now), Some(LIFETIMES[ANSWERED]));
    world.now += LIFETIMES[ANSWERED] - Duration::from_millis(1);
    world.send(&[datagram(to, 64, b"still here")]);
    assert_eq!(receive(&server), (b"still here".to_vec(), from));
    world.now += LIFETIMES[ANSWERED];
    world.turn(Duration::ZERO);
    assert_eq!((world.nat.udp.table.len(), world.nat.deadline(world.now)), (0, None));
}

#[test]
fn a_port_with_too_many_flows_loses_its_own_oldest() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = World::new();
    world.nat.udp = Flows::new(Limits { port: 8, total: 10 });
    let (server, to) = server(WORLD4);
    world.send_from(1, &datagram_from(1, to, 64, b"quiet"));
    world.turn(Duration::ZERO);
    let (_, quiet) = receive(&server);
    for port in 100..200 {
        world.now += Duration::from_millis(1);
        world.send_from(2, &datagram_from(port, to, 64, b"busy"));
    }
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.udp.table.len(), 9);
    assert_eq!(world.dropped(DropReason::FlowEvicted), 92);
    for _ in 100..200 {
        receive(&server);
    }
    server.send_to(b"still here?", quiet).unwrap();
    assert_eq!(read_datagram(&world.frame()).1.port(), 1);
}

#[test]
fn the_more_flows_there_are_the_fewer_peers_has_each() {
    let setup = "ip route add local 198.51.0.0/16 dev lo; ulimit -n 20000";
    if !is_isolated(setup) {
        return;
    }
    let mut world = World::new();
    world.nat.udp = Flows::new(Limits { port: 5000, total: 5000 });
    let speak = |world: &mut World, port, count: u8| {
        (0..count).for_each(|number| {
            let peer = SocketAddr::from(([198, 51, 7, number], 9));
            world.send_from(1, &datagram_from(port, peer, 64, b"hello"));
        });
        let mut flows = world.nat.udp.table.iter();
        flows.find(|(key, ..)| key.source.port() == port).unwrap().1.peers.len()
    };
    assert_eq!(speak(&mut world, 1, 200), 200);
    for port in 2..=4000 {
        speak(&mut world, port, 1);
    }
    let most = ALL_PEERS / 4000;
    assert!(speak(&mut world, 2, 200) <= most);
    assert_eq!(speak(&mut world, 1, 201), 1, "all are forgotten");
    let peers: Vec<_> = world.nat.udp.table.iter().map(|(_, flow, _)| &flow.peers).collect();
    assert!(peers.iter().all(|peers| peers.capacity() <= 4 * most), "and gives its memory back");
}

/// Ports that the guest sends from to each destination, and the number whose cost is compared.
const MANY: usize = 12_500;
const DESTINATIONS: usize = 4;
const SOME: usize = 1_250;

#[test]
fn fifty_thousand_flows_cost_what_each_costs() {
    if !is_isolated(&format!("{SETUP}; ulimit -n 20000")) {
        return;
    }
    let mut world = World::new();
    world.nat.udp = Flows::new(Limits { port: MANY, total: MANY });
    let servers: Vec<_> = (0..DESTINATIONS).map(|_| server(WORLD4)).collect();
    let before = resident();
    let mut times = Vec::new();
    for batch in 0..MANY / SOME {
        let start = processor_time();
        for index in 0..SOME {
            for (_, to) in &servers {
                let port = 1 + batch * SOME + index;
                world.send_from(1, &datagram_from(port as u16, *to, 64, b"hello"));
            }
        }
        world.turn(Duration::ZERO);
        times.push((processor_time() - start) / 1000.0 / (SOME * DESTINATIONS) as f64);
    }
    assert_eq!(world.nat.udp.table.len(), MANY);
    assert_eq!(world.counters.drops().len(), 0);
    let memory = (resident() - before) / MANY;
    let (first, last) = (times[0], times[times.len() - 1]);
    let thousands = (MANY - SOME) as f64 * DESTINATIONS as f64 / 1000.0;
    let slope = (last - first) / thousands;
    println!("{} flows, us each, by tenths: {times:.1?}", MANY * DESTINATIONS);
    println!("slope {slope:.4} us per 1000 flows; {memory} bytes a socket");
    assert!(memory < 1024);
    // Work that grows with the number of flows would take ten times as long as at first.
    assert!(last < first * 5.0, "{first} us a flow at first, {last} at last");
}

/// Processor time of this thread in nanoseconds; time on the run queue does not count.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A packet with arbitrary content is dropped for one reason, or its flow is refused for one.
    #[test]
    fn no_payload_of_a_packet_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        protocol in prop::sample::select(vec![1u8, 17, 44, 58]),
        offload in any::<[u8; 12]>(),
        is_v6 in any::<bool>(),
        cut in 0..60usize,
    ) {
        // Guests may not reach these.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let to = loopback[usize::from(is_v6)];
        let mut frame = Vec::new();
        ip(guest_for(to), to, 64).write(&mut frame, 253.into(), &bytes).unwrap();
        // For IPv6, set after building, so that the builder does not interpret it.
        frame[if is_v6 { 20 } else { 23 }] = protocol;
        if !is_v6 {
            frame[24..26].fill(0);
            let sum = trama_frame::checksum::internet(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        frame.truncate(frame.len() - cut.min(frame.len()));
        let mut world = World::new();
        let header = VnetHeader::from_bytes(&offload);
        let is_local = world.leaves_with(header, &frame);
        world.turn(Duration::ZERO);
        let drops: u64 = world.counters.drops().values().sum();
        let waits = u64::from(world.nat.deadline(world.now).is_some());
        prop_assert!(is_local || drops + waits == 1, "{:?}", world.counters.drops());
    }
}

#[test]
fn a_datagram_that_breaks_the_rules_is_counted() {
    let to = SocketAddr::new(WORLD4, 9);
    let whole = datagram(to, 64, b"hello");
    let udp = 14 + 20;
    let mut world = World::new();
    let mut refused = |at: usize, value: u8| {
        let mut frame = whole.clone();
        frame[at] = value;
        let before = world.dropped(DropReason::BadUdp);
        world.send(&[frame]);
        world.dropped(DropReason::BadUdp) == before + 1
    };
    assert!(refused(udp + 8, b'H'), "wrong checksum");
    assert!(refused(udp + 5, 200), "longer than its packet");
    assert!(refused(udp + 5, 7), "shorter than its header");
    let mut silent = datagram(SocketAddr::new(WORLD6, 9), 64, b"hello");
    silent[14 + 40 + 6..][..2].fill(0);
    world.send(&[silent]);
    assert_eq!(world.dropped(DropReason::BadUdp), 4, "no checksum in IPv6");
    world.send(&[datagram_from(0, to, 64, b""), datagram(SocketAddr::new(WORLD4, 0), 64, b"")]);
    assert_eq!(world.dropped(DropReason::BadUdp), 6);
    assert_eq!(world.nat.udp.table.len(), 0);
}
