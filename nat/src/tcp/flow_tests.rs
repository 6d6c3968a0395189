//! Flows over real sockets of the loopback.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use nix::errno::Errno;
use rustix::io::ioctl_fionread;
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use trama_frame::VnetHeader;
use trama_frame::vnet::DATA_VALID;

use super::*;
use crate::cable::Cable;
use crate::context::{Context, TokenKind};
use crate::drop_reason::Counters;
use crate::events::FlowEvents;
use crate::io::Random;
use crate::new_flows::NewFlows;
use crate::packet::checksums;
use crate::rules::{LoopbackMap, Rules};
use crate::testing::Lab;
use crate::testing::{GATEWAY4, GATEWAY6, GUEST, GUEST4, GUEST6, lab, random};

const PORT: u16 = 7000;
/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Frames(Vec<Vec<u8>>);

impl Cable for Frames {
    fn room(&mut self) -> usize {
        64
    }

    fn send(&mut self, _header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.0.push(parts.concat());
        Ok(())
    }
}

struct World {
    poll: Poll,
    config: Lab,
    counters: Counters,
    events: FlowEvents,
    random: Random,
    frames: Frames,
    flows: Flows,
    now: Duration,
    /// The switch port and the TCP port that the guest sends from.
    from: (PortMark, u16),
}

impl World {
    /// A gateway whose port leads to `host`.
    fn new(host: SocketAddr) -> World {
        let guest = SocketAddr::new(GATEWAY4.into(), PORT);
        let loopback = vec![LoopbackMap { transport: Transport::Tcp, guest, host }];
        let nat = Some(Rules { loopback, ..Rules::default() });
        World {
            poll: Poll::new().unwrap(),
            config: Lab { nat, ..lab() },
            counters: Counters::default(),
            events: FlowEvents::default(),
            random: random(),
            frames: Frames(Vec::new()),
            flows: Flows::default(),
            now: Duration::from_secs(1),
            from: (PortMark(1), 4000),
        }
    }

    fn with<R>(&mut self, job: impl FnOnce(&mut Flows, &mut Context<'_>) -> R) -> R {
        let World { poll, config, counters, events, random, frames, flows, now, .. } = self;
        let (config, registry, now) = (config.nat(), poll.registry(), *now);
        job(flows, &mut Context { now, config, registry, cable: frames, counters, events, random })
    }

    /// Sends a segment of the guest.
    fn send(
        &mut self,
        control: TcpControl,
        sequence: u32,
        ack: Option<u32>,
    ) -> Result<(), DropReason> {
        self.send_data(control, sequence, ack, &[])
    }

    fn send_data(
        &mut self,
        control: TcpControl,
        sequence: u32,
        ack: Option<u32>,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let repr = TcpRepr {
            src_port: self.from.1,
            control,
            seq_number: TcpSeqNumber(sequence as i32),
            ack_number: ack.map(|ack| TcpSeqNumber(ack as i32)),
            ..syn(payload)
        };
        let frame = self.frame(&repr);
        let packet = &frame[14..34 + repr.buffer_len()];
        let mut packet = Inbound::reparse(self.from.0, GUEST, packet).unwrap();
        packet.offload.flags &= !DATA_VALID;
        self.with(|flows, context| flows.handle(&packet, context))
    }

    /// A segment of the guest in a frame.
    fn frame(&self, repr: &TcpRepr<'_>) -> Vec<u8> {
        let (source, destination) = (IpAddr::from(GUEST4), IpAddr::from(GATEWAY4));
        let ends = ((GUEST, lab().station.mac()), (source, destination));
        let kind = (IpProtocol::Tcp, 64);
        let frame = crate::packet::ip_frame(ends.0, ends.1, kind, repr.buffer_len(), |bytes| {
            let mut tcp = TcpPacket::new_unchecked(bytes);
            repr.emit(&mut tcp, &source.into(), &destination.into(), &checksums());
        });
        frame.unwrap()
    }

    /// Takes turns until `done`.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Events::with_capacity(16);
        while !done(self) {
            assert!(Instant::now() < deadline, "nothing arrives");
            self.poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
            for event in &events {
                let (_, number) = TokenKind::of(event.token()).unwrap();
                self.with(|flows, context| flows.ready(number, event, context));
            }
            self.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
        }
    }

    /// The data that the guest receives next.
    #[track_caller]
    fn data(&mut self) -> Vec<u8> {
        self.until(|world| !world.frames.0.is_empty());
        let frame = self.frames.0.remove(0);
        frame[54..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))].to_vec()
    }

    /// Opens a flow up to the guest's ACK. Returns our initial sequence number.
    #[track_caller]
    fn open(&mut self) -> u32 {
        self.send(TcpControl::Syn, 100, None).unwrap();
        let (control, ours, _) = self.next_segment();
        assert_eq!(control, TcpControl::Syn);
        self.send(TcpControl::None, 101, Some(ours.wrapping_add(1))).unwrap();
        ours
    }

    /// The segment that the guest receives next: flags, sequence number, acknowledgement.
    #[track_caller]
    fn next_segment(&mut self) -> (TcpControl, u32, u32) {
        self.until(|world| !world.frames.0.is_empty());
        let frame = self.frames.0.remove(0);
        let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let tcp = TcpPacket::new_checked(&frame[34..end]).unwrap();
        let repr = TcpRepr::parse(&tcp, &GATEWAY4.into(), &GUEST4.into(), &checksums()).unwrap();
        let ack = repr.ack_number.map_or(0, |ack| ack.0 as u32);
        (repr.control, repr.seq_number.0 as u32, ack)
    }
}

/// The host's end of a flow.
#[track_caller]
fn host_end(flow: &Flow) -> &HostEnd {
    let Far::Host(host) = &flow.far else { panic!("a flow to the gateway's DNS") };
    host
}

/// A guest's SYN with data.
fn syn(payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr {
        src_port: 4000,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(100),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    }
}

#[test]
fn a_syn_on_a_closing_tuple_opens_a_new_flow() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    world.send(TcpControl::Syn, 100, None).unwrap();
    let (control, ours, ack) = world.next_segment();
    assert_eq!((control, ack), (TcpControl::Syn, 101));
    world.send(TcpControl::None, 101, Some(ours.wrapping_add(1))).unwrap();
    world.send(TcpControl::Fin, 101, Some(ours.wrapping_add(1))).unwrap();
    assert_eq!(world.next_segment().2, 102);
    drop(server.accept().unwrap());
    assert_eq!(world.next_segment().0, TcpControl::Fin);
    // The acknowledgement of the FIN is lost.
    world.send(TcpControl::Syn, 5000, None).unwrap();
    let (control, _, ack) = world.next_segment();
    assert_eq!((control, ack), (TcpControl::Syn, 5001));
    assert_eq!(world.flows.table.len(), 1);
}

#[test]
fn a_refused_connection_is_reset_and_so_are_stray_segments() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    let mut world = World::new(address);
    world.send(TcpControl::Syn, 100, None).unwrap();
    let (control, _, ack) = world.next_segment();
    assert_eq!((control, ack), (TcpControl::Rst, 101));
    assert!(world.flows.table.is_empty());
    assert_eq!(world.send(TcpControl::None, 7, Some(77)), Err(DropReason::NoFlow));
    let (control, sequence, _) = world.next_segment();
    assert_eq!((control, sequence), (TcpControl::Rst, 77));
}

/// A guest that opens a thousand connections does not delay one of another guest.
#[test]
fn ports_take_turns_to_connect() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let flood = (0..1000).map(|count| (PortMark(1), 10_000 + count));
    for from in flood.chain([(PortMark(2), 4000)]) {
        world.from = from;
        world.send(TcpControl::Syn, 100, None).unwrap();
    }
    world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    let begun = |world: &World, port| {
        let flows = world.flows.flows.iter().flatten();
        flows.filter(|flow| flow.port == port && host_end(flow).stream.is_some()).count()
    };
    assert_eq!(begun(&world, PortMark(2)), 1);
    assert_eq!(begun(&world, PortMark(1)), TURNS / CONNECT_TURNS - 1);
}

/// A packet waits for few bulk flows, not for all of them.
#[test]
fn bulk_data_counts_as_several_turns() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let mut hosts = Vec::new();
    for port in 4000..4008 {
        world.from.1 = port;
        world.open();
        hosts.push(server.accept().unwrap().0);
    }
    for (number, host) in hosts.iter_mut().enumerate() {
        host.write_all(&[7; 128 << 10]).unwrap();
        world.with(|flows, _| {
            flows.flows[number].as_mut().unwrap().far.host().unwrap().readable = true;
            flows.queue(number as u32);
        });
    }
    // A socket that holds less would take fewer turns: the kernel may deliver data a while later.
    let holds = |flow: &Flow| ioctl_fionread(host_end(flow).stream.as_ref().unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while world.flows.flows.iter().flatten().any(|flow| holds(flow) < 3 * TURN_BYTES) {
        assert!(Instant::now() < deadline, "the hosts' data does not come");
        std::thread::yield_now();
    }
    let before: Vec<u64> = world.flows.flows.iter().flatten().map(|flow| flow.received).collect();
    world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    let served = world.flows.flows.iter().flatten().zip(before);
    let count = served.filter(|(flow, before)| flow.received > *before).count();
    assert!((1..=4).contains(&count), "{count} of 8 at once");
}

#[test]
fn a_flow_of_a_port_over_its_buffer_limit_goes_on_once_its_guest_has_its_data() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let ours = world.open();
    let mut host = server.accept().unwrap().0;
    // Other flows of the port have buffered more than it may.
    world.flows.quotas.charge(PortMark(1), 0, 1 << 40);
    host.write_all(b"one").unwrap();
    assert_eq!(world.data(), b"one");
    host.write_all(b"two").unwrap();
    world.until(|world| world.flows.flows[0].as_ref().is_some_and(|flow| host_end(flow).readable));
    world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    assert!(world.frames.0.is_empty(), "it waits for the guest");
    world.send(TcpControl::None, 101, Some(ours.wrapping_add(4))).unwrap();
    assert_eq!(world.data(), b"two");
}

#[test]
fn a_long_lived_quiet_flow_does_not_fill_the_timers() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let mut acked = world.open().wrapping_add(1);
    for _ in 0..5000 {
        let connection = world.flows.flows[0].as_mut().and_then(|flow| flow.connection.as_mut());
        connection.unwrap().push(vec![7]);
        world.with(|flows, context| {
            flows.queue(0);
            flows.poll(&mut NewFlows::default(), context);
        });
        assert_eq!(world.data(), [7]);
        acked = acked.wrapping_add(1);
        world.send(TcpControl::None, 101, Some(acked)).unwrap();
        world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
        world.now += Duration::from_secs(1);
        world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    }
    assert!(world.flows.timers.len() < 2000, "{} timers of one flow", world.flows.timers.len());
}

#[test]
fn a_syn_that_is_longer_than_a_packet_is_refused() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let long = vec![7; 60_000];
    assert_eq!(world.send_data(TcpControl::Syn, 100, None, &long), Err(DropReason::BadTcp));
    assert_eq!(world.flows.len(), 0);
    world.send_data(TcpControl::Syn, 100, None, &long[..1000]).unwrap();
    let (control, _, ack) = world.next_segment();
    assert_eq!((control, ack), (TcpControl::Syn, 101));
}

#[test]
fn a_syn_in_ipv6_fragments_begins_a_flow() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let (source, destination) = (IpAddr::from(GUEST6), IpAddr::from(GATEWAY6));
    let map = &mut world.config.nat.as_mut().unwrap().loopback[0];
    map.guest.set_ip(destination);
    let repr = syn(&[]);
    let length = 8 + repr.buffer_len();
    let ends = ((GUEST, lab().station.mac()), (source, destination));
    let frame =
        crate::packet::ip_frame(ends.0, ends.1, (IpProtocol::Ipv6Frag, 64), length, |bytes| {
            bytes[0] = IpProtocol::Tcp.into();
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[8..]);
            repr.emit(&mut tcp, &source.into(), &destination.into(), &checksums());
        });
    let frame = frame.unwrap();
    let packet = &frame[14..54 + length];
    let part = Inbound::reparse(PortMark(1), GUEST, packet).unwrap();
    let whole = super::super::reassembly::parse_whole(packet, &part).unwrap();
    world.with(|flows, context| flows.handle(&whole, context)).unwrap();
    world.until(|world| !world.frames.0.is_empty());
    assert_eq!(world.frames.0[0][54 + 13] & 0x12, 0x12, "SYN and ACK");
}

#[test]
fn connections_in_time_wait_make_room_for_new_ones() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    world.flows.quotas.max_flows = 1;
    let ours = world.open();
    drop(server.accept().unwrap());
    assert_eq!(world.next_segment().0, TcpControl::Fin);
    let number = world.flows.flows.iter().position(Option::is_some).unwrap();
    world.from.1 = 4001;
    assert_eq!(world.send(TcpControl::Syn, 100, None), Err(DropReason::FlowLimit), "one is open");
    world.from.1 = 4000;
    world.send(TcpControl::Fin, 101, Some(ours.wrapping_add(2))).unwrap();
    assert_eq!(world.next_segment().2, 102);
    assert!(world.flows.flows[number].as_ref().is_some_and(|flow| flow.is_closing()));
    world.from.1 = 4001;
    world.open();
    assert_eq!(world.flows.len(), 1);
}

#[test]
fn a_host_without_its_interface_is_unreachable_and_does_not_refuse() {
    let mut world = World::new("127.0.0.1:9".parse().unwrap());
    for errno in [Errno::ENETDOWN, Errno::EHOSTDOWN, Errno::EHOSTUNREACH] {
        let frame = world.frame(&syn(&[]));
        let packet = Inbound::reparse(PortMark(1), GUEST, &frame[14..54]).unwrap();
        let error = io::Error::from_raw_os_error(errno as i32);
        world.with(|flows, context| flows.reject(&packet, error, context)).unwrap();
        assert_eq!(world.flows.take_failures().len(), 1, "{errno}");
        assert!(world.frames.0.is_empty(), "{errno}");
    }
}

/// A flow whose host has written small amounts often until reading paused. Returns the host's end,
/// the sequence number of its next byte, and the listening server.
fn paused() -> (World, std::net::TcpStream, u32, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(server.local_addr().unwrap());
    let mut next = world.open().wrapping_add(1);
    let mut host = server.accept().unwrap().0;
    for _ in 0..100 {
        if host_end(world.flows.flows[0].as_ref().unwrap()).paused_until().is_some() {
            return (world, host, next, server);
        }
        host.write_all(b"a").unwrap();
        assert_eq!(world.data(), b"a");
        next = next.wrapping_add(1);
        world.send(TcpControl::None, 101, Some(next)).unwrap();
        world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    }
    panic!("reading never pauses");
}

#[test]
fn small_frequent_writes_of_the_host_become_one_segment() {
    let (mut world, mut host, _, _server) = paused();
    let writes = [[1; 1000], [2; 1000]];
    for write in writes {
        host.write_all(&write).unwrap();
        // ACKs and other turns do not end the pause.
        world.with(|flows, context| {
            flows.queue(0);
            flows.poll(&mut NewFlows::default(), context);
        });
    }
    assert!(world.frames.0.is_empty());
    let due = world.flows.deadline().unwrap();
    assert!(due <= world.now + Duration::from_millis(1));
    world.now = due;
    assert_eq!(world.data(), writes.concat()[..536], "the MSS of its guest");
    assert_eq!(world.frames.0.len(), 0, "and it goes on as one large segment");
}

#[test]
fn data_of_the_guest_ends_a_read_pause() {
    let (mut world, mut host, next, _server) = paused();
    host.write_all(b"b").unwrap();
    world.send_data(TcpControl::Psh, 101, Some(next), b"?").unwrap();
    assert_eq!(world.data(), b"b");
    host.write_all(b"c").unwrap();
    assert_eq!(world.data(), b"c", "events are reported again");
}

#[test]
fn a_pause_with_nothing_to_read_ends_and_a_closing_host_is_noticed() {
    let (mut world, host, _, _server) = paused();
    world.now = world.flows.deadline().unwrap();
    world.with(|flows, context| flows.poll(&mut NewFlows::default(), context));
    assert!(world.flows.deadline().unwrap() > world.now, "the loop may sleep");
    drop(host);
    assert_eq!(world.next_segment().0, TcpControl::Fin);
}
