//! A frontend that sends anything: afterwards as many files are open as before, as much memory is
//! in use, and the next frontend is served. Alone in its process, for the counts' sake.
#![cfg(test)]

use std::fs::{self, File};
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use trama_test_kit::requests::{
    ADD_MEM_REG, GET_FEATURES, GET_VRING_BASE, NET_SET_MTU, REM_MEM_REG, SET_FEATURES,
    SET_MEM_TABLE, SET_PROTOCOL_FEATURES, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL,
    SET_VRING_ENABLE, SET_VRING_KICK, SET_VRING_NUM, message, vring_state, words,
};
use trama_test_kit::{MockRings, RawFrontend, SharedMemory, eventfd, eventually};
use trama_vhost_net_backend::{Role, Session, SessionOptions, SessionState};

const MESSAGES: u32 = 100_000;

/// A small generator of pseudo-random numbers (xorshift64*, Marsaglia 2003 and Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Returns mostly numbers at the limits of fields.
    fn number(&mut self) -> u64 {
        let interesting = [0, 1, 2, 3, 255, 256, 4096, 65_535, 65_536, 1 << 20, 1 << 32, u64::MAX];
        if self.below(8) == 0 { self.next() } else { self.pick(&interesting) }
    }
}

/// Descriptors that a frontend may attach.
struct Attachments {
    memory: SharedMemory,
    event: OwnedFd,
    null: File,
}

impl Attachments {
    fn pick(&self, random: &mut Random) -> BorrowedFd<'_> {
        match random.below(8) {
            0 => self.null.as_fd(),
            1..4 => self.memory.file.as_fd(),
            _ => self.event.as_fd(),
        }
    }
}

/// A body that fits the request, with values that may be wrong.
fn body(request: u32, random: &mut Random, attachments: &Attachments) -> (Vec<u8>, usize) {
    let index = random.pick(&[0, 0, 0, 1, 1, 1, 2, 3, 255]);
    match request {
        SET_VRING_NUM => (vring_state(index, random.pick(&[0, 2, 3, 256, 256, 40_000])).into(), 0),
        SET_VRING_BASE | GET_VRING_BASE => (vring_state(index, random.number() as u32).into(), 0),
        SET_VRING_ENABLE => (vring_state(index, random.pick(&[0, 1, 1, 1, 2])).into(), 0),
        SET_VRING_ADDR if random.below(4) == 0 => {
            (words(&[u64::from(index), random.number(), random.number(), random.number(), 0]), 0)
        }
        SET_VRING_ADDR => (attachments.memory.ring(index), 0),
        SET_VRING_KICK | SET_VRING_CALL => {
            let without = random.below(4) == 0;
            (words(&[u64::from(index) | u64::from(without) << 8]), usize::from(!without))
        }
        SET_MEM_TABLE if random.below(3) == 0 => {
            let count = random.below(4);
            let numbers = (0..4 * count).map(|_| random.number()).collect::<Vec<_>>();
            (words(&[&[count], &numbers[..]].concat()), count as usize)
        }
        SET_MEM_TABLE => (attachments.memory.table(), 1),
        ADD_MEM_REG if random.below(3) == 0 => {
            (words(&[0, random.number(), random.number(), random.number(), random.number()]), 1)
        }
        ADD_MEM_REG => (attachments.memory.single(), 1),
        REM_MEM_REG => (attachments.memory.single(), 0),
        SET_FEATURES => (words(&[random.pick(&[0x1_7040_bb83, 0x1_0000_8000, 0, !0])]), 0),
        SET_PROTOCOL_FEATURES => (words(&[random.pick(&[0x8018, 0x8018, 0x8, 0, !0])]), 0),
        NET_SET_MTU => (words(&[random.number()]), 0),
        _ => (Vec::new(), 0),
    }
}

/// Sends one message; returns whether the connection is still open.
fn send_random_message(
    frontend: &RawFrontend,
    random: &mut Random,
    attachments: &Attachments,
) -> bool {
    let known = random.below(45) as u32;
    let likely = [1, 2, 5, 8, 9, 10, 11, 12, 13, 15, 16, 18, 20, 37, 38];
    let request = if random.below(4) == 0 { known } else { random.pick(&likely) };
    let (body, expected) = body(request, random, attachments);
    let count = match random.below(24) {
        0 => random.below(4) as usize,
        1 => random.pick(&[32, 33, 64, 253]),
        _ => expected,
    };
    let fds: Vec<_> = (0..count).map(|_| attachments.pick(random)).collect();
    let wrong = random.below(16) == 0;
    let flags = if wrong { random.pick(&[0, 5, 13, 0xffff_ffff]) } else { random.pick(&[1, 9]) };
    let mut bytes = message(request, flags, &body);
    let whole = match random.below(24) {
        0 => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            false
        }
        1 => {
            bytes.truncate(1 + random.below(bytes.len() as u64) as usize);
            false
        }
        2 => {
            bytes = (0..1 + random.below(64)).map(|_| random.next() as u8).collect();
            false
        }
        // More than fit in one message are cut off along with the place in the stream.
        _ => count <= 32,
    };
    if !frontend.send_raw(&bytes, &fds) {
        return false;
    }
    if whole {
        // Its reply shows that all messages before it have been handled.
        return frontend.send(GET_FEATURES, 1, &[], &[]) && is_answered(frontend);
    }
    let _ = frontend.stream.shutdown(Shutdown::Write);
    let _ = (&frontend.stream).read_to_end(&mut Vec::new());
    false
}

/// Reads replies up to that of GET_FEATURES. Returns `false` if the connection is closed.
fn is_answered(frontend: &RawFrontend) -> bool {
    loop {
        let mut header = [0; 12];
        if (&frontend.stream).read_exact(&mut header).is_err() {
            return false;
        }
        let [request, _, size] =
            [0, 4, 8].map(|at| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap()));
        if (&frontend.stream).read_exact(&mut vec![0; size as usize]).is_err() {
            return false;
        }
        if request == GET_FEATURES {
            return true;
        }
    }
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Connects repeatedly until `count` messages have been sent.
fn send_random_messages(
    count: u32,
    path: &Path,
    rings: &MockRings,
    random: &mut Random,
    attachments: &Attachments,
) {
    let mut sent = 0;
    while sent < count {
        let frontend = RawFrontend::connect(path);
        // The record of calls is this test's memory, not the session's.
        rings.log();
        // Half of them behave for a while, so that rings run when the rest arrives.
        if random.below(2) == 0 {
            frontend.share_memory(&attachments.memory);
            for ring in 0..2 {
                frontend.describe_ring(ring, &attachments.memory, &attachments.event);
                frontend.vring(SET_VRING_ENABLE, ring, 1);
            }
        }
        for _ in 0..64 {
            sent += 1;
            if !send_random_message(&frontend, random, attachments) {
                break;
            }
        }
    }
}

#[test]
fn random_messages_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let rings = MockRings::new();
    let unpaced =
        SessionOptions { spacing: Duration::ZERO, ..SessionOptions::new(&path, Role::Server) };
    let session = Session::spawn(unpaced, rings.clone()).unwrap();
    let mut random = Random(0x7261_6d61);
    let memory = SharedMemory::new(0, 0x7f00_0000_0000, 1 << 20);
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let attachments = Attachments { memory, event: eventfd(), null };
    let settle = || {
        RawFrontend::connect(&path).negotiate();
        let idle = || session.status().state == SessionState::Listening;
        eventually("the last connection is gone", idle);
        rings.log();
        (open_files(), resident())
    };

    send_random_messages(MESSAGES / 10, &path, &rings, &mut random, &attachments);
    let (files, kibibytes) = settle();
    send_random_messages(MESSAGES, &path, &rings, &mut random, &attachments);
    let (files_after, kibibytes_after) = settle();
    let connections = session.status().connects;
    println!(
        "{connections} connections, {files} open files, {kibibytes} KiB, later {kibibytes_after}"
    );
    assert_eq!(files_after, files);
    assert!(kibibytes_after < kibibytes + 1024, "{kibibytes} KiB grew to {kibibytes_after}");
    assert!(connections > u64::from(MESSAGES) / 100, "the messages did not arrive");
}

#[test]
fn requests_beyond_a_burst_are_served_at_a_pace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _session =
        Session::spawn(SessionOptions::new(&path, Role::Server), MockRings::new()).unwrap();
    let frontend = RawFrontend::connect(&path);
    let ask = |count: u32| {
        let began = Instant::now();
        for _ in 0..count {
            frontend.send(GET_FEATURES, 1, &[], &[]);
            frontend.reply().unwrap();
        }
        began.elapsed()
    };
    // The first pair of rings and the device itself are set up without a wait.
    let _burst = ask(2 * 64);
    let paced = ask(100);
    assert!(paced >= Duration::from_millis(190), "100 requests in {paced:?}");
}
