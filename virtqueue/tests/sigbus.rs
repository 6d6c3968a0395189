//! A frontend truncates its memory file while it is in use: its memory is lost, the process and the
//! memory of other frontends are not.
#![cfg(test)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverTx, GuestMemory, PushError, RegionSpec,
    RingError, RingFeatures, RingSetup, RxQueue, TxBurst, TxQueue,
};

const SIZE: u64 = 0x10_0000;
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7000_0000_0000;

/// A frontend's memory with a transmit ring of 256 chains of 2000 bytes, all available.
struct Frontend {
    file: Arc<File>,
    spec: RegionSpec,
    memory: Arc<GuestMemory>,
}

impl Frontend {
    fn new() -> Frontend {
        Self::with_size(SIZE)
    }

    fn with_size(size: u64) -> Frontend {
        let file = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
        file.set_len(size).unwrap();
        file.write_all_at(&256u16.to_le_bytes(), 0x1002).unwrap();
        for i in 0..256u64 {
            let mut desc = (GUEST + 0x2_0000 + i * 2048).to_le_bytes().to_vec();
            desc.extend([2000u32.to_le_bytes(), [0; 4]].concat());
            file.write_all_at(&desc, i * 16).unwrap();
            file.write_all_at(&(i as u16).to_le_bytes(), 0x1000 + 4 + 2 * i).unwrap();
        }
        let (guest_phys, user_addr) = (GUEST, USER);
        let spec = RegionSpec { guest_phys, user_addr, size, file_offset: 0, file: file.clone() };
        let memory = GuestMemory::map(vec![spec.clone()]).unwrap();
        Frontend { file, spec, memory }
    }

    fn setup(&self) -> RingSetup {
        RingSetup {
            size: 256,
            desc: USER,
            avail: USER + 0x1000,
            used: USER + 0x2000,
            next: 0,
            features: RingFeatures::default(),
            memory: self.memory.clone(),
            log: None,
        }
    }
}

/// Reads bursts with every byte of their frames until the ring breaks.
fn read_until_lost(frontend: &Frontend, bytes: &AtomicUsize) -> RingError {
    let mut queue = TxQueue::new(frontend.setup()).unwrap();
    let (mut burst, mut target) = (TxBurst::new(), vec![0; 4096]);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline);
        match queue.fetch(&mut burst, 64) {
            Ok(0) => queue = TxQueue::new(frontend.setup()).unwrap(),
            Ok(_) => {}
            Err(error) => {
                assert!(queue.memory_lost());
                return error;
            }
        }
        for segment in (0..burst.len()).flat_map(|i| burst.body(i)) {
            bytes.fetch_add(segment.copy_to(&mut target), Ordering::Relaxed);
        }
        queue.complete(&burst);
        queue.publish();
    }
}

#[test]
fn truncation_affects_only_the_truncated_memory() {
    let (victim, other) = (Frontend::new(), Frontend::new());
    let bytes = AtomicUsize::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| read_until_lost(&victim, &bytes))).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        while bytes.load(Ordering::Relaxed) < 1_000_000 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        victim.file.set_len(0).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), RingError::MemoryLost);
        }
    });
    assert!(victim.memory.is_lost());
    assert!(!other.memory.is_lost());

    let mut queue = TxQueue::new(other.setup()).unwrap();
    assert_eq!(queue.fetch(&mut TxBurst::new(), 64), Ok(64));
    // A map made from the lost map's regions does not get the lost pages: the file is too short.
    assert!(GuestMemory::map_from(&victim.memory, vec![victim.spec.clone()]).is_err());
}

#[test]
fn a_receive_ring_finds_its_memory_lost() {
    let victim = Frontend::new();
    let mut queue = RxQueue::new(victim.setup()).unwrap();
    victim.file.set_len(0x1000).unwrap();
    assert_eq!(
        queue.push(&[0; 12], &[0; 60][..], &[]),
        Err(PushError::Broken(RingError::MemoryLost))
    );
    assert!(queue.memory_lost());
}

#[test]
fn zeros_of_lost_memory_are_not_reported_as_a_driver_fault() {
    let victim = Frontend::new();
    let mut queue = RxQueue::new(RingSetup { desc: USER + 0x8000, ..victim.setup() }).unwrap();
    victim.file.set_len(0x8000).unwrap();
    // The available ring is intact; its descriptors, read for the first time, are lost.
    assert_eq!(
        queue.push(&[0; 12], &[0; 60][..], &[]),
        Err(PushError::Broken(RingError::MemoryLost))
    );
}

/// Returns the bytes of private writable memory, which RLIMIT_DATA and strict overcommit count.
fn private_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn lost_memory_does_not_count_as_private_memory() {
    let victim = Frontend::with_size(64 << 30);
    let before = private_bytes();
    victim.file.set_len(0).unwrap();
    let mut queue = TxQueue::new(victim.setup()).unwrap();
    assert_eq!(queue.pending(), Err(RingError::MemoryLost));
    assert!(private_bytes() < before + (1 << 30));
}

#[test]
fn driver_memory_cannot_be_truncated() {
    let options = DriverOptions {
        size: 2,
        features: RingFeatures::default(),
        shape: ChainShape::Single,
        buffer_size: 100,
    };
    let memory = DriverMemory::new(options.memory_size()).unwrap();
    let _queue = DriverTx::new(&memory, options).unwrap();
    assert!(memory.spec().file.set_len(0).is_err());
}
