//! Frames sent again from the buffers that hold them, and received in place.

use std::panic::{AssertUnwindSafe, catch_unwind};

use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN,
    RingFeatures, RxQueue, TxBurst, TxQueue,
};

const SIZE: u16 = 16;
const MERGEABLE: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: true,
    in_order: false,
    mergeable: true,
    short_header: false,
};

struct Path {
    driver_tx: DriverTx,
    driver_rx: DriverRx,
    tx: TxQueue,
    rx: RxQueue,
    burst: TxBurst,
}

impl Path {
    fn new(shape: ChainShape, features: RingFeatures, rx_buffer: usize) -> Path {
        let options = DriverOptions { size: SIZE, features, shape, buffer_size: 2048 };
        let rx_options = DriverOptions { buffer_size: rx_buffer, ..options };
        let memory = DriverMemory::new(options.memory_size() + rx_options.memory_size()).unwrap();
        let driver_tx = DriverTx::new(&memory, options).unwrap();
        let mut driver_rx = DriverRx::new(&memory, rx_options).unwrap();
        driver_rx.refill();
        let tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
        let rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
        Path { driver_tx, driver_rx, tx, rx, burst: TxBurst::new() }
    }

    /// Moves the queued frames to the other side; returns their number.
    fn forward(&mut self) -> usize {
        self.driver_tx.publish();
        let count = self.tx.fetch(&mut self.burst, 64).unwrap();
        for i in 0..count {
            let burst = &self.burst;
            self.rx.push(burst.header(i), burst.head(i), burst.body(i)).unwrap();
        }
        self.tx.complete(&self.burst);
        self.tx.publish();
        self.rx.publish();
        self.driver_tx.reclaim().unwrap();
        count
    }
}

fn template(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

/// Far more frames than buffers: each is the prepared one with its own number, without a trace of
/// the frame that its buffer held before.
#[test]
fn prepared_frames_differ_in_what_was_put() {
    let in_order = RingFeatures { in_order: true, ..MERGEABLE };
    let shapes = [
        ChainShape::Single,
        ChainShape::HeaderSplit,
        ChainShape::Scattered(4),
        ChainShape::Indirect(3),
    ];
    let short = RingFeatures { mergeable: false, short_header: true, ..MERGEABLE };
    let all = [MERGEABLE, in_order, short];
    for (shape, features) in shapes.into_iter().flat_map(|s| all.map(|features| (s, features))) {
        let mut path = Path::new(shape, features, 2048);
        // A shorter frame follows a longer one: descriptors change with it.
        for len in [1514, 60] {
            let header = [0, 0, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0];
            path.driver_tx.prepare(&header, &template(len)).unwrap();
            let mut number = 0u32;
            while number < 1000 {
                let batch = 1 + number % 5;
                let sent = (0..batch)
                    .take_while(|i| {
                        let bytes = (number + i).to_be_bytes();
                        path.driver_tx.send_again(|frame| frame.put(20, bytes)).is_ok()
                    })
                    .count();
                assert_eq!(path.forward(), sent, "{shape:?}");
                let mut frame = Vec::new();
                for _ in 0..sent {
                    let received = path.driver_rx.recv(&mut frame).unwrap().unwrap();
                    let mut expected = template(len);
                    expected[20..24].copy_from_slice(&number.to_be_bytes());
                    assert!(frame == expected, "{shape:?}, {len} bytes: {frame:?}");
                    assert_eq!(received[..10], header[..10]);
                    number += 1;
                }
                path.driver_rx.refill();
            }
        }
    }
}

#[test]
fn a_full_ring_refuses_to_resend() {
    let mut path = Path::new(ChainShape::Single, MERGEABLE, 2048);
    path.driver_tx.prepare(&[0; HEADER_LEN], &template(60)).unwrap();
    for _ in 0..SIZE {
        path.driver_tx.send_again(|_| ()).unwrap();
    }
    let full = path.driver_tx.send_again(|_| panic!("there is no frame to change"));
    assert!(matches!(full, Err(DriverError::Full)));
    let early = path.driver_tx.prepare(&[0; HEADER_LEN], &template(60));
    assert!(matches!(early, Err(DriverError::Options(_))), "the device still has the buffers");
    assert_eq!(path.forward(), usize::from(SIZE));
    path.driver_tx.prepare(&[0; HEADER_LEN], &template(60)).unwrap();
    let large = path.driver_tx.prepare(&[0; HEADER_LEN], &template(2048 - HEADER_LEN + 1));
    assert!(matches!(large, Err(DriverError::TooLarge(2037))));
}

#[test]
fn a_change_stays_within_the_frame() {
    let mut path = Path::new(ChainShape::Single, MERGEABLE, 2048);
    path.driver_tx.prepare(&[0; HEADER_LEN], &template(60)).unwrap();
    path.driver_tx.send_again(|frame| frame.put(56, [9; 4])).unwrap();
    for offset in [57, 60, usize::MAX] {
        let beyond = catch_unwind(AssertUnwindSafe(|| {
            path.driver_tx.send_again(|frame| frame.put(offset, [9; 4]))
        }));
        assert!(beyond.is_err(), "{offset}");
    }
}

#[test]
fn received_frames_are_read_in_place() {
    for (rx_buffer, in_first) in [(2048, 1514), (128, 128 - HEADER_LEN)] {
        let mut path = Path::new(ChainShape::Single, MERGEABLE, rx_buffer);
        path.driver_tx.prepare(&[0; HEADER_LEN], &template(1514)).unwrap();
        for number in 0..100u16 {
            path.driver_tx.send_again(|frame| frame.put(0, number.to_be_bytes())).unwrap();
            assert_eq!(path.forward(), 1);
            let mut seen = 0;
            let count = path.driver_rx.recv_each(10, |frame| {
                seen += 1;
                assert_eq!(frame.frame_len(), 1514);
                assert_eq!(frame.get(0), Some(number.to_be_bytes()));
                assert_eq!(
                    frame.get(in_first - 3),
                    Some([0, 1, 2].map(|i| (in_first - 3 + i) as u8))
                );
                assert_eq!(frame.get::<3>(in_first - 2), None, "not in the first buffer");
                assert_eq!(frame.get::<3>(usize::MAX), None);
                let buffers = 1526usize.div_ceil(rx_buffer) as u16;
                assert_eq!(frame.header()[10..], buffers.to_le_bytes());
            });
            assert_eq!((count.unwrap(), seen), (1, 1));
            assert!(path.driver_rx.free() > 0);
            path.driver_rx.refill();
            assert_eq!(path.driver_rx.free(), 0);
        }
    }
}

#[test]
fn at_most_the_requested_frames_are_received_in_order() {
    let mut path = Path::new(ChainShape::Single, MERGEABLE, 2048);
    path.driver_tx.prepare(&[0; HEADER_LEN], &template(60)).unwrap();
    let mut expected = 0u8;
    for round in 0..200u8 {
        for i in 0..SIZE as u8 {
            let number = round.wrapping_mul(SIZE as u8).wrapping_add(i);
            path.driver_tx.send_again(|frame| frame.put(0, [number])).unwrap();
        }
        path.forward();
        for (max, count) in [(0, 0), (5, 5), (11, 11), (1, 0)] {
            let got = path.driver_rx.recv_each(max, |frame| {
                assert_eq!(frame.get(0), Some([expected]));
                expected = expected.wrapping_add(1);
            });
            assert_eq!(got.unwrap(), count);
        }
        path.driver_rx.refill();
    }
}
