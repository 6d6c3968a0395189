//! Stream ports: frames out of and into a byte stream, its ends, and peers that stall.
#![cfg(test)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;

use trama_frame::{MacAddr, Offloads, checksum};
use trama_switch::{
    Device, DropReason, Engine, Lasting, NetworkId, PortCounters, PortFault, PortId, Spin, Stream,
    StreamEnd, StreamLink, Time, WorkerHandle, WorkerOptions,
};
use trama_test_kit::{
    PATIENCE, Station, eventually, frame, is_asleep, large_segment, mac, network, port, thread_of,
    trunk,
};

/// A frame as it stands in the stream.
fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// Reads one frame.
fn read_frame(peer: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

fn add(engine: &mut Engine, network: NetworkId) -> (PortId, Lasting<PortCounters>) {
    engine.add_port(port(network, trunk()), Device::Stream(Stream::new())).unwrap()
}

fn connect(engine: &mut Engine, port: PortId) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(engine.connect_stream(port, StreamLink::new(ours.into())).unwrap());
    theirs
}

/// An engine on this thread with a stream port and a station.
struct Lab {
    engine: Engine,
    network: NetworkId,
    port: PortId,
    counters: Lasting<PortCounters>,
    station: Station,
    clock: u64,
}

impl Lab {
    fn new() -> Lab {
        let mut engine = Engine::new(1);
        let network = network(&mut engine, 1500);
        let (id, counters) = add(&mut engine, network);
        let station = Station::add(&mut engine, port(network, trunk()), Offloads::ALL);
        Lab { engine, network, port: id, counters, station, clock: 0 }
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
}

#[test]
fn frames_pass_in_both_directions_wherever_the_stream_is_cut() {
    let mut lab = Lab::new();
    let mut peer = connect(&mut lab.engine, lab.port);
    let frames: Vec<_> =
        (0..500).map(|i| frame(MacAddr::BROADCAST, mac(1), 60 + i % 1400)).collect();
    let stream: Vec<u8> = frames.iter().flat_map(|bytes| framed(bytes)).collect();
    let mut arrived = Vec::new();
    for (i, piece) in stream.chunks(977).enumerate() {
        peer.write_all(piece).unwrap();
        if i % 3 == 0 {
            lab.run();
            arrived.extend(lab.station.frames());
        }
    }
    lab.run();
    arrived.extend(lab.station.frames());
    assert_eq!(arrived, frames);
    for bytes in &frames[..100] {
        lab.station.send(bytes);
    }
    lab.run();
    for bytes in &frames[..100] {
        assert_eq!(read_frame(&mut peer), *bytes);
    }
    let counted = lab.counters.snapshot();
    assert_eq!((counted.rx_frames, counted.tx_frames), (500, 100));
}

#[test]
fn a_length_that_no_frame_has_ends_the_connection_behind_what_came_before() {
    for length in [0u32, 13, 65_551, u32::MAX] {
        let mut lab = Lab::new();
        let mut peer = connect(&mut lab.engine, lab.port);
        let good = frame(MacAddr::BROADCAST, mac(1), 60);
        let wrong = [&framed(&good)[..], &length.to_be_bytes(), &framed(&good)].concat();
        peer.write_all(&wrong).unwrap();
        lab.run();
        assert_eq!(lab.station.frames(), [&good[..]]);
        let end = StreamEnd::Length(length);
        assert_eq!(lab.engine.broken_ports(), [(lab.port, PortFault::StreamEnded(end))]);
        assert_eq!(lab.engine.stream_end(lab.port), Some(end));
        assert!(end.to_string().contains(&format!("frame length of {length},")), "{end}");
        // It takes another connection, and starts from its first byte.
        let mut peer = connect(&mut lab.engine, lab.port);
        peer.write_all(&framed(&good)).unwrap();
        lab.run();
        assert_eq!(lab.station.frames(), [&good[..]]);
    }
}

#[test]
fn a_frame_that_ends_with_the_connection_is_dropped_and_counted() {
    let mut lab = Lab::new();
    let bytes = framed(&frame(MacAddr::BROADCAST, mac(1), 60));
    for cut in [1, 4, 63] {
        let mut peer = connect(&mut lab.engine, lab.port);
        peer.write_all(&bytes).unwrap();
        peer.write_all(&bytes[..cut]).unwrap();
        drop(peer);
        lab.run();
        assert_eq!(lab.station.frames().len(), 1, "cut at {cut}");
        assert_eq!(lab.engine.stream_end(lab.port), Some(StreamEnd::Closed));
    }
    assert_eq!(lab.dropped(DropReason::Truncated), 3);
    let mut peer = connect(&mut lab.engine, lab.port);
    peer.write_all(&bytes).unwrap();
    drop(peer);
    lab.run();
    assert_eq!(lab.dropped(DropReason::Truncated), 3);
}

#[test]
fn without_a_connection_frames_are_dropped_and_addresses_forgotten_with_it() {
    let mut lab = Lab::new();
    let (ours, theirs) = (frame(mac(2), mac(1), 60), frame(MacAddr::BROADCAST, mac(2), 60));
    lab.station.send(&ours);
    lab.run();
    assert_eq!(lab.dropped(DropReason::EgressNotReady), 1);
    let mut peer = connect(&mut lab.engine, lab.port);
    peer.write_all(&framed(&theirs)).unwrap();
    lab.run();
    assert_eq!(lab.engine.fdb(lab.network, Time(lab.clock)).len(), 2);
    assert!(lab.engine.disconnect_stream(lab.port).unwrap().is_some());
    assert_eq!(lab.engine.fdb(lab.network, Time(lab.clock)).len(), 1);
    assert!(lab.engine.disconnect_stream(lab.port).unwrap().is_none());
    assert!(lab.engine.disconnect_stream(lab.station.id).is_err());
}

#[test]
fn what_a_peer_has_sent_before_its_end_arrives_even_if_it_reads_nothing() {
    let mut lab = Lab::new();
    let mut peer = connect(&mut lab.engine, lab.port);
    let bytes = frame(MacAddr::BROADCAST, mac(1), 60);
    peer.write_all(&framed(&bytes)).unwrap();
    drop(peer);
    // The send finds the peer gone before its last frame was read.
    lab.station.send(&bytes);
    lab.run();
    assert_eq!(lab.station.frames(), [&bytes[..]]);
    assert_eq!(lab.engine.stream_end(lab.port), Some(StreamEnd::Closed));
}

#[test]
fn large_segments_arrive_cut_and_with_checksums() {
    let mut lab = Lab::new();
    let mut peer = connect(&mut lab.engine, lab.port);
    let (header, large) = large_segment(MacAddr::BROADCAST, mac(1), 30_040);
    lab.station.handle.inject(header, &large).unwrap();
    lab.run();
    let counted = lab.counters.snapshot();
    assert!(counted.software_gso_frames == 1 && counted.tx_frames > 20, "{counted:?}");
    for _ in 0..counted.tx_frames {
        let bytes = read_frame(&mut peer);
        assert!(bytes.len() <= 1514 && has_tcp_checksum(&bytes));
    }
}

/// Returns whether a TCP segment over IPv4 without options has its checksum.
fn has_tcp_checksum(bytes: &[u8]) -> bool {
    let (addresses, segment) = (&bytes[26..34], &bytes[34..]);
    let length = (segment.len() as u16).to_be_bytes();
    checksum::internet(&[addresses, &[0, 6], &length, segment].concat()) == 0
}

/// A worker with a network.
struct Running {
    worker: WorkerHandle,
    thread: Option<JoinHandle<()>>,
    network: NetworkId,
}

impl Running {
    fn new() -> Running {
        let options = WorkerOptions { spin: Spin::Never, name: "worker".into(), seed: 5 };
        let (worker, thread) = WorkerHandle::spawn(options).unwrap();
        let network = worker.call(|engine, _| network(engine, 1500)).unwrap();
        Running { worker, thread: Some(thread), network }
    }

    fn peer(&self) -> (UnixStream, PortId, Lasting<PortCounters>) {
        let network = self.network;
        let add = move |engine: &mut Engine, _| {
            let (id, counters) = add(engine, network);
            (connect(engine, id), id, counters)
        };
        self.worker.call(add).unwrap()
    }

    fn until_asleep(&self) {
        let thread = thread_of(&self.worker);
        eventually("the worker sleeps", || is_asleep(thread));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_peer_that_stalls_costs_others_nothing_and_goes_on_when_it_reads() {
    let running = Running::new();
    let (mut sender, ..) = running.peer();
    let (mut stalled, _, at_stalled) = running.peer();
    let (mut reader, _, at_reader) = running.peer();
    let bytes = frame(MacAddr::BROADCAST, mac(1), 1514);
    let sent = 3000;
    let (was_read, has_read) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let expected = frame(MacAddr::BROADCAST, mac(1), 1514);
        for _ in 0..sent {
            assert_eq!(read_frame(&mut reader), expected);
            was_read.send(()).unwrap();
        }
        reader
    });
    for _ in 0..sent / 50 {
        (0..50).for_each(|_| sender.write_all(&framed(&bytes)).unwrap());
        // At the pace of the one that reads.
        (0..50).for_each(|_| has_read.recv_timeout(PATIENCE).unwrap());
    }
    let mut reader = reading.join().unwrap();
    // A stalled port costs no turn. What was sent is counted a moment later.
    running.until_asleep();
    assert_eq!(at_reader.snapshot().tx_frames, sent);
    let counted = at_stalled.snapshot();
    let full = counted.dropped(DropReason::EgressFull);
    assert!(full > 0 && counted.tx_frames + full == sent, "{counted:?}");
    // All that was taken arrives, none of it broken, and more passes once there is room.
    let arrived = std::thread::spawn(move || {
        (0..counted.tx_frames).for_each(|_| assert_eq!(read_frame(&mut stalled).len(), 1514));
        stalled
    });
    let mut stalled = arrived.join().unwrap();
    running.until_asleep();
    sender.write_all(&framed(&bytes)).unwrap();
    assert_eq!((read_frame(&mut stalled), read_frame(&mut reader)), (bytes.clone(), bytes));
}

#[test]
fn a_sleeping_worker_hears_of_frames_and_of_the_end() {
    let running = Running::new();
    let ((mut a, a_id, _), (mut b, ..)) = (running.peer(), running.peer());
    for round in 0..100 {
        running.until_asleep();
        let bytes = frame(MacAddr::BROADCAST, mac(1), 60 + round);
        a.write_all(&framed(&bytes)).unwrap();
        assert_eq!(read_frame(&mut b), bytes);
    }
    running.until_asleep();
    drop(a);
    let end = || running.worker.call(move |engine, _| engine.stream_end(a_id)).unwrap();
    eventually("the end is heard of", || end() == Some(StreamEnd::Closed));
}
