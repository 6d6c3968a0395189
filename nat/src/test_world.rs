//! A NAT with a scripted guest on its cable and the sockets of a real host, for tests.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use mio::{Events, Poll};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};
use trama_frame::{MacAddr, VnetHeader, checksum, gso, vnet};

use crate::cable::Cable;
use crate::classify::{FrameClass, classify};
use crate::context::Context;
use crate::drop_reason::{Counters, DropReason};
use crate::events::FlowEvents;
use crate::io::{PortMark, Random};
use crate::nat::{Handled, Nat};
use crate::packet::received;
use crate::rules::{self, Rules};
use crate::testing::Lab;
use crate::testing::{GATEWAY, GATEWAY4, GUEST, GUEST4, GUEST6, lab, random};

/// Time limit for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cable whose guest takes all frames at once.
#[derive(Default)]
pub(crate) struct Wire(pub Vec<(VnetHeader, Vec<u8>)>);

impl Cable for Wire {
    fn room(&mut self) -> usize {
        64
    }

    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.0.push((*header, parts.concat()));
        Ok(())
    }
}

pub(crate) struct World {
    pub nat: Nat,
    pub config: Lab,
    pub counters: Counters,
    pub events: FlowEvents,
    pub wire: Wire,
    /// The NAT's clock, which stands still unless a test moves it.
    pub now: Duration,
    poll: Poll,
    /// Source of the NAT's random numbers.
    pub random: Random,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            nat: Nat::default(),
            config: Lab { nat: Some(Rules::default()), ..lab() },
            counters: Counters::default(),
            events: FlowEvents::default(),
            wire: Wire::default(),
            now: Duration::ZERO,
            poll: Poll::new().unwrap(),
            random: random(),
        }
    }

    /// Runs `job` on the NAT.
    pub(crate) fn with<R>(&mut self, job: impl FnOnce(&mut Nat, &mut Context<'_>) -> R) -> R {
        let mut context = Context {
            now: self.now,
            config: self.config.nat(),
            registry: self.poll.registry(),
            cable: &mut self.wire,
            counters: &mut self.counters,
            events: &mut self.events,
            random: &mut self.random,
        };
        job(&mut self.nat, &mut context)
    }

    /// Sends a frame of the guest at switch port `port`.
    pub(crate) fn send_from(&mut self, port: u64, frame: &[u8]) {
        self.with(|nat, context| {
            drop(nat.receive(PortMark(port), VnetHeader::default(), frame, context));
        });
    }

    /// Whether a frame of the guest is left to the gateway's services.
    pub(crate) fn leaves(&mut self, frame: &[u8]) -> bool {
        self.leaves_with(VnetHeader::default(), frame)
    }

    pub(crate) fn leaves_with(&mut self, offload: VnetHeader, frame: &[u8]) -> bool {
        self.with(|nat, context| {
            let handled = nat.receive(PortMark(1), offload, frame, context);
            matches!(handled, Handled::Local(_))
        })
    }

    /// The whole frame that this fragment of the guest completes, if it is for the services.
    pub(crate) fn reassembled(&mut self, fragment: &[u8]) -> Option<Vec<u8>> {
        self.with(|nat, context| {
            match nat.receive(PortMark(1), VnetHeader::default(), fragment, context) {
                Handled::Reassembled(frame) => Some(frame),
                Handled::Local(_) => panic!("a fragment was left to the services"),
                Handled::Consumed => None,
            }
        })
    }

    /// Sends frames of the guest, then takes a turn.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.send_from(1, frame);
        }
        self.turn(Duration::ZERO);
    }

    /// One turn of the event loop around the NAT.
    pub(crate) fn turn(&mut self, wait: Duration) {
        self.with(|nat, context| nat.poll(context));
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(wait)).unwrap();
        for event in &events {
            self.with(|nat, context| nat.ready(event, context));
        }
        self.with(|nat, context| nat.poll(context));
    }

    /// Takes turns until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.counters.drops());
            self.turn(Duration::from_millis(10));
        }
    }

    /// Takes turns until the guest has received `count` frames. Returns these.
    #[track_caller]
    pub(crate) fn frames(&mut self, count: usize) -> Vec<(VnetHeader, Vec<u8>)> {
        self.until(&format!("{count} frames"), |world| world.wire.0.len() >= count);
        assert_eq!(self.wire.0.len(), count);
        std::mem::take(&mut self.wire.0)
    }

    /// The one frame that the guest receives, with its checksum completed.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let (mut header, mut frame) = self.frames(1).remove(0);
        checksum::complete(&mut frame, &mut header);
        frame
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.dropped(reason)
    }
}

/// Parses and classifies a frame from switch port `port` of a network with NAT.
pub(crate) fn class_of(port: u64, bytes: &[u8]) -> Result<FrameClass<'_>, DropReason> {
    let frame = received::parse(GATEWAY, PortMark(port), VnetHeader::default(), bytes)?;
    let (lab, rules) = (lab(), Some(&Rules::default()));
    classify(rules::Config { station: &lab.station, rules }, frame)
}

/// The frames that a guest without offloads receives for a large one.
pub(crate) fn segments(header: &VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let (mut header, mut frame) = (*header, frame.to_vec());
    let head = frame[..frame.len().min(vnet::PRIVATE_HEAD)].to_vec();
    vnet::validate(&mut header, &head, frame.len()).expect("a valid large frame");
    if header.gso_type != vnet::GSO_NONE {
        let mut segments = Vec::new();
        let mut room = vec![0; frame.len()];
        let keep = |segment: &[u8]| segments.push(segment.to_vec());
        gso::segment(&frame, &header, &mut room, keep).unwrap();
        return segments;
    }
    checksum::complete(&mut frame, &mut header);
    vec![frame]
}

/// Ethernet and IP headers of a guest's packet.
pub(crate) fn ip(from: IpAddr, to: IpAddr, hops: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(GUEST.0, GATEWAY.0);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                etherparse::Ipv4Header::new(0, hops, 0.into(), from.octets(), to.octets()).unwrap();
            header.dont_fragment = true;
            ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), hops),
        _ => panic!("two kinds of address"),
    }
}

/// The guest's address of the same IP version.
pub(crate) fn guest_for(to: IpAddr) -> IpAddr {
    if to.is_ipv4() { GUEST4.into() } else { GUEST6.into() }
}

/// A datagram from the guest's port 4000.
pub(crate) fn datagram(to: SocketAddr, hops: u8, payload: &[u8]) -> Vec<u8> {
    datagram_from(4000, to, hops, payload)
}

pub(crate) fn datagram_from(port: u16, to: SocketAddr, hops: u8, payload: &[u8]) -> Vec<u8> {
    let builder = ip(guest_for(to.ip()), to.ip(), hops).udp(port, to.port());
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An echo request of the guest with identifier 7.
pub(crate) fn echo(to: IpAddr, hops: u8, sequence: u16, data: &[u8]) -> Vec<u8> {
    let step = ip(guest_for(to), to, hops);
    let mut frame = Vec::new();
    match to {
        IpAddr::V4(_) => step.icmpv4_echo_request(7, sequence).write(&mut frame, data).unwrap(),
        IpAddr::V6(_) => step.icmpv6_echo_request(7, sequence).write(&mut frame, data).unwrap(),
    }
    frame
}

/// A segment from the guest's port 4000 without data. Without `ack`, it is a SYN with an MSS of
/// 1460.
pub(crate) fn tcp(to: SocketAddr, sequence: u32, ack: Option<u32>) -> Vec<u8> {
    let step = ip(guest_for(to.ip()), to.ip(), 64).tcp(4000, to.port(), sequence, 60_000);
    let step = match ack {
        Some(ack) => step.ack(ack),
        None => {
            step.syn().options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)]).unwrap()
        }
    };
    let mut frame = Vec::new();
    step.write(&mut frame, &[]).unwrap();
    frame
}

/// An ICMP error of the guest about a frame that it received.
pub(crate) fn icmp_error(about: &[u8], (kind, code): (u8, u8), rest: u32) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(about).unwrap();
    let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        other => panic!("{other:?}"),
    };
    let (step, rest) = (ip(to, from, 64), rest.to_be_bytes());
    let quoted = &about[14..about.len().min(14 + 128)];
    let mut frame = Vec::new();
    match to {
        IpAddr::V4(_) => step.icmpv4_raw(kind, code, rest).write(&mut frame, quoted).unwrap(),
        IpAddr::V6(_) => step.icmpv6_raw(kind, code, rest).write(&mut frame, quoted).unwrap(),
    }
    frame
}

/// Advertises the guest's MAC address.
pub(crate) fn announce(world: &mut World) {
    announce_station(world, GUEST);
}

/// Advertises that the guest is at `station`.
pub(crate) fn announce_station(world: &mut World, station: MacAddr) {
    let announcement = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(station.0),
        source_protocol_addr: GUEST4,
        target_hardware_addr: EthernetAddress(GATEWAY.0),
        target_protocol_addr: GATEWAY4,
    };
    let length = announcement.buffer_len();
    let frame = crate::packet::frame(GUEST, GATEWAY, EthernetProtocol::Arp, length, |bytes| {
        announcement.emit(&mut ArpPacket::new_unchecked(bytes));
    });
    world.send(&[frame]);
}

/// Source, destination and payload of a datagram to the guest. Checks the checksums.
#[track_caller]
pub(crate) fn read_datagram(frame: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP: {packet:?}") };
    let header = udp.to_header();
    let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let sum = header.calc_checksum_ipv4(&ip, udp.payload()).unwrap();
            assert_eq!(header.checksum, sum);
            (ip.source.into(), ip.destination.into())
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            let sum = header.calc_checksum_ipv6(&ip, udp.payload()).unwrap();
            assert_eq!(header.checksum, sum);
            (ip.source.into(), ip.destination.into())
        }
        other => panic!("{other:?}"),
    };
    let from = SocketAddr::new(from, header.source_port);
    (from, SocketAddr::new(to, header.destination_port), udp.payload().to_vec())
}

/// An ICMP message to the guest: source, type and code, rest of its header, body.
#[derive(Debug)]
pub(crate) struct Message {
    pub from: IpAddr,
    pub kind: (u8, u8),
    pub rest: [u8; 4],
    pub body: Vec<u8>,
}

/// Reads an ICMP message. Checks the checksums.
#[track_caller]
pub(crate) fn read_icmp(frame: &[u8]) -> Message {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (from, bytes): (IpAddr, Vec<u8>) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(checksum::internet(ip.payload().payload), 0);
            (header.source.into(), ip.payload().payload.to_vec())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
            assert!(icmp.is_checksum_valid(header.source, header.destination));
            (header.source.into(), ip.payload().payload.to_vec())
        }
        other => panic!("{other:?}"),
    };
    let (head, body) = bytes.split_first_chunk::<8>().unwrap();
    let rest = [head[4], head[5], head[6], head[7]];
    Message { from, kind: (head[0], head[1]), rest, body: body.to_vec() }
}

/// Returns true in a process that runs one test in its own network namespace. Otherwise runs this
/// program again for the test that calls it, after the shell commands `setup`.
#[track_caller]
pub(crate) fn is_isolated(setup: &str) -> bool {
    const INSIDE: &str = "TRAMA_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        if setup.contains("2001:db8::1/128 dev lo") {
            settle();
        }
        return true;
    }
    let program = std::env::current_exe().unwrap();
    // The test harness gives each test a thread with the test's path as its name.
    let test = std::thread::current();
    let name = test.name().expect("a test's own thread");
    let script = format!(
        "set -e; ip link set lo up; {setup}\nexec '{}' --exact '{name}' --nocapture",
        program.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).env(INSIDE, "1");
    let output = command.output().expect("unshare (package util-linux)");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "inside (root is needed)");
    false
}

/// Waits until the loopback interface receives packets to its new IPv6 address, which the kernel
/// starts to do a moment after it has reported the address.
#[track_caller]
fn settle() {
    let socket = UdpSocket::bind("[2001:db8::1]:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    loop {
        socket.send_to(b"?", socket.local_addr().unwrap()).unwrap();
        if socket.recv(&mut [0]).is_ok() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "no IPv6 on loopback");
    }
}

/// Another host: a network namespace that ends with this value and with the test.
pub(crate) struct Neighbour(Child);

impl Neighbour {
    #[track_caller]
    pub(crate) fn new() -> Neighbour {
        // It ends with its standard input, and so with a killed test.
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        Neighbour(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs shell commands in the namespace.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) {
        let pid = self.pid().to_string();
        let arguments = ["-t", &pid, "-n", "sh", "-e", "-c", script];
        assert!(Command::new("nsenter").args(arguments).status().unwrap().success(), "{script}");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().map(|mut pipe| pipe.flush());
        let _ = self.0.wait();
    }
}

/// Runs shell commands in this namespace.
#[track_caller]
pub(crate) fn shell(script: &str) {
    assert!(Command::new("sh").args(["-e", "-c", script]).status().unwrap().success(), "{script}");
}
