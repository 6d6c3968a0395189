//! The dirty log while a frontend harvests it, as in a live migration.
//!
//! One thread is the guest's driver and the device: it sends and receives random frames, over rings
//! of all shapes. Another one is the frontend: it exchanges the words of the log for zero and
//! copies the pages whose bits were set. From time to time the rings stop, as at the end of a
//! migration; after a last harvest the copy must have all that the device wrote.
//!
//! `TRAMA_LOG_ROUNDS=1000000` makes it long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use trama_virtqueue::{
    ChainShape, DirtyLog, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, LogAt,
    LogError, Logged, MemoryAccount, MemoryLimits, PushError, RingError, RingFeatures, RingSetup,
    RxQueue, TxBurst, TxQueue,
};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory,
};

use super::random::Random;

const PAGE: u64 = 4096;
/// Bursts of all seeds together, unless the environment says otherwise.
const ROUNDS: usize = 40_000;
const SEEDS: u64 = 40;
/// Bursts between two stops of the rings.
const SESSION: usize = 20;

/// Bytes of a frame that is written while it is harvested.
const FRAME: usize = 1500;

/// Where the used rings are logged: below the guest's memory, apart from its own pages.
const USED_LOG: [u64; 2] = [1 << 20, 2 << 20];

impl Random {
    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn options(&mut self) -> DriverOptions {
        let features = RingFeatures {
            event_idx: self.one_in(2),
            indirect: self.one_in(2),
            in_order: self.one_in(2),
            mergeable: self.one_in(2),
            short_header: self.one_in(4),
        };
        let shape = match self.below(4) {
            0 => ChainShape::HeaderSplit,
            1 if features.indirect => ChainShape::Indirect(1 + self.below(6) as u16),
            2 => ChainShape::Scattered(1 + self.below(3) as u16),
            _ => ChainShape::Single,
        };
        // Buffers in one page, across two, and of several.
        let buffer_size = [200, 1612, 3000, 9000][self.below(4) as usize];
        DriverOptions { size: 16 << self.below(5), features, shape, buffer_size }
    }
}

/// A part of the memory that the device writes.
#[derive(Debug)]
struct Part {
    guest: u64,
    len: u64,
}

/// The frontend: its own maps of guest memory and log, and the copy.
struct Frontend {
    memory: GuestMemoryMmap,
    log: GuestMemoryMmap,
    start: u64,
    /// The address of each used ring in the log, and in the guest.
    used: [(u64, Part); 2],
    copy: Vec<u8>,
}

impl Frontend {
    /// Takes the bits of the pages of `len` bytes at `address` in the log, and copies those pages
    /// of the guest; the first of them is at `guest`.
    fn harvest_part(&mut self, address: u64, len: u64, guest: u64) {
        let (first, last) = (address / PAGE, (address + len - 1) / PAGE);
        for word in first / 64..=last / 64 {
            let slice = self.log.get_slice(GuestAddress(8 * word), 8).unwrap();
            let mut bits = slice.get_atomic_ref::<AtomicU64>(0).unwrap().swap(0, Ordering::SeqCst);
            while bits != 0 {
                let page = 64 * word + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                assert!((first..=last).contains(&page), "a bit of no page: {page:#x}");
                self.copy_page(guest / PAGE + (page - first));
            }
        }
    }

    fn copy_page(&mut self, page: u64) {
        let at = (page * PAGE - self.start) as usize;
        let to = &mut self.copy[at..at + PAGE as usize];
        self.memory.read_slice(to, GuestAddress(page * PAGE)).unwrap();
    }

    fn harvest(&mut self) {
        let (start, len) = (self.start, self.copy.len() as u64);
        self.harvest_part(start, len, start);
        for ring in 0..2 {
            let (log, Part { guest, len }) = (self.used[ring].0, &self.used[ring].1);
            let (guest, len) = (*guest, *len);
            if log != guest {
                self.harvest_part(log, len, guest);
            }
        }
    }

    /// Returns the parts that differ from the copy.
    fn missing<'a>(&self, parts: &'a [Part]) -> Vec<&'a Part> {
        let differs = |part: &&Part| {
            let mut now = vec![0; part.len as usize];
            self.memory.read_slice(&mut now, GuestAddress(part.guest)).unwrap();
            let at = (part.guest - self.start) as usize;
            now != self.copy[at..at + now.len()]
        };
        parts.iter().filter(differs).collect()
    }
}

/// A guest with a pair of rings whose writes are logged.
struct Guest {
    driver: (DriverRx, DriverTx),
    device: (RxQueue<Logged>, TxQueue<Logged>),
    setups: [RingSetup; 2],
    burst: TxBurst,
    frame: Vec<u8>,
    /// Frames that the device received and sent.
    moved: [u64; 2],
}

impl Guest {
    fn round(&mut self, random: &mut Random) {
        let (rx, tx) = &mut self.driver;
        let count = random.below(5);
        self.device.0.expect(count as usize);
        for _ in 0..count {
            // Rarely larger than a buffer.
            let most = if random.one_in(8) { 9000 } else { 1500 };
            let len = 60 + random.below(most) as usize;
            self.frame[..8].copy_from_slice(&random.0.to_le_bytes());
            let body = &self.frame[50..len];
            match self.device.0.push(&[0; HEADER_LEN], &self.frame[..50], &[body.into()]) {
                Ok(()) => self.moved[0] += 1,
                Err(PushError::Full | PushError::TooLarge) => {}
                Err(PushError::Broken(error)) => panic!("{error}"),
            }
        }
        self.device.0.publish();
        if random.one_in(3) {
            rx.discard(usize::MAX).unwrap();
            rx.refill();
        }
        tx.reclaim().unwrap();
        for _ in 0..random.below(5) {
            // Full, or too large for its buffers.
            let _ = tx.send(&[0; HEADER_LEN], &[&self.frame[..60 + random.below(1000) as usize]]);
        }
        tx.publish();
        let max = random.below(8) as usize;
        self.moved[1] += self.device.1.fetch(&mut self.burst, max).unwrap() as u64;
        self.device.1.complete(&self.burst);
        self.device.1.publish();
        if random.one_in(4) && !self.device.1.arm() {
            self.device.1.disarm();
        }
    }

    /// Stops the rings and starts them again.
    fn restart(&mut self) {
        let [mut rx, mut tx] = self.setups.clone();
        (rx.next, tx.next) = (self.device.0.next(), self.device.1.next());
        self.device = (RxQueue::of(rx).unwrap(), TxQueue::of(tx).unwrap());
    }
}

fn used_part(setup: &RingSetup, memory: &DriverMemory) -> Part {
    let len = 4 + 8 * u64::from(setup.size) + 2 * u64::from(setup.features.event_idx);
    let spec = memory.spec();
    Part { guest: setup.used - spec.user_addr + spec.guest_phys, len }
}

/// Returns the buffers of a receive ring, all of which are with the device.
fn buffers(setup: &RingSetup, memory: &DriverMemory, map: &GuestMemoryMmap) -> Vec<Part> {
    let spec = memory.spec();
    let guest = |user: u64| user - spec.user_addr + spec.guest_phys;
    let mut parts = Vec::new();
    let mut tables = vec![(guest(setup.desc), u64::from(setup.size))];
    while let Some((at, count)) = tables.pop() {
        for i in 0..count {
            let [address, rest]: [u64; 2] = map.read_obj(GuestAddress(at + 16 * i)).unwrap();
            let (len, flags) = (rest & 0xffff_ffff, (rest >> 32) as u16);
            match flags {
                _ if len == 0 => {}
                4 => tables.push((address, len / 16)),
                _ => parts.push(Part { guest: address, len }),
            }
        }
    }
    parts
}

fn file_map(file: std::fs::File, start: u64, len: u64) -> GuestMemoryMmap {
    let range = (GuestAddress(start), len as usize, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).unwrap()
}

fn log_of(len: u64) -> (Arc<DirtyLog>, GuestMemoryMmap) {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(len).unwrap();
    let account = MemoryAccount::new(MemoryLimits::default(), None);
    let log = DirtyLog::map(&account, file.try_clone().unwrap(), 0, len).unwrap();
    (log, file_map(file, 0, len))
}

/// Makes a guest and its frontend.
fn migration(random: &mut Random) -> (Guest, Frontend, Vec<Part>) {
    let [rx_options, tx_options] = loop {
        let options = [random.options(), random.options()];
        let size = options.iter().map(DriverOptions::memory_size).sum();
        let memory = DriverMemory::new(size).unwrap();
        if DriverRx::new(&memory, options[0]).is_ok() && DriverTx::new(&memory, options[1]).is_ok()
        {
            break options;
        }
    };
    let memory = DriverMemory::new(rx_options.memory_size() + tx_options.memory_size()).unwrap();
    let mut rx = DriverRx::new(&memory, rx_options).unwrap();
    let tx = DriverTx::new(&memory, tx_options).unwrap();
    rx.refill();
    let spec = memory.spec();
    let log_len = (spec.guest_phys + spec.size).div_ceil(PAGE * 64) * 8;
    let (log, log_map) = log_of(log_len);
    let map = file_map(spec.file.try_clone().unwrap(), spec.guest_phys, spec.size);
    let mut setups = [rx.setup(memory.map()), tx.setup(memory.map())];
    let parts = setups.each_ref().map(|setup| used_part(setup, &memory));
    let is_apart = random.one_in(2);
    let used = [0, 1].map(|ring: usize| {
        let Part { guest, len } = parts[ring];
        let address = if is_apart { USED_LOG[ring] + guest % PAGE } else { guest };
        setups[ring].log = Some(LogAt { log: log.clone(), used: is_apart.then_some(address) });
        (address, Part { guest, len })
    });
    let written: Vec<_> = parts.into_iter().chain(buffers(&setups[0], &memory, &map)).collect();
    let mut copy = vec![0; spec.size as usize];
    map.read_slice(&mut copy, GuestAddress(spec.guest_phys)).unwrap();
    let frontend = Frontend { memory: map, log: log_map, start: spec.guest_phys, used, copy };
    let [rx_setup, tx_setup] = setups.clone();
    let device = (RxQueue::of(rx_setup).unwrap(), TxQueue::of(tx_setup).unwrap());
    let frame = (0..10_000).map(|i| i as u8).collect();
    let (driver, burst) = ((rx, tx), TxBurst::new());
    (Guest { driver, device, setups, burst, frame, moved: [0; 2] }, frontend, written)
}

#[test]
fn a_copy_made_by_the_log_is_whole() {
    let rounds = std::env::var("TRAMA_LOG_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let (mut moved, mut harvests) = ([0; 2], 0);
    for seed in 1..=SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut guest, frontend, written) = migration(&mut random);
        let sessions = rounds.div_ceil(SEEDS as usize * SESSION);
        harvests += migrate(&mut guest, frontend, &written, sessions, &mut random);
        moved = [moved[0] + guest.moved[0], moved[1] + guest.moved[1]];
    }
    println!("{rounds} bursts, {moved:?} frames received and sent, {harvests} harvests");
    assert!(moved.iter().all(|moved| *moved as usize > rounds / 4), "{moved:?}");
}

/// Runs that number of sessions; returns the number of harvests while the device ran.
fn migrate(
    guest: &mut Guest,
    frontend: Frontend,
    written: &[Part],
    sessions: usize,
    random: &mut Random,
) -> u64 {
    let frontend = Mutex::new(frontend);
    let (barrier, runs, failed) = (Barrier::new(2), AtomicBool::new(true), AtomicBool::new(false));
    let mut lost = None;
    let harvests = std::thread::scope(|scope| {
        let harvester = scope.spawn(|| {
            let mut harvests = 0;
            for _ in 0..sessions {
                barrier.wait();
                while runs.load(Ordering::SeqCst) {
                    frontend.lock().unwrap().harvest();
                    harvests += 1;
                }
                barrier.wait();
                if failed.load(Ordering::SeqCst) {
                    break;
                }
            }
            harvests
        });
        for session in 0..sessions {
            runs.store(true, Ordering::SeqCst);
            barrier.wait();
            (0..SESSION).for_each(|_| guest.round(random));
            runs.store(false, Ordering::SeqCst);
            let mut frontend = frontend.lock().unwrap();
            frontend.harvest();
            let missing = frontend.missing(written);
            if !missing.is_empty() {
                lost = Some(format!("session {session}: {missing:x?}"));
                failed.store(true, Ordering::SeqCst);
            }
            drop(frontend);
            barrier.wait();
            if lost.is_some() {
                break;
            }
            if random.one_in(8) {
                guest.restart();
            }
        }
        harvester.join().unwrap()
    });
    assert_eq!(lost, None, "not in the copy; {:?}", guest.setups[0]);
    harvests
}

#[test]
fn a_log_must_be_large_enough_and_stay() {
    let options = trama_options();
    let memory = DriverMemory::new(options.memory_size()).unwrap();
    let rx = DriverRx::new(&memory, options).unwrap();
    let spec = memory.spec();
    let needed = (spec.guest_phys + spec.size).div_ceil(8 * PAGE);
    let setup = |log: &Arc<DirtyLog>, used| RingSetup {
        log: Some(LogAt { log: log.clone(), used }),
        ..rx.setup(memory.map())
    };
    let (small, _) = log_of(needed - 1);
    let refused = small.check(&memory.map()).unwrap_err();
    assert!(matches!(refused, LogError::TooSmall { needed: n, .. } if n == needed));
    let error = |setup| RxQueue::<Logged>::of(setup).err();
    assert_eq!(error(setup(&small, Some(0))), Some(RingError::LogTooSmall));
    assert_eq!(error(rx.setup(memory.map())), Some(RingError::NoLog));
    let (log, _) = log_of(needed);
    let end = needed * 8 * PAGE;
    assert_eq!(error(setup(&log, Some(end))), Some(RingError::LogAddress(end)));
    assert_eq!(error(setup(&log, Some(u64::MAX))), Some(RingError::LogAddress(u64::MAX)));
    assert_eq!(error(setup(&log, None)), None);

    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(needed).unwrap();
    let account = MemoryAccount::new(MemoryLimits::default(), None);
    let map = |offset, size| DirtyLog::map(&account, file.try_clone().unwrap(), offset, size);
    assert!(matches!(map(0, 0), Err(LogError::Range { .. })));
    assert!(matches!(map(u64::MAX, 2), Err(LogError::Range { .. })));
    assert!(matches!(map(1, needed), Err(LogError::FileTooShort { .. })));
    let device = std::fs::File::open("/dev/zero").unwrap();
    assert!(matches!(DirtyLog::map(&account, device, 0, 8), Err(LogError::NotSharedMemory)));
    let log = map(0, needed).unwrap();
    let mut queue = TxQueue::<Logged>::of(setup(&log, None)).unwrap();
    assert_eq!(queue.pending(), Ok(0));
    file.set_len(0).unwrap();
    queue.disarm();
    assert_eq!(queue.pending(), Err(RingError::LogLost));
    assert!(!queue.memory_lost(), "the memory is untouched");
}

fn trama_options() -> DriverOptions {
    let features = RingFeatures { event_idx: true, ..RingFeatures::default() };
    DriverOptions { size: 16, features, shape: ChainShape::Single, buffer_size: 1612 }
}

/// Waits until the count of the other thread's steps is reached.
fn wait_for(steps: &AtomicU64, count: u64) {
    let (mut spins, start) = (0u32, Instant::now());
    while steps.load(Ordering::Acquire) < count {
        spins += 1;
        if spins.is_multiple_of(4096) {
            std::thread::yield_now();
            assert!(start.elapsed() < Duration::from_secs(20), "the other thread has failed");
        }
        std::hint::spin_loop();
    }
}

/// The page is marked already, and in each round the frontend harvests it in the moment in which
/// the device writes to it. It finds that moment by trying: earlier after a copy that had the
/// frame, later after one that had not. The number stands at the end of the frame, the last of the
/// stores that wait to become visible while the device loads the mark. Without the fence between
/// data and marks, processors of x86 lose the page in one of some thousand rounds.
#[test]
fn a_page_harvested_while_it_is_written_is_marked_again() {
    let rounds = std::env::var("TRAMA_LOG_ROUNDS");
    let rounds = rounds.map_or(ROUNDS as u64, |rounds| rounds.parse().unwrap());
    let features = RingFeatures::default();
    let options = DriverOptions { size: 2, features, shape: ChainShape::Single, buffer_size: 2048 };
    let memory = DriverMemory::new(options.memory_size()).unwrap();
    let mut rx = DriverRx::new(&memory, options).unwrap();
    rx.refill();
    let spec = memory.spec();
    let map = file_map(spec.file.try_clone().unwrap(), spec.guest_phys, spec.size);
    let (log, log_map) = log_of((spec.guest_phys + spec.size).div_ceil(64 * PAGE) * 8);
    let setup =
        RingSetup { log: Some(LogAt { log, used: Some(USED_LOG[0]) }), ..rx.setup(memory.map()) };
    // The device uses the buffers in turn, and both lie in the same page.
    let buffers = buffers(&setup, &memory, &map);
    let page = buffers[0].guest / PAGE;
    assert!(buffers.iter().all(|part| part.guest / PAGE == page), "{buffers:x?}");
    let slice = log_map.get_slice(GuestAddress(page / 64 * 8), 8).unwrap();
    let word = slice.get_atomic_ref::<AtomicU64>(0).unwrap();
    let bit = 1 << (page % 64);
    let mut queue = RxQueue::<Logged>::of(setup).unwrap();
    let (begun, written, copied) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let number_at = |round: u64| {
        let buffer = buffers[(round % 2) as usize].guest;
        map.read_obj::<u64>(GuestAddress(buffer + (HEADER_LEN + FRAME - 8) as u64)).unwrap()
    };
    let (mut remarked, mut delay) = (0, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; FRAME];
            for round in 0..rounds {
                bytes[FRAME - 8..].copy_from_slice(&round.to_le_bytes());
                wait_for(&begun, round + 1);
                // The load of the mark is not to wait for the frontend's store.
                std::hint::black_box(word.load(Ordering::Relaxed));
                queue.push(&[0; HEADER_LEN], &bytes[..], &[]).unwrap();
                queue.publish();
                written.store(round + 1, Ordering::Release);
                wait_for(&copied, round + 1);
                assert_eq!(rx.discard(1).unwrap(), 1);
                rx.refill();
            }
        });
        for round in 0..rounds {
            // The device's stores take longer to lines that are also in this processor's cache.
            map.read_slice(&mut [0; PAGE as usize], GuestAddress(page * PAGE)).unwrap();
            word.store(bit, Ordering::SeqCst);
            begun.store(round + 1, Ordering::Release);
            for step in 0..delay {
                std::hint::black_box(step);
            }
            assert!(word.swap(0, Ordering::SeqCst) & bit != 0);
            let copy = number_at(round);
            wait_for(&written, round + 1);
            let is_marked = word.load(Ordering::SeqCst) & bit != 0;
            remarked += u64::from(is_marked);
            let number = number_at(round);
            assert_eq!(number, round, "where the device writes");
            // After the last harvest there is no other chance.
            assert!(copy == number || is_marked, "round {round}: the copy has {copy}");
            let step = 1 + round % 8;
            delay = if copy == number { delay.saturating_sub(step) } else { delay + step };
            copied.store(round + 1, Ordering::Release);
        }
    });
    println!("{rounds} rounds, {remarked} times marked again");
    assert!((1..rounds).contains(&remarked), "{remarked} of {rounds}");
}
