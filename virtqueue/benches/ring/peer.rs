//! The device side compared with the crate `virtio-queue`, on the same chains and the same work.
//!
//! *Transmit*: header and frame of each chain of a burst are copied into a private buffer, the
//! chains completed, the burst published. *Receive*: a private frame is put behind its header into
//! each chain. Both devices take turns within a round, each on its own rings; the driver's part is
//! this crate's and is not timed. The crate offers two ways, its `Reader` and `Writer` or one copy
//! per descriptor; the faster one counts.

use std::io::{Read, Write};
use std::sync::Arc;

use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingAddresses,
    RingFeatures, RxQueue, Segment, TxBurst, TxQueue,
};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::{MERGEABLE, MODERN, Summary, cycles};

const ROUNDS: usize = 4000;
const BURST: usize = 32;
const QUEUE_SIZE: u16 = 256;
/// A virtio-net header whose num_buffers is 1.
const HEADER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[derive(Clone, Copy)]
enum Direction {
    Transmit,
    Receive,
}

struct Case {
    name: &'static str,
    shape: ChainShape,
    features: RingFeatures,
}

/// The device that a round times.
enum Device {
    TramaTx(TxQueue, Box<TxBurst>),
    TramaRx(Box<RxQueue>),
    VirtioQueue(VirtioQueue),
}

/// The peer crate's queue and its memory.
struct VirtioQueue {
    queue: Queue,
    memory: GuestMemoryMmap,
    direction: Direction,
    with_reader: bool,
}

/// The driver that feeds the device.
enum Driver {
    Tx(DriverTx),
    Rx(DriverRx),
}

/// A driver and its device.
struct Pair {
    driver: Driver,
    device: Device,
}

impl Pair {
    fn new(case: &Case, direction: Direction, device: impl FnOnce(Parts) -> Device) -> Pair {
        let options = DriverOptions {
            size: QUEUE_SIZE,
            features: case.features,
            shape: case.shape,
            buffer_size: 2048,
        };
        let memory = DriverMemory::new(options.memory_size()).unwrap();
        let (driver, addresses) = match direction {
            Direction::Transmit => {
                let tx = DriverTx::new(&memory, options).unwrap();
                let addresses = tx.addresses();
                (Driver::Tx(tx), addresses)
            }
            Direction::Receive => {
                let rx = DriverRx::new(&memory, options).unwrap();
                let addresses = rx.addresses();
                (Driver::Rx(rx), addresses)
            }
        };
        let device = device(Parts { memory, addresses, driver: &driver, case, direction });
        Pair { driver, device }
    }

    /// Runs one round; returns the cycles that the device took.
    fn round(&mut self, frame: &[u8], room: &mut [u8]) -> u64 {
        match &mut self.driver {
            Driver::Tx(tx) => {
                (0..BURST).for_each(|_| tx.send(&HEADER, &[frame]).unwrap());
                tx.publish();
            }
            Driver::Rx(rx) => {
                rx.refill();
            }
        }
        let start = cycles();
        match &mut self.device {
            Device::TramaTx(queue, burst) => take(queue, burst, room),
            Device::TramaRx(queue) => put(queue, frame),
            Device::VirtioQueue(peer) => peer.serve(frame, room),
        }
        let taken = cycles() - start;
        match &mut self.driver {
            Driver::Tx(tx) => {
                assert_eq!(tx.reclaim().unwrap(), BURST);
                assert_eq!(room[HEADER_LEN..][..frame.len()], *frame);
            }
            Driver::Rx(rx) => assert_eq!(rx.discard(BURST + 1).unwrap(), BURST),
        }
        taken
    }
}

/// Copies a burst into a private buffer, with this crate's device side.
fn take(queue: &mut TxQueue, burst: &mut TxBurst, room: &mut [u8]) {
    assert_eq!(queue.fetch(burst, BURST).unwrap(), BURST);
    for i in 0..burst.len() {
        room[..HEADER_LEN].copy_from_slice(burst.header(i));
        let mut filled = HEADER_LEN;
        for segment in std::iter::once(&Segment::from(burst.head(i))).chain(burst.body(i)) {
            filled += segment.copy_to(&mut room[filled..]);
        }
    }
    queue.complete(burst);
    std::hint::black_box(queue.publish());
}

/// Puts a private frame into each of a burst's chains, with this crate's device side.
fn put(queue: &mut RxQueue, frame: &[u8]) {
    for _ in 0..BURST {
        queue.push(&HEADER, frame, &[]).unwrap();
    }
    std::hint::black_box(queue.publish());
}

/// The parts of a device.
struct Parts<'a> {
    memory: Arc<DriverMemory>,
    addresses: RingAddresses,
    driver: &'a Driver,
    case: &'a Case,
    direction: Direction,
}

impl Parts<'_> {
    fn trama(self) -> Device {
        let map = self.memory.map();
        match self.driver {
            Driver::Tx(tx) => Device::TramaTx(TxQueue::new(tx.setup(map)).unwrap(), Box::default()),
            Driver::Rx(rx) => Device::TramaRx(Box::new(RxQueue::new(rx.setup(map)).unwrap())),
        }
    }

    fn virtio_queue(self, with_reader: bool) -> Device {
        let spec = self.memory.spec();
        let file = FileOffset::from_arc(spec.file.clone(), spec.file_offset);
        let range = (GuestAddress(spec.guest_phys), spec.size as usize, Some(file));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        let guest = |address: u64| GuestAddress(address - spec.user_addr + spec.guest_phys);
        queue.try_set_desc_table_address(guest(self.addresses.desc)).unwrap();
        queue.try_set_avail_ring_address(guest(self.addresses.avail)).unwrap();
        queue.try_set_used_ring_address(guest(self.addresses.used)).unwrap();
        queue.set_event_idx(self.case.features.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        Device::VirtioQueue(VirtioQueue { queue, memory, direction: self.direction, with_reader })
    }
}

impl VirtioQueue {
    /// Serves a burst: loads the available index once, and asks once whether the driver wants a
    /// call.
    fn serve(&mut self, frame: &[u8], room: &mut [u8]) {
        let VirtioQueue { queue, memory, direction, with_reader } = self;
        let mut done = [(0, 0); BURST];
        let chains = queue.iter(&*memory).unwrap();
        for (chain, done) in chains.zip(&mut done) {
            let head = chain.head_index();
            let written = match (&direction, &with_reader) {
                (Direction::Transmit, true) => {
                    let mut reader = chain.reader(memory).unwrap();
                    let len = reader.available_bytes();
                    reader.read_exact(&mut room[..len]).unwrap();
                    0
                }
                (Direction::Transmit, false) => {
                    let mut filled = 0;
                    for descriptor in chain.readable() {
                        let to = &mut room[filled..filled + descriptor.len() as usize];
                        memory.read_slice(to, descriptor.addr()).unwrap();
                        filled += descriptor.len() as usize;
                    }
                    0
                }
                (Direction::Receive, true) => {
                    let mut writer = chain.writer(memory).unwrap();
                    writer.write_all(&HEADER).unwrap();
                    writer.write_all(frame).unwrap();
                    writer.bytes_written()
                }
                (Direction::Receive, false) => {
                    put_each(memory, chain.writable(), frame);
                    HEADER_LEN + frame.len()
                }
            };
            *done = (head, written as u32);
        }
        for (head, written) in done {
            queue.add_used(memory, head, written).unwrap();
        }
        std::hint::black_box(queue.needs_notification(memory).unwrap());
    }
}

/// Writes header and frame in sequence over the buffers of a chain.
fn put_each(
    memory: &GuestMemoryMmap,
    descriptors: impl Iterator<Item = virtio_queue::desc::split::Descriptor>,
    frame: &[u8],
) {
    let mut header = &HEADER[..];
    let mut frame = frame;
    for descriptor in descriptors {
        let (mut at, mut room) = (descriptor.addr(), descriptor.len() as usize);
        for part in [&mut header, &mut frame] {
            let (now, later) = part.split_at(part.len().min(room));
            if !now.is_empty() {
                memory.write_slice(now, at).unwrap();
            }
            (at, room) = (GuestAddress(at.0 + now.len() as u64), room - now.len());
            *part = later;
        }
    }
}

fn run(case: &Case, direction: Direction, len: usize) {
    let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let mut room = vec![0; 4096];
    let mut pairs = [
        Pair::new(case, direction, |parts| parts.trama()),
        Pair::new(case, direction, |parts| parts.virtio_queue(true)),
        Pair::new(case, direction, |parts| parts.virtio_queue(false)),
    ];
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        // The first device finds the driver's lines coldest.
        for turn in 0..pairs.len() {
            let which = (round + turn) % pairs.len();
            let cycles = pairs[which].round(&frame, &mut room) as f64 / BURST as f64;
            samples[which].push(cycles);
        }
    }
    let [trama, reader, descriptors] = samples;
    let median = |values: &Vec<f64>| Summary::of(values.clone()).median;
    let (name, best) = match median(&reader) < median(&descriptors) {
        true => ("reader", &reader),
        false => ("descriptors", &descriptors),
    };
    let ratio = Summary::of(trama.iter().zip(best).map(|(trama, best)| best / trama).collect());
    let direction = match direction {
        Direction::Transmit => "transmit",
        Direction::Receive => "receive",
    };
    let (trama, reader, descriptors) =
        (Summary::of(trama), Summary::of(reader), Summary::of(descriptors));
    println!(
        "{:<15} {direction:<8} {len:>5} | {:>6.1} ({:>5.1}-{:>6.1}) | {:>6.1} {:>6.1} | \
         {:>5.2} ({:.2}-{:.2}) {name}",
        case.name,
        trama.median,
        trama.low,
        trama.high,
        reader.median,
        descriptors.median,
        ratio.median,
        ratio.low,
        ratio.high,
    );
}

pub(crate) fn run_all() {
    println!(
        "\ntrama's ring and virtio-queue, bursts of {BURST}: cycles a frame, medians of rounds"
    );
    println!("in brackets what nine in ten rounds lie between; the ratio is to the faster use");
    println!(
        "{:<15} {:<8} {:>5} | {:<21} | {:>6} {:>6} | virtio-queue / trama",
        "chains", "ring", "bytes", "trama", "reader", "descriptors"
    );
    let cases = [
        Case { name: "one descriptor", shape: ChainShape::Single, features: MERGEABLE },
        Case { name: "header split", shape: ChainShape::HeaderSplit, features: MERGEABLE },
        Case { name: "indirect", shape: ChainShape::Indirect(2), features: MODERN },
    ];
    for case in &cases {
        for direction in [Direction::Transmit, Direction::Receive] {
            for len in [60, 1514] {
                run(case, direction, len);
            }
        }
    }
}
