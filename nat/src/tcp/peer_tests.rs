//! Our TCP against smoltcp's, which plays the guest behind a link that loses, delays, duplicates
//! and reorders. Frames take the whole path: headers, checksums and large segments are as a guest
//! without offloads sees them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::Poll;
use proptest::prelude::*;
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State as PeerState};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv6Packet};

use super::connection::Connection;
use super::segment::{Endpoints, Outgoing, Segment, Seq};
use super::state::State;
use crate::classify::FrameClass;
use crate::context::Context;
use crate::drop_reason::Counters;
use crate::events::FlowEvents;
use crate::packet::ethernet_address;
use crate::test_world::{Wire, class_of, segments};
use crate::testing::{GATEWAY4, GATEWAY6, GUEST, GUEST4, GUEST6, lab, random, resolution};

const REMOTE4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const REMOTE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
const GUEST_PORT: u16 = 4000;
const REMOTE_PORT: u16 = 80;
const LARGE: usize = 40_000;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
struct Setting {
    seed: u64,
    /// Packets in a hundred that are lost, and that are delayed; half as many are duplicated.
    harm: u64,
    /// Bytes of the stream each way.
    lens: [usize; 2],
    /// The guest's buffers.
    room: usize,
    /// The guest opens the connection.
    guest_calls: bool,
    is_v6: bool,
}

impl Setting {
    /// Both ends, as the guest sees them.
    fn ends(&self) -> Endpoints {
        let (guest, remote) = match self.is_v6 {
            false => (GUEST4.into(), REMOTE4),
            true => (GUEST6.into(), REMOTE6),
        };
        let end = SocketAddr::new;
        Endpoints { mac: GUEST, guest: end(guest, GUEST_PORT), remote: end(remote, REMOTE_PORT) }
    }

    fn mss(&self) -> u16 {
        1500 - self.ends().overhead() as u16
    }
}

/// The guest's network card: frames that arrived, and frames to send.
#[derive(Default)]
struct Card {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Sending<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ethernet, 1514);
        capabilities
    }
}

/// The guest.
struct Guest {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: smoltcp::iface::SocketHandle,
    received: Vec<u8>,
    written: usize,
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

impl Guest {
    fn new(setting: &Setting) -> Guest {
        let mut card = Card::default();
        let mut config = IfaceConfig::new(ethernet_address(GUEST).into());
        config.random_seed = setting.seed;
        let mut interface = Interface::new(config, &mut card, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST4.into(), 24)).unwrap();
            addresses.push(IpCidr::new(GUEST6.into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY6).unwrap();
        let buffer = || SocketBuffer::new(vec![0; setting.room]);
        let mut socket = Socket::new(buffer(), buffer());
        if setting.guest_calls {
            socket.connect(interface.context(), setting.ends().remote, GUEST_PORT).unwrap();
        } else {
            socket.listen(GUEST_PORT).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Guest { card, interface, sockets, handle, received: Vec::new(), written: 0 }
    }

    /// Reads and writes part of what is possible. Returns the frames sent; ARP and ND are answered
    /// at once.
    fn turn(&mut self, time: Duration, stream: &[u8], dice: u64) -> Vec<Vec<u8>> {
        let now = instant(time);
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let mut bytes = [0; 5000];
        while !dice.is_multiple_of(4) && socket.can_recv() {
            let count = socket.recv_slice(&mut bytes).unwrap();
            self.received.extend(&bytes[..count]);
        }
        if socket.can_send() && self.written < stream.len() {
            let end = stream.len().min(self.written + 1 + dice as usize % 9000);
            self.written += socket.send_slice(&stream[self.written..end]).unwrap();
        }
        // smoltcp sends a FIN only once it has been connected.
        if self.written == stream.len()
            && socket.may_send()
            && socket.state() != PeerState::SynReceived
        {
            socket.close();
        }
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        let frames = std::mem::take(&mut self.card.sent);
        let (asks, frames): (Vec<_>, Vec<_>) =
            frames.into_iter().partition(|frame| is_question(frame));
        self.card.arrived.extend(asks.iter().filter_map(|ask| resolution(ask)));
        frames
    }

    fn deadline(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(at.total_micros().max(0) as u64))
    }

    fn state(&self) -> PeerState {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }
}

/// Whether a frame is an ARP request or ND message, which is not for a flow.
fn is_question(frame: &[u8]) -> bool {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let icmp =
        |packet| Ipv6Packet::new_checked(packet).unwrap().next_header() == IpProtocol::Icmpv6;
    match frame.ethertype() {
        EthernetProtocol::Arp => true,
        EthernetProtocol::Ipv6 => icmp(frame.payload()),
        _ => false,
    }
}

/// Our end, and the host behind it.
struct Ours {
    setting: Setting,
    tcp: Option<Connection>,
    received: Vec<u8>,
    takes: usize,
    written: usize,
}

impl Ours {
    /// Handles a frame. Returns what is sent at once: the reset that answers a segment of no flow.
    fn handle(&mut self, now: Duration, frame: &[u8]) -> Vec<Vec<u8>> {
        let Ok(FrameClass::Packet(packet)) = class_of(1, frame) else { panic!("not a packet") };
        let segment = Segment::parse(&packet).unwrap();
        assert_eq!((segment.source, segment.destination), (GUEST_PORT, REMOTE_PORT));
        let Ours { setting, tcp, received, takes, .. } = self;
        match tcp {
            Some(tcp) if tcp.state() == State::Closed => {
                return if segment.rst {
                    Vec::new()
                } else {
                    frames(setting, &Outgoing::reset_for(&segment))
                };
            }
            None => {
                let initial = Seq(u32::MAX - 9000);
                *tcp = Some(Connection::accept(now, &segment, initial, setting.mss()));
            }
            Some(tcp) => tcp.handle(now, &segment, &mut |bytes| take(received, takes, bytes)),
        }
        Vec::new()
    }

    /// Like a flow's turn. Returns what it sends, and whether the host has yet to take data.
    fn turn(&mut self, now: Duration, stream: &[u8], dice: u64) -> (Vec<Vec<u8>>, bool) {
        let Ours { setting, tcp: Some(tcp), received, takes, written } = self else {
            return (Vec::new(), false);
        };
        tcp.expire(now);
        tcp.autotune();
        *takes = if dice.is_multiple_of(3) { 0 } else { dice as usize % 9000 };
        let has_drained = tcp.drain(&mut |bytes| take(received, takes, bytes));
        let room = tcp.room().min(stream.len() - *written);
        if room > 0 {
            let count = 1 + dice as usize % room.min(30_000);
            tcp.push(stream[*written..*written + count].to_vec());
            *written += count;
        }
        if *written == stream.len() {
            tcp.close();
        }
        let mut sent = Vec::new();
        tcp.output(now, (LARGE, 8), &mut |segment| {
            sent.extend(frames(setting, segment));
            true
        });
        (sent, !has_drained)
    }

    /// Whether the connection is over. A guest that has closed, and waited long enough, resets late
    /// segments, which is an end like any other.
    fn is_over(&self, guest: PeerState) -> bool {
        let state = self.tcp.as_ref().map(Connection::state);
        let is_reset = matches!(state, Some(State::Aborted | State::Reset));
        assert!(!is_reset || guest == PeerState::Closed, "gave up");
        is_reset || matches!(state, Some(State::TimeWait | State::Closed))
    }
}

fn take(received: &mut Vec<u8>, takes: &mut usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(*takes);
    received.extend(&bytes[..count]);
    *takes -= count;
    count
}

/// The frames of a segment.
fn frames(setting: &Setting, segment: &Outgoing<'_>) -> Vec<Vec<u8>> {
    let (poll, mut wire, mut random) = (Poll::new().unwrap(), Wire::default(), random());
    let config = lab();
    let mut context = Context {
        now: Duration::ZERO,
        config: config.nat(),
        registry: poll.registry(),
        cable: &mut wire,
        counters: &mut Counters::default(),
        events: &mut FlowEvents::default(),
        random: &mut random,
    };
    setting.ends().send(&mut context, segment).unwrap();
    wire.0.iter().flat_map(|(header, frame)| segments(header, frame)).collect()
}

/// Frames in flight, by arrival; the flag says whether they are for us.
struct Link {
    random: u64,
    harm: u64,
    flying: BTreeMap<(Duration, u64), (bool, Vec<u8>)>,
    count: u64,
}

impl Link {
    fn dice(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    fn send(&mut self, now: Duration, to_us: bool, frame: &[u8]) {
        let copies = match self.dice() % 100 {
            dice if dice < self.harm => 0,
            dice if dice < self.harm + self.harm / 2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.dice() % 100 < self.harm { self.dice() % 20_000 } else { 0 };
            let arrival = now + Duration::from_micros(1000 + late);
            self.count += 1;
            self.flying.insert((arrival, self.count), (to_us, frame.to_vec()));
        }
    }

    fn arrived(&mut self, now: Duration) -> Option<(bool, Vec<u8>)> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

fn stream(len: usize, salt: u64) -> Vec<u8> {
    let mut link = Link { random: salt, harm: 0, flying: BTreeMap::new(), count: 0 };
    (0..len).map(|_| link.dice() as u8).collect()
}

/// Sends a stream each way. Returns the time it took.
fn exchange(setting: Setting) -> Duration {
    let [ours, theirs] = [0, 1].map(|at| stream(setting.lens[at], setting.seed ^ at as u64));
    let Setting { seed, harm, .. } = setting;
    let mut link = Link { random: seed, harm, flying: BTreeMap::new(), count: 0 };
    let mut guest = Guest::new(&setting);
    let calls = || Connection::connect(Duration::ZERO, Seq(u32::MAX - 9000), setting.mss());
    let tcp = (!setting.guest_calls).then(calls);
    let mut end = Ours { setting, tcp, received: Vec::new(), takes: 0, written: 0 };
    let mut now = Duration::ZERO;
    for _ in 0..1_000_000 {
        while let Some((to_us, frame)) = link.arrived(now) {
            if to_us {
                end.takes = link.dice() as usize % 5000;
                for frame in end.handle(now, &frame) {
                    link.send(now, false, &frame);
                }
            } else {
                guest.card.arrived.push_back(frame);
            }
        }
        for frame in guest.turn(now, &theirs, link.dice()) {
            link.send(now, true, &frame);
        }
        let (frames, waits) = end.turn(now, &ours, link.dice());
        for frame in frames {
            link.send(now, false, &frame);
        }
        let guest_is_over = matches!(guest.state(), PeerState::TimeWait | PeerState::Closed);
        if end.is_over(guest.state()) && guest_is_over && !guest.has_unread() {
            assert!(end.received == theirs, "{setting:?}: the host received something else");
            assert!(guest.received == ours, "{setting:?}: the guest received something else");
            return now;
        }
        let next = link.flying.keys().next().map(|(at, _)| *at);
        let timers = end.tcp.as_ref().and_then(Connection::deadline);
        // An end that did not take all data takes more soon.
        let waits = waits || guest.has_unread() || guest.written < theirs.len();
        let soon = waits.then_some(now + Duration::from_millis(1));
        let next = next.into_iter().chain(timers).chain(guest.deadline(now)).chain(soon).min();
        now = next.expect("something is to come").max(now + Duration::from_micros(100));
        assert!(now < Duration::from_secs(3600), "{setting:?}: does not end");
    }
    panic!(
        "{setting:?}: does not end: {} and {} received",
        end.received.len(),
        guest.received.len()
    );
}

impl Guest {
    fn has_unread(&self) -> bool {
        self.sockets.get::<Socket<'_>>(self.handle).can_recv()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    // spec-test: rfc9293 MUST-2
    #[test]
    fn streams_arrive_exact_at_another_tcp(
        seed: u64,
        harm in 0u64..20,
        lens in prop::array::uniform2(0usize..60_000),
        room in 600usize..70_000,
        guest_calls: bool,
        is_v6: bool,
    ) {
        exchange(Setting { seed, harm, lens, room, guest_calls, is_v6 });
    }
}

#[test]
fn another_tcp_is_served_without_a_pause() {
    let lens = [8 << 20, 8 << 20];
    for is_v6 in [false, true] {
        let setting = Setting { seed: 1, harm: 0, lens, room: 60_000, guest_calls: true, is_v6 };
        // A window of 60 kB every 2 ms, of which the guest takes a part at a time.
        let time = exchange(setting);
        assert!(time < Duration::from_secs(5), "IPv6 {is_v6}: {time:?}");
    }
}
