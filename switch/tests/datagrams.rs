//! Datagram ports: their peers, what is no frame, and sockets that take nothing.
#![cfg(test)]

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use trama_frame::{MacAddr, Offloads};
use trama_switch::{
    Address, Device, Dgram, DgramPeer, DropReason, Engine, Lasting, PortCounters, PortId, Spin,
    Time, WorkerHandle, WorkerOptions,
};
use trama_test_kit::{Station, eventually, frame, mac, network, port, trunk};

/// An engine with a datagram port and a station.
struct Lab {
    engine: Engine,
    port: PortId,
    counters: Lasting<PortCounters>,
    station: Station,
    clock: u64,
}

impl Lab {
    fn new(device: Dgram) -> Lab {
        let mut engine = Engine::new(1);
        let network = network(&mut engine, 1500);
        let device = Device::Dgram(Box::new(device));
        let (id, counters) = engine.add_port(port(network, trunk()), device).unwrap();
        let station = Station::add(&mut engine, port(network, trunk()), Offloads::ALL);
        Lab { engine, port: id, counters, station, clock: 0 }
    }

    fn run(&mut self) {
        self.clock += 1_000_000;
        while self.engine.poll(Time(self.clock)) {
            self.clock += 1_000_000;
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.snapshot().dropped(reason)
    }

    fn peer(&self) -> Option<String> {
        Some(self.engine.dgram_report(self.port)?.peer?.to_string())
    }
}

/// A folder with the port's socket.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn device(&self, peer: DgramPeer) -> Dgram {
        Dgram::new(UnixDatagram::bind(self.path("port")).unwrap().into(), peer)
    }

    /// A socket that sends to the port.
    fn sender(&self, name: &str) -> UnixDatagram {
        let socket = UnixDatagram::bind(self.path(name)).unwrap();
        socket.connect(self.path("port")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }
}

fn address(path: &Path) -> Address {
    Address::of_path(path).unwrap()
}

fn receive(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut room = vec![0; 70_000];
    socket.recv(&mut room).ok().map(|len| room[..len].to_vec())
}

fn hello(number: u8) -> Vec<u8> {
    frame(MacAddr::BROADCAST, mac(number), 60 + usize::from(number))
}

#[test]
fn the_one_that_sent_last_is_answered() {
    let folder = Folder::new();
    let mut lab = Lab::new(folder.device(DgramPeer::Last(None)));
    lab.station.send(&hello(9));
    lab.run();
    assert_eq!((lab.dropped(DropReason::EgressNotReady), lab.peer()), (1, None));
    for name in ["a", "b"] {
        let sender = folder.sender(name);
        // What vfkit begins with is not a frame, and is not answered.
        sender.send(b"VFKT").unwrap();
        sender.send(&hello(1)).unwrap();
        lab.run();
        assert_eq!(lab.station.frames(), [hello(1)]);
        assert_eq!(receive(&sender), None);
        lab.station.send(&hello(9));
        lab.run();
        assert_eq!(receive(&sender), Some(hello(9)));
        assert_eq!(lab.peer(), Some(folder.path(name).display().to_string()));
    }
    // One without an address is heard, and the last that has one is still answered.
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(&hello(2), folder.path("port")).unwrap();
    lab.run();
    assert_eq!(lab.station.frames(), [hello(2)]);
    assert_eq!(lab.peer(), Some(folder.path("b").display().to_string()));
    assert_eq!(lab.dropped(DropReason::Runt), 0);
}

#[test]
fn datagrams_of_others_are_dropped_and_those_behind_them_are_heard() {
    let folder = Folder::new();
    let peer = DgramPeer::Fixed(address(&folder.path("a")));
    let device = folder.device(peer);
    let options = WorkerOptions { spin: Spin::Never, name: "worker".into(), seed: 5 };
    let (worker, thread) = WorkerHandle::spawn(options).unwrap();
    let add = |engine: &mut Engine, _| {
        let network = network(engine, 1500);
        let device = Device::Dgram(Box::new(device));
        let (_, counters) = engine.add_port(port(network, trunk()), device).unwrap();
        (counters, Station::add(engine, port(network, trunk()), Offloads::ALL))
    };
    let (counters, station) = worker.call(add).unwrap();
    let (a, other) = (folder.sender("a"), folder.sender("other"));
    for socket in [&a, &other] {
        socket.set_nonblocking(false).unwrap();
    }
    for _ in 0..100 {
        other.send(&hello(1)).unwrap();
    }
    a.send(&hello(2)).unwrap();
    let mut arrived = Vec::new();
    eventually("the peer's frame arrives", || {
        arrived.extend(station.frames());
        !arrived.is_empty()
    });
    assert_eq!(arrived, [hello(2)]);
    assert_eq!(counters.snapshot().dropped(DropReason::WrongPeer), 100);
    worker.stop();
    thread.join().unwrap();
}

#[test]
fn a_peer_that_takes_nothing_costs_its_own_frames() {
    let folder = Folder::new();
    let mut lab = Lab::new(folder.device(DgramPeer::Fixed(address(&folder.path("a")))));
    lab.station.send(&hello(9));
    lab.run();
    // It does not exist yet, and then does not read.
    assert_eq!(lab.dropped(DropReason::EgressNotReady), 1);
    let error = lab.engine.dgram_report(lab.port).unwrap().send_error;
    assert_eq!(error, Some(rustix::io::Errno::NOENT.raw_os_error()));
    let peer = folder.sender("a");
    (0..300).for_each(|_| lab.station.send(&hello(9)));
    lab.run();
    let taken = std::iter::from_fn(|| receive(&peer)).inspect(|it| assert_eq!(*it, hello(9)));
    let taken = taken.count() as u64;
    assert!(taken > 0 && taken + lab.dropped(DropReason::EgressFull) == 300, "{taken}");
    assert_eq!(lab.counters.snapshot().tx_frames, taken);
}

#[test]
fn what_is_longer_than_a_frame_is_dropped() {
    let folder = Folder::new();
    let mut lab = Lab::new(folder.device(DgramPeer::Last(None)));
    let sender = folder.sender("a");
    sender.send(&vec![0xff; 70_000]).unwrap();
    sender.send(&[0xff; 13]).unwrap();
    sender.send(&hello(1)).unwrap();
    lab.run();
    assert_eq!(lab.station.frames(), [hello(1)]);
    assert_eq!((lab.dropped(DropReason::Giant), lab.dropped(DropReason::Runt)), (1, 1));
}

#[test]
fn bursts_pass_over_udp_in_order() {
    let [ours, peer] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    peer.connect(ours.local_addr().unwrap()).unwrap();
    let fixed = DgramPeer::Fixed(peer.local_addr().unwrap().into());
    let mut lab = Lab::new(Dgram::new(ours.into(), fixed));
    let frames: Vec<_> = (0..100).map(hello).collect();
    frames.iter().for_each(|bytes| assert_eq!(peer.send(bytes).unwrap(), bytes.len()));
    lab.run();
    assert_eq!(lab.station.frames(), frames);
    frames.iter().for_each(|bytes| lab.station.send(bytes));
    lab.run();
    let mut room = [0; 2000];
    for bytes in frames {
        let len = peer.recv(&mut room).unwrap();
        assert_eq!(room[..len], bytes);
    }
}
