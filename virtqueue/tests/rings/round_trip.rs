//! Driver side and device side against each other, over all options: every frame arrives whole, in
//! order, once.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, GuestMemory,
    HEADER_LEN, PushError, RingFeatures, RingSetup, RxQueue, TxBurst, TxQueue,
};

fn options() -> impl Strategy<Value = DriverOptions> {
    let shape = prop_oneof![
        Just(ChainShape::Single),
        Just(ChainShape::HeaderSplit),
        (1..7u16).prop_map(ChainShape::Scattered),
        (1..20u16).prop_map(ChainShape::Indirect),
    ];
    // Buffers of 192 bytes follow each other without a gap.
    let buffer = prop_oneof![13..200usize, 200..4096usize, Just(192)];
    (1..8u32, any::<(bool, bool, bool)>(), 0..3u8, shape, buffer)
        .prop_map(|(log, (event_idx, indirect, in_order), header, shape, buffer_size)| {
            let (mergeable, short_header) = (header == 1, header == 2);
            let features = RingFeatures { event_idx, indirect, in_order, mergeable, short_header };
            DriverOptions { size: 1 << log, features, shape, buffer_size }
        })
        .prop_filter("options that a driver takes", |options| {
            let memory = DriverMemory::new(options.memory_size()).unwrap();
            DriverTx::new(&memory, *options).is_ok()
        })
}

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    Forward(usize),
    Reclaim,
    Receive,
    Refill,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![3 => 14..80usize, 1 => 0..1600usize];
    prop_oneof![
        4 => (len, any::<u8>()).prop_map(|(len, seed)| {
            Step::Send((0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
        }),
        2 => (0..70usize).prop_map(Step::Forward),
        1 => Just(Step::Reclaim),
        3 => Just(Step::Receive),
        1 => Just(Step::Refill),
    ]
}

/// Returns a header that identifies its frame in every field but num_buffers.
fn header(count: u8) -> [u8; HEADER_LEN] {
    let mut header = [count; HEADER_LEN];
    header[10..].fill(0);
    header
}

struct Pair {
    memory: Arc<DriverMemory>,
    driver_tx: DriverTx,
    driver_rx: DriverRx,
    tx: TxQueue,
    rx: RxQueue,
    burst: TxBurst,
    /// Frames sent but not fetched; then frames fetched but not received.
    sent: VecDeque<([u8; HEADER_LEN], Vec<u8>)>,
    passed: VecDeque<([u8; HEADER_LEN], Vec<u8>)>,
    count: u8,
}

impl Pair {
    fn new(tx: DriverOptions, rx: DriverOptions) -> Pair {
        let memory = DriverMemory::new(tx.memory_size() + rx.memory_size()).unwrap();
        let driver_tx = DriverTx::new(&memory, tx).unwrap();
        let driver_rx = DriverRx::new(&memory, rx).unwrap();
        Pair {
            tx: TxQueue::new(driver_tx.setup(memory.map())).unwrap(),
            rx: RxQueue::new(driver_rx.setup(memory.map())).unwrap(),
            memory,
            driver_tx,
            driver_rx,
            burst: TxBurst::new(),
            sent: VecDeque::new(),
            passed: VecDeque::new(),
            count: 0,
        }
    }

    fn run(&mut self, step: Step, tx: &DriverOptions) {
        match step {
            Step::Send(frame) => self.send(frame, tx),
            Step::Forward(max) => self.forward(max),
            Step::Reclaim => {
                let free = self.driver_tx.free();
                assert_eq!(free + self.driver_tx.reclaim().unwrap(), self.driver_tx.free());
            }
            Step::Receive => self.receive(),
            Step::Refill => {
                self.driver_rx.refill();
            }
        }
    }

    fn send(&mut self, frame: Vec<u8>, options: &DriverOptions) {
        let free = self.driver_tx.free();
        let (a, b) = frame.split_at(frame.len() / 4);
        match self.driver_tx.send(&header(self.count), &[a, b]) {
            Ok(()) => {
                assert!(free > 0);
                self.sent.push_back((header(self.count), frame));
                self.count = self.count.wrapping_add(1);
                self.driver_tx.publish();
            }
            Err(DriverError::Full) => assert_eq!(free, 0),
            Err(DriverError::TooLarge(len)) => {
                assert_eq!(len, frame.len());
                assert!(len + options.features.header_len() > options.buffer_size);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn forward(&mut self, max: usize) {
        let fetched = self.tx.fetch(&mut self.burst, max).unwrap();
        assert_eq!(fetched, self.sent.len().min(max).min(64));
        // In turn: the exact number, fewer, more, or none.
        self.rx.expect(fetched * usize::from(self.count % 4) / 2);
        for i in 0..fetched {
            let (header, frame) = self.sent.pop_front().unwrap();
            assert_eq!(self.burst.error(i), None);
            assert_eq!(*self.burst.header(i), header);
            assert_eq!(self.burst.frame_len(i), frame.len());
            let plain = header[0] == 0;
            assert_eq!(self.burst.head(i).len(), frame.len().min(if plain { 64 } else { 128 }));
            match self.rx.push(&header, self.burst.head(i), self.burst.body(i)) {
                Ok(()) => self.passed.push_back((header, frame)),
                Err(PushError::Full | PushError::TooLarge) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.tx.complete(&self.burst);
        self.tx.publish();
        self.rx.publish();
    }

    /// Receives by copy and in place, in turn.
    fn receive(&mut self) {
        let mut frame = vec![1, 2, 3];
        let header = if self.passed.len().is_multiple_of(2) {
            self.driver_rx.recv(&mut frame).unwrap()
        } else {
            let mut spare = vec![1, 2, 3];
            let received = self.driver_rx.recv_in_place(&mut spare).unwrap();
            received.map(|received| {
                frame = received.frame.to_vec();
                received.header
            })
        };
        match header {
            None => assert!(self.passed.is_empty()),
            Some(mut header) => {
                header[10..].fill(0);
                assert_eq!((header, frame), self.passed.pop_front().unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_frame_sent_arrives(
        tx in options(),
        rx in options(),
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut pair = Pair::new(tx, rx);
        for step in steps {
            pair.run(step, &tx);
        }
        // At the end nothing is left.
        while !pair.sent.is_empty() {
            pair.forward(64);
        }
        while !pair.passed.is_empty() {
            pair.receive();
        }
        prop_assert_eq!(pair.driver_rx.discard(1).unwrap(), 0);
        pair.driver_tx.reclaim().unwrap();
        pair.driver_rx.refill();
        prop_assert_eq!(pair.tx.pending(), Ok(0));
        prop_assert!(pair.driver_tx.free() > 0);
    }
}

/// A large frame takes many buffers, and a ring moved to a new map continues at its index.
#[test]
fn frames_cross_many_buffers_and_a_change_of_maps() {
    let features = RingFeatures { mergeable: true, indirect: true, ..RingFeatures::default() };
    let (shape, size) = (ChainShape::Indirect(18), 64);
    let tx = DriverOptions { size, features, shape, buffer_size: 65536 + 64 };
    let rx = DriverOptions { size: 256, shape: ChainShape::Single, buffer_size: 1526, ..tx };
    let mut pair = Pair::new(tx, rx);
    for round in 0..50u32 {
        let frame = (0..65536u32).map(|i| (i * 13 + i / 256 + round) as u8).collect();
        pair.driver_rx.refill();
        pair.send(frame, &tx);
        pair.forward(64);
        pair.receive();
        pair.driver_tx.reclaim().unwrap();
        let memory = GuestMemory::map(vec![pair.memory.spec()]).unwrap();
        pair.tx.set_memory(memory.clone()).unwrap();
        pair.rx.set_memory(memory).unwrap();
    }
    assert_eq!(pair.count, 50);
    assert!(pair.passed.is_empty());
}

/// With buffers that follow each other without a gap, a frame over several is read in place; one
/// divided by the ring's end is copied.
#[test]
fn frames_over_many_buffers_are_read_in_place() {
    let features = RingFeatures { mergeable: true, in_order: true, ..RingFeatures::default() };
    let tx =
        DriverOptions { size: 64, features, shape: ChainShape::Single, buffer_size: 65536 + 64 };
    let rx = DriverOptions { size: 64, buffer_size: 65 * 64, ..tx };
    let mut pair = Pair::new(tx, rx);
    let mut copies = Vec::new();
    for round in 0..8u8 {
        let frame: Vec<u8> = (0..40_000u32).map(|i| (i / 256) as u8 ^ i as u8 ^ round).collect();
        pair.driver_rx.refill();
        pair.send(frame.clone(), &tx);
        pair.forward(64);
        let mut spare = Vec::new();
        let bytes = pair.driver_rx.recv_in_place(&mut spare).unwrap().unwrap().frame;
        assert!(bytes == frame, "frame {round} differs");
        copies.push(!spare.is_empty());
        pair.driver_tx.reclaim().unwrap();
    }
    // Ten buffers per frame: the seventh frame crosses the end of 64.
    assert_eq!(copies, [false, false, false, false, false, false, true, false]);
}

#[test]
fn a_ring_is_blank_until_its_driver_writes_to_it() {
    let options = DriverOptions {
        size: 64,
        features: RingFeatures::default(),
        shape: ChainShape::Single,
        buffer_size: 256,
    };
    let [used, untouched] = [(); 2].map(|()| DriverMemory::new(options.memory_size()).unwrap());
    let mut driver = DriverRx::new(&used, options).unwrap();
    driver.refill();
    let setup = driver.setup(used.map());
    assert!(!setup.is_blank());
    // The same ring in memory that the driver does not write to.
    let private = RingSetup { memory: untouched.map(), ..setup.clone() };
    assert_eq!(used.spec().user_addr, untouched.spec().user_addr);
    assert!(private.is_blank());
    let nowhere = RingSetup { desc: u64::MAX - 15, ..private };
    assert!(!nowhere.is_blank(), "an unusable setup says nothing");
}
