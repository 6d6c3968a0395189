//! The main paths of a frame through the switch, each as repeatable work for counting instructions
//! and allocations.
//!
//! One round is [`Path::feed`] (a driver queues frames), [`Path::run`] (the switch's part, which is
//! counted) and [`Path::drain`] (the receivers' drivers take every frame).

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use trama_frame::vxlan::{self, Vni};
use trama_frame::{MacAddr, Offloads};
use trama_switch::mirror::{Mirror, MirrorOutput};
use trama_switch::watch::{self, Reader, ReasonSet, Sampling, Watch, Ways};
use trama_switch::{
    CounterSlab, Device, Dgram, DgramPeer, Doorbell, Engine, Epoch, HdrLen, NetworkId,
    PortSettings, Stream, StreamLink, Tap, Time, Tunnel, Tunnels, VlanMode, VlanSet, Vtep, Vxlan,
};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, MAX_BURST, RxQueue,
    TxBurst, TxQueue,
};

use crate::frames::{PLAIN, c_tag, frame, large_segment, mac, tagged};
use crate::guest::Guest;
use crate::rings::{LINUX_FEATURES, driver_options};
use crate::setup::{access, network, port, trunk};

/// One path through the switch.
pub trait Path {
    /// Queues a round's frames; returns their number.
    fn feed(&mut self) -> usize;
    /// Runs the switch's part.
    fn run(&mut self);
    /// Takes the delivered frames, which must be complete.
    fn drain(&mut self);
}

/// A path's name, also used in the baseline of instruction counts, and its constructor.
pub type Named = (&'static str, fn() -> Box<dyn Path>);

/// All paths.
pub const ALL: [Named; 26] = [
    ("ring-alone-60B", || Box::new(Ring::new())),
    ("unicast-60B-access-to-access", || unicast(access(10), access(10), small())),
    ("unicast-60B-vlan-push", || unicast(access(10), trunk(), small())),
    ("unicast-60B-vlan-pop", || unicast(trunk(), access(10), tagged(c_tag(10), &small()))),
    ("unicast-60B-header-apart", header_split),
    ("unicast-1514B", || unicast(access(10), access(10), frame(mac(2), mac(1), 1514))),
    ("unicast-60B-to-gateway", gateway),
    ("unicast-60B-seen-at-entry", || seen(0)),
    ("unicast-60B-seen-at-exit", || seen(1)),
    ("unicast-60B-mirrored", mirrored),
    ("unicast-60B-sampled", sampled),
    ("unicast-60B-logged", logged),
    ("flood-60B-to-8", flood),
    ("learn-60B-every-source-new", learn),
    ("unicast-60B-kept", || kept(None)),
    ("learn-60B-kept", || kept(Some(0))),
    ("gso-64KiB-passed-through", || gso(Offloads::ALL, 1)),
    ("gso-64KiB-cut-in-software", || gso(Offloads::NONE, 46)),
    ("tap-to-vhost-60B", || over_socket(End::tap, End::guest)),
    ("vhost-to-tap-60B", || over_socket(End::guest, End::tap)),
    ("stream-to-vhost-60B", || over_socket(End::stream, End::guest)),
    ("vhost-to-stream-60B", || over_socket(End::guest, End::stream)),
    ("dgram-to-vhost-60B", || over_socket(End::dgram, End::guest)),
    ("vhost-to-dgram-60B", || over_socket(End::guest, End::dgram)),
    ("vxlan-to-vhost-60B", || over_socket(End::tunnel, End::guest)),
    ("vhost-to-vxlan-60B", || over_socket(End::guest, End::tunnel)),
];

/// The limit of one turn of a ring: four full bursts.
const BATCH: usize = 256;
/// Few enough to fit into a socket's buffer.
const SOCKET_BATCH: usize = 64;
/// Longer than any hold-off, in nanoseconds.
const ROUND: u64 = 100_000;

/// That of tunnels.
const VNI: Vni = Vni::new(77).unwrap();

/// Returns the commonest frame: 64 bytes without the FCS.
fn small() -> Vec<u8> {
    frame(mac(2), mac(1), 60)
}

/// Returns the frame by which a station becomes known.
fn hello() -> Vec<u8> {
    frame(MacAddr::BROADCAST, mac(2), 60)
}

fn options() -> DriverOptions {
    driver_options(1024, LINUX_FEATURES)
}

/// Adds a port in VLAN 10 and returns its far side.
type MakeEnd = fn(&mut Engine, NetworkId) -> End;

/// A sender or receiver.
enum End {
    Guest(Box<Guest>),
    /// The far side of a stand-in for a TAP.
    Tap(OwnedFd),
    /// The far end of a stream.
    Stream(OwnedFd),
    /// The peer of a datagram port.
    Dgram(UdpSocket),
    /// The remote end of a tunnel, and where this one receives.
    Tunnel(UdpSocket, SocketAddr),
}

impl End {
    fn guest(engine: &mut Engine, network: NetworkId) -> End {
        End::guest_of(engine, port(network, access(10)), options(), options())
    }

    fn guest_of(
        engine: &mut Engine,
        settings: PortSettings,
        tx: DriverOptions,
        rx: DriverOptions,
    ) -> End {
        End::Guest(Box::new(Guest::add(engine, settings, tx, rx)))
    }

    /// Makes a stand-in for a TAP without the kernel's device: a pair of sockets that keeps frame
    /// boundaries.
    fn tap(engine: &mut Engine, network: NetworkId) -> End {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (switch_end, host_end) = pair.unwrap();
        engine.add_port(port(network, access(10)), Device::Tap(Tap::over(host_end))).unwrap();
        End::Tap(switch_end)
    }

    fn stream(engine: &mut Engine, network: NetworkId) -> End {
        let flags = SocketFlags::CLOEXEC;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (switch_end, far_end) = pair.unwrap();
        let device = Device::Stream(Stream::new());
        let (id, _) = engine.add_port(port(network, access(10)), device).unwrap();
        drop(engine.connect_stream(id, StreamLink::new(switch_end)).unwrap());
        End::Stream(far_end)
    }

    /// UDP, since a Unix socket takes no more than ten datagrams that wait.
    fn dgram(engine: &mut Engine, network: NetworkId) -> End {
        let [switch_end, far_end] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        far_end.connect(switch_end.local_addr().unwrap()).unwrap();
        far_end.set_nonblocking(true).unwrap();
        let peer = DgramPeer::Fixed(far_end.local_addr().unwrap().into());
        let device = Device::Dgram(Box::new(Dgram::new(switch_end.into(), peer)));
        engine.add_port(port(network, access(10)), device).unwrap();
        End::Dgram(far_end)
    }

    fn tunnel(engine: &mut Engine, network: NetworkId) -> End {
        let [receiver, sender, far_end] = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        far_end.set_nonblocking(true).unwrap();
        let at = receiver.local_addr().unwrap();
        let remote = far_end.local_addr().unwrap();
        let device = Vxlan::new(VNI, remote, vec![sender.into()]);
        let device = Device::Vxlan(Box::new(device));
        let (id, _) = engine.add_port(port(network, access(10)), device).unwrap();
        let vtep = Device::Vtep(Box::new(Vtep::of_socket(receiver.into(), 0)));
        let settings = PortSettings { network: None, ..port(network, trunk()) };
        let (vtep, _) = engine.add_port(settings, vtep).unwrap();
        let tunnel = ((VNI, remote.ip()), Tunnel { port: id, worker: 0 });
        let tunnels = Tunnels::new([tunnel], Vec::new());
        drop(engine.set_tunnels(vtep, tunnels.into()).unwrap());
        End::Tunnel(far_end, at)
    }

    fn send(&mut self, header: &[u8; HEADER_LEN], bytes: &[u8]) {
        match self {
            End::Guest(guest) => guest.tx.send(header, &[bytes]).unwrap(),
            End::Tap(socket) => {
                let whole = [&header[..], bytes].concat();
                assert_eq!(rustix::net::send(socket, &whole, SendFlags::empty()), Ok(whole.len()));
            }
            End::Stream(socket) => {
                let whole = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
                assert_eq!(rustix::net::send(socket, &whole, SendFlags::empty()), Ok(whole.len()));
            }
            End::Dgram(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            End::Tunnel(socket, to) => {
                let whole = [&vxlan::header(VNI)[..], bytes].concat();
                assert_eq!(socket.send_to(&whole, *to).unwrap(), whole.len());
            }
        }
    }

    /// Makes queued frames visible to the switch.
    fn publish(&mut self) {
        if let End::Guest(guest) = self {
            guest.tx.publish();
            guest.tx.reclaim().unwrap();
        }
    }

    /// Takes `count` frames, which must be all.
    fn take(&mut self, count: usize) {
        match self {
            End::Guest(guest) => {
                assert_eq!(guest.rx.discard(count + 1).unwrap(), count);
                guest.rx.refill();
            }
            End::Stream(socket) => {
                let mut room = vec![0; 64 << 10];
                let mut all = Vec::new();
                while let Ok((_, len @ 1..)) =
                    rustix::net::recv(&*socket, &mut room, RecvFlags::DONTWAIT)
                {
                    all.extend_from_slice(&room[..len]);
                }
                let length = u32::from_be_bytes(all[..4].try_into().unwrap()) as usize;
                assert_eq!(all.len(), count * (4 + length));
            }
            End::Dgram(socket) | End::Tunnel(socket, _) => {
                let mut room = [0; 2048];
                assert!((0..count).all(|_| socket.recv(&mut room).is_ok()));
                assert!(socket.recv(&mut room).is_err());
            }
            End::Tap(socket) => {
                let mut room = [0; 2048];
                let mut take = || rustix::net::recv(&*socket, &mut room, RecvFlags::empty());
                assert!((0..count).all(|_| take().is_ok()));
                assert!(take().is_err());
            }
        }
    }
}

/// A switch, one sender, and its receivers.
struct Switch {
    engine: Engine,
    clock: u64,
    sender: End,
    receivers: Vec<End>,
    header: [u8; HEADER_LEN],
    frame: Vec<u8>,
    /// Frames of one round, and copies that each receiver gets of each.
    batch: usize,
    copies: usize,
    /// The number of the last new source, if each frame has its own.
    fresh: Option<u64>,
    /// A watch's reader.
    reader: Option<Reader>,
    /// Whether it gets each frame once, and not only some.
    sees_all: bool,
}

impl Switch {
    /// Teaches the switch the receiver's station by its `hello`, and discards the delivered copy.
    fn teach(mut self, hello: &[u8]) -> Box<dyn Path> {
        self.receivers[0].send(&PLAIN, hello);
        self.receivers[0].publish();
        self.run();
        self.sender.take(1);
        self.receivers[0].publish();
        Box::new(self)
    }
}

impl Path for Switch {
    fn feed(&mut self) -> usize {
        for _ in 0..self.batch {
            if let Some(number) = &mut self.fresh {
                *number += 1;
                let source = MacAddr::from_u64(0x0200_0100_0000 + *number);
                self.frame[6..12].copy_from_slice(&source.0);
            }
            self.sender.send(&self.header, &self.frame);
        }
        self.sender.publish();
        self.batch
    }

    fn run(&mut self) {
        self.clock += ROUND;
        while self.engine.poll(Time(self.clock)) {}
    }

    fn drain(&mut self) {
        for receiver in &mut self.receivers {
            receiver.take(self.batch * self.copies);
        }
        if let Some(reader) = &mut self.reader {
            let seen = std::iter::from_fn(|| reader.read().map(drop)).count();
            assert!(seen == self.batch || !self.sees_all && seen < self.batch, "{seen}");
        }
        self.sender.publish();
    }
}

/// Combines a sender and its receivers.
fn switch(engine: Engine, sender: End, receivers: Vec<End>, frame: Vec<u8>) -> Switch {
    Switch {
        engine,
        clock: 0,
        sender,
        receivers,
        header: PLAIN,
        frame,
        batch: BATCH,
        copies: 1,
        fresh: None,
        reader: None,
        sees_all: true,
    }
}

fn lab() -> (Engine, NetworkId) {
    let mut engine = Engine::new(1);
    let lab = network(&mut engine, 1500);
    (engine, lab)
}

/// Makes a path from one station to another known one, in VLAN 10.
fn unicast(from: VlanMode, to: VlanMode, frame: Vec<u8>) -> Box<dyn Path> {
    unicast_in(ChainShape::Single, from, to, frame)
}

fn unicast_in(shape: ChainShape, from: VlanMode, to: VlanMode, frame: Vec<u8>) -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let tags = to == trunk();
    let options = DriverOptions { shape, ..driver_options(1024, LINUX_FEATURES) };
    let sender = End::guest_of(&mut engine, port(lab, from), options, options);
    let receiver = End::guest_of(&mut engine, port(lab, to), options, options);
    let hello = if tags { tagged(c_tag(10), &hello()) } else { hello() };
    switch(engine, sender, vec![receiver], frame).teach(&hello)
}

/// Makes a path for drivers that put the header into a separate descriptor.
fn header_split() -> Box<dyn Path> {
    unicast_in(ChainShape::HeaderSplit, access(10), access(10), small())
}

/// Makes a path to a port that is told marks and whose ring its senders share.
fn gateway() -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let sender = End::guest(&mut engine, lab);
    let settings = PortSettings { hdr_len: HdrLen::IngressMark, ..port(lab, access(10)) };
    let receiver = End::guest_of(&mut engine, settings, options(), options());
    switch(engine, sender, vec![receiver], small()).teach(&hello())
}

fn flood() -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let sender = End::guest(&mut engine, lab);
    let receivers = (0..8).map(|_| End::guest(&mut engine, lab)).collect();
    let frame = frame(MacAddr::BROADCAST, mac(1), 60);
    Box::new(switch(engine, sender, receivers, frame))
}

/// Makes a path whose frames a watch sees at the sender's port (0) or at the receiver's (1).
fn seen(place: usize) -> Box<dyn Path> {
    watched(place, usize::from(u16::MAX), None)
}

/// Makes a path of whose frames one in 64 is sampled at the sender's port.
fn sampled() -> Box<dyn Path> {
    watched(0, 128, Some(Sampling { rate: NonZeroU32::MIN.saturating_add(63), seed: 1 }))
}

fn watched(place: usize, snaplen: usize, sampling: Option<Sampling>) -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let guests =
        [0; 2].map(|_| Guest::add(&mut engine, port(lab, access(10)), options(), options()));
    let ports = vec![guests[place].id];
    let [sender, receiver] = guests.map(|guest| End::Guest(Box::new(guest)));
    let mut switch = switch(engine, sender, vec![receiver], small());
    let (queue, reader) = watch::queue(1 << 20).unwrap();
    let ways = Ways { received: place == 0, sent: place == 1 };
    let watch = Watch {
        ports,
        frames: ways,
        dropped: ways,
        drops: ReasonSet::ALL,
        snaplen,
        filter: None,
        sampling,
        queue,
    };
    switch.engine.watch(lab, watch).unwrap();
    switch.reader = Some(reader);
    switch.sees_all = sampling.is_none();
    switch.teach(&hello())
}

/// Makes a path whose frames a mirror copies to a third port.
fn mirrored() -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let guests =
        [0; 3].map(|_| Guest::add(&mut engine, port(lab, access(10)), options(), options()));
    let (sources, output) = (Some(vec![guests[0].id]), MirrorOutput::Port(guests[2].id));
    let [sender, receiver, analyser] = guests.map(|guest| End::Guest(Box::new(guest)));
    let mirror = Mirror {
        sources,
        destinations: Vec::new(),
        vlans: VlanSet::all(),
        filter: None,
        output,
        snaplen: None,
        counters: Default::default(),
    };
    engine.set_mirrors(lab, vec![mirror]).unwrap();
    switch(engine, sender, vec![receiver, analyser], small()).teach(&hello())
}

/// Both guests migrate: their rings mark what they write.
fn logged() -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let [sender, receiver] = [0; 2].map(|_| {
        let settings = port(lab, access(10));
        let mut guest = Guest::add(&mut engine, settings, options(), options());
        guest.log_writes(&mut engine);
        End::Guest(Box::new(guest))
    });
    switch(engine, sender, vec![receiver], small()).teach(&hello())
}

fn learn() -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let sender = End::guest(&mut engine, lab);
    let receiver = End::guest(&mut engine, lab);
    let switch = switch(engine, sender, vec![receiver], small());
    Switch { fresh: Some(0), ..switch }.teach(&hello())
}

/// Makes a path with counters and a MAC table that outlive the process. Each frame has a new source
/// if there is a first one.
fn kept(fresh: Option<u64>) -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let mut network = engine.give_network(lab, &Doorbell::default()).unwrap();
    drop(network.keep_macs(Epoch::from_nanos(0)).unwrap());
    engine.take_network(network, Time::ZERO);
    let mut slab = CounterSlab::create(2).unwrap().0;
    let mut guest = |name: &str| {
        let (settings, counters) = (port(lab, access(10)), slab.port(name).unwrap());
        let guest = Guest::add_with(&mut engine, settings, counters, options(), options());
        End::Guest(Box::new(guest))
    };
    let (sender, receiver) = (guest("sender"), guest("receiver"));
    let switch = switch(engine, sender, vec![receiver], small());
    Switch { fresh, ..switch }.teach(&hello())
}

/// Makes a path for frames of 64 KiB in 18 descriptors, to a receiver with many small buffers.
fn gso(offloads: Offloads, copies: usize) -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let shape = ChainShape::Indirect(18);
    let tx = DriverOptions { shape, buffer_size: HEADER_LEN + 65_600, ..options() };
    let sender = End::guest_of(&mut engine, port(lab, access(10)), tx, options());
    let receiver = End::guest(&mut engine, lab);
    if let End::Guest(guest) = &receiver {
        engine.set_offloads(guest.id, offloads);
    }
    let (header, frame) = large_segment(mac(2), mac(1), u16::MAX);
    let header = header.to_bytes();
    let switch = switch(engine, sender, vec![receiver], frame);
    Switch { header, batch: 16, copies, ..switch }.teach(&hello())
}

fn over_socket(sender: MakeEnd, receiver: MakeEnd) -> Box<dyn Path> {
    let (mut engine, lab) = lab();
    let sender = sender(&mut engine, lab);
    let receiver = receiver(&mut engine, lab);
    let switch = switch(engine, sender, vec![receiver], small());
    Switch { batch: SOCKET_BATCH, ..switch }.teach(&hello())
}

/// Two rings without a switch: frames from one to the other.
struct Ring {
    driver_tx: DriverTx,
    driver_rx: DriverRx,
    tx: TxQueue,
    rx: RxQueue,
    burst: TxBurst,
}

impl Ring {
    fn new() -> Ring {
        let memory = DriverMemory::new(2 * options().memory_size()).unwrap();
        let driver_tx = DriverTx::new(&memory, options()).unwrap();
        let mut driver_rx = DriverRx::new(&memory, options()).unwrap();
        let tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
        let rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
        driver_rx.refill();
        Ring { driver_tx, driver_rx, tx, rx, burst: TxBurst::new() }
    }
}

impl Path for Ring {
    fn feed(&mut self) -> usize {
        let frame = small();
        for _ in 0..MAX_BURST {
            self.driver_tx.send(&PLAIN, &[&frame]).unwrap();
        }
        self.driver_tx.publish();
        MAX_BURST
    }

    fn run(&mut self) {
        let Ring { tx, rx, burst, .. } = self;
        tx.fetch(burst, MAX_BURST).unwrap();
        rx.expect(burst.len());
        for i in 0..burst.len() {
            rx.push(burst.header(i), burst.head(i), burst.body(i)).unwrap();
        }
        tx.complete(burst);
        tx.publish();
        rx.publish();
    }

    fn drain(&mut self) {
        assert_eq!(self.driver_rx.discard(MAX_BURST + 1).unwrap(), MAX_BURST);
        self.driver_rx.refill();
        assert_eq!(self.driver_tx.reclaim().unwrap(), MAX_BURST);
    }
}
