//! How much memory the process has left for pages that frontends make it populate.
//!
//! It is 90 % of the limit of the process's control group less its use, for the group and each
//! group above it, and at most what the host has available less 5 % of its memory. Pages are taken
//! from it by a signal handler, at the moment that they are needed. The figure is read again when a
//! page is taken 100 ms or more after the last reading, so a process that populates nothing reads
//! nothing and never wakes up. The files are open beforehand; reading them is a plain system call.
//!
//! Towards the end, only frontends that have had no more than the mean are served. While more than
//! half is left, the past is forgotten.

use std::fs;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a page that is added to a file.
pub(crate) const PAGE: u64 = 4096;

/// Milliseconds between two readings.
const INTERVAL: u64 = 100;
/// Milliseconds between two readings while little or nothing is left: what else the process
/// allocates meanwhile must not pass the limit.
const SHORT_INTERVAL: u64 = 5;
/// Most control groups that are looked at: the process's own, and those above it.
const LEVELS: usize = 8;
/// Most turns that a thread waits for another one that reads.
const TURNS: usize = 10_000;

/// Pages left at the last reading, less those taken since.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// Whether less than 10 % of a limit was left.
static IS_SHORT: AtomicBool = AtomicBool::new(false);
/// How often more than half was left at a reading; never 0.
static EPOCH: AtomicU64 = AtomicU64::new(1);
/// When the figure was last read, in milliseconds of the monotonic clock.
static READ_AT: AtomicU64 = AtomicU64::new(0);

/// Takes one page. Only makes system calls, and so may be called by a signal handler.
pub(crate) fn take(is_above_mean: impl Fn() -> bool) -> bool {
    let age = now().saturating_sub(READ_AT.load(Ordering::Relaxed));
    let interval = if IS_SHORT.load(Ordering::Relaxed) { SHORT_INTERVAL } else { INTERVAL };
    if age >= interval {
        read_if_free();
    }
    if take_left(&is_above_mean) {
        return true;
    }
    (age >= SHORT_INTERVAL && read_now()) && take_left(&is_above_mean)
}

fn take_left(is_above_mean: impl Fn() -> bool) -> bool {
    if IS_SHORT.load(Ordering::Relaxed) && is_above_mean() {
        return false;
    }
    let was_left = LEFT.fetch_sub(1, Ordering::Relaxed) > 0;
    if !was_left {
        LEFT.fetch_add(1, Ordering::Relaxed);
    }
    was_left
}

/// Returns the number of the time since more than half was left. What happened in another one is
/// forgotten.
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Returns the bytes of memory that the host has.
pub(crate) fn host_memory() -> u64 {
    static TOTAL: OnceLock<u64> = OnceLock::new();
    *TOTAL.get_or_init(|| {
        // SAFETY: all zeroes is a valid value, and the call fills in the one that it is given.
        let info = unsafe {
            let mut info: libc::sysinfo = std::mem::zeroed();
            libc::sysinfo(&raw mut info);
            info
        };
        // The types differ between processors.
        #[allow(clippy::useless_conversion, reason = "c_ulong has 32 bits on some processors")]
        u64::from(info.totalram).saturating_mul(info.mem_unit.into())
    })
}

/// Milliseconds of the monotonic clock, never 0.
fn now() -> u64 {
    // SAFETY: all zeroes is a valid time, and the call writes the one that it is given.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time);
        time
    };
    // Later than any reading that never took place.
    INTERVAL + time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The open files of one control group.
struct Level {
    limit: AtomicI32,
    usage: AtomicI32,
    stat: AtomicI32,
}

/// The open files. They and [`BUFFER`] belong to the thread that has set [`BUSY`].
struct Files {
    levels: [Level; LEVELS],
    host: AtomicI32,
}

const CLOSED: i32 = -1;
static FILES: Files = Files {
    levels: [const {
        Level {
            limit: AtomicI32::new(CLOSED),
            usage: AtomicI32::new(CLOSED),
            stat: AtomicI32::new(CLOSED),
        }
    }; LEVELS],
    host: AtomicI32::new(CLOSED),
};
static BUSY: AtomicBool = AtomicBool::new(false);

/// Where files are read to: the stack of a signal handler is small.
struct Buffer(std::cell::UnsafeCell<[u8; 8192]>);
// SAFETY: only the thread that has set `BUSY` uses it.
unsafe impl Sync for Buffer {}
static BUFFER: Buffer = Buffer(std::cell::UnsafeCell::new([0; 8192]));

/// Reads the figure unless another thread does.
fn read_if_free() {
    if !BUSY.swap(true, Ordering::Acquire) {
        read();
        BUSY.store(false, Ordering::Release);
    }
}

/// Reads the figure, or waits until another thread has done so. Returns `false` if that takes too
/// long.
fn read_now() -> bool {
    let before = READ_AT.load(Ordering::Relaxed);
    for _ in 0..TURNS {
        if !BUSY.swap(true, Ordering::Acquire) {
            read();
            BUSY.store(false, Ordering::Release);
            return true;
        }
        // SAFETY: a plain system call.
        unsafe { libc::sched_yield() };
        if READ_AT.load(Ordering::Relaxed) != before {
            return true;
        }
    }
    false
}

fn read() {
    let Room { bytes, is_short, is_ample } = {
        // SAFETY: this thread has set `BUSY`.
        let buffer = unsafe { &mut *BUFFER.0.get() };
        room(&FILES, buffer)
    };
    LEFT.store((bytes / PAGE) as i64, Ordering::Relaxed);
    IS_SHORT.store(is_short, Ordering::Relaxed);
    if is_ample {
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }
    READ_AT.store(now(), Ordering::Relaxed);
}

/// What is left of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    bytes: u64,
    /// Less than a tenth of the limit (a twentieth of the host's memory).
    is_short: bool,
    /// More than half of it.
    is_ample: bool,
}

/// Without any file to read, nothing is limited.
const UNKNOWN: Room = Room { bytes: i64::MAX as u64, is_short: false, is_ample: true };

fn room(files: &Files, buffer: &mut [u8]) -> Room {
    let levels = files.levels.iter().filter_map(|level| level.room(buffer));
    let least = levels.fold(UNKNOWN, Room::least);
    let host = read_file(&files.host, buffer).and_then(of_host);
    host.map_or(least, |host| least.least(host))
}

impl Room {
    fn least(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.min(other.bytes),
            is_short: self.is_short || other.is_short,
            is_ample: self.is_ample && other.is_ample,
        }
    }

    /// What is left of `limit`, of which `kept` bytes are not given out.
    fn of(limit: u64, kept: u64, used: u64) -> Room {
        let bytes = (limit - kept).saturating_sub(used);
        Room { bytes, is_short: bytes < limit / 10, is_ample: bytes > limit / 2 }
    }
}

impl Level {
    fn room(&self, buffer: &mut [u8]) -> Option<Room> {
        // A group of version 2 without a limit has the word `max`, one of version 1 a number that
        // no host reaches.
        let limit = read_file(&self.limit, buffer).and_then(number)?;
        if limit > host_memory() {
            return None;
        }
        let used = read_file(&self.usage, buffer).and_then(number)?;
        let room = Room::of(limit, limit / 10, used);
        if !room.is_short {
            return Some(room);
        }
        // Cached files that have not been used lately give way to other pages.
        let stat = read_file(&self.stat, buffer);
        let cached = stat.and_then(|text| {
            field(text, b"total_inactive_file ").or_else(|| field(text, b"inactive_file "))
        });
        Some(Room::of(limit, limit / 10, used.saturating_sub(cached.unwrap_or(0))))
    }
}

/// What the host has available, from `/proc/meminfo`, in KiB there.
fn of_host(text: &[u8]) -> Option<Room> {
    let total = field(text, b"MemTotal:")? * 1024;
    let available = field(text, b"MemAvailable:")? * 1024;
    let kept = total / 20;
    let bytes = available.saturating_sub(kept);
    Some(Room { bytes, is_short: bytes < kept, is_ample: bytes > total / 2 })
}

fn read_file<'a>(file: &AtomicI32, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = file.load(Ordering::Relaxed);
    if fd == CLOSED {
        return None;
    }
    // SAFETY: the kernel writes at most the buffer's length into it.
    let len = unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(len).ok().map(|len| &buffer[..len])
}

/// The number that a text begins with, after spaces.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = None;
    for digit in digits {
        value =
            Some(value.unwrap_or(0u64).saturating_mul(10).saturating_add((digit - b'0').into()));
    }
    value
}

/// The number behind `key` at the start of a line.
fn field(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| number(line.strip_prefix(key)?))
}

/// Opens the files, and again after the process was moved to another control group. Mapping a
/// frontend's memory does it. Files that cannot be opened set no limit; if the group is not told,
/// the files that are open stay.
pub(crate) fn open() {
    static GROUP: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let mut last = GROUP.lock().unwrap_or_else(PoisonError::into_inner);
    let group = fs::read("/proc/self/cgroup").or_else(|error| last.clone().ok_or(error));
    let group = group.unwrap_or_default();
    if last.as_ref() == Some(&group) {
        return;
    }
    let mut levels = [[CLOSED; 3]; LEVELS];
    for (level, (folder, names)) in levels.iter_mut().zip(folders(&group)) {
        *level = names.map(|name| open_file(&folder.join(name)));
    }
    exchange(levels, open_file(Path::new("/proc/meminfo")));
    *last = Some(group);
}

/// Puts new files in place of the old ones, which are closed.
fn exchange(levels: [[i32; 3]; LEVELS], host: i32) {
    while BUSY.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    let mut old = Vec::with_capacity(3 * LEVELS + 1);
    for (level, [limit, usage, stat]) in FILES.levels.iter().zip(levels) {
        old.push(level.limit.swap(limit, Ordering::Relaxed));
        old.push(level.usage.swap(usage, Ordering::Relaxed));
        old.push(level.stat.swap(stat, Ordering::Relaxed));
    }
    old.push(FILES.host.swap(host, Ordering::Relaxed));
    READ_AT.store(0, Ordering::Relaxed);
    BUSY.store(false, Ordering::Release);
    for fd in old.into_iter().filter(|fd| *fd != CLOSED) {
        // SAFETY: the descriptor was made by `open_file`, and no longer has another owner.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

fn open_file(path: &Path) -> i32 {
    fs::File::open(path).map_or(CLOSED, IntoRawFd::into_raw_fd)
}

/// The folders of the process's own memory control group and those above it, with the names of the
/// files for limit, use and statistics.
fn folders(group: &[u8]) -> Vec<(PathBuf, [&'static str; 3])> {
    const V1: [&str; 3] = ["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"];
    const V2: [&str; 3] = ["memory.max", "memory.current", "memory.stat"];
    let mut folders = Vec::new();
    for line in group.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            b"" => ("/sys/fs/cgroup", V2),
            _ if controllers.split(|byte| *byte == b',').any(|name| name == b"memory") => {
                ("/sys/fs/cgroup/memory", V1)
            }
            _ => continue,
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        for above in path.ancestors() {
            let below_root = above.strip_prefix("/").unwrap_or(above);
            let folder = Path::new(root).join(below_root);
            if folder.join(names[0]).exists() {
                folders.push((folder, names));
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(text: &str) -> AtomicI32 {
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(&path, text).unwrap();
        AtomicI32::new(open_file(path.path()))
    }

    fn level(limit: &str, usage: u64, stat: &str) -> Level {
        Level { limit: file(limit), usage: file(&format!("{usage}\n")), stat: file(stat) }
    }

    fn room_of(limit: &str, usage: u64, stat: &str) -> Option<Room> {
        level(limit, usage, stat).room(&mut [0; 8192])
    }

    #[test]
    fn a_tenth_of_a_limit_is_kept() {
        let at = |used: u64| room_of("209715200\n", used * MIB, "").unwrap();
        assert_eq!(at(0), Room { bytes: 180 * MIB, is_short: false, is_ample: true });
        assert_eq!(at(159), Room { bytes: 21 * MIB, is_short: false, is_ample: false });
        assert_eq!(at(161), Room { bytes: 19 * MIB, is_short: true, is_ample: false });
        assert_eq!(at(190), Room { bytes: 0, is_short: true, is_ample: false });
    }

    #[test]
    fn cached_files_count_as_room() {
        let used = 185 * MIB;
        let v2 = format!("anon 5\ninactive_file {}\nactive_file 7\n", 100 * MIB);
        assert_eq!(room_of("209715200", used, &v2).unwrap().bytes, 95 * MIB);
        let v1 = format!("inactive_file 0\ntotal_inactive_file {}\n", 50 * MIB);
        assert_eq!(room_of("209715200", used, &v1).unwrap().bytes, 45 * MIB);
    }

    #[test]
    fn no_limit_and_unreadable_files_limit_nothing() {
        assert_eq!(room_of("max\n", MIB, ""), None);
        assert_eq!(room_of("9223372036854771712\n", MIB, ""), None);
        let closed = || AtomicI32::new(CLOSED);
        let nothing = Level { limit: closed(), usage: closed(), stat: closed() };
        assert_eq!(nothing.room(&mut [0; 64]), None);
    }

    #[test]
    fn the_host_keeps_a_twentieth() {
        let text =
            |available: u64| format!("MemTotal:  1024000 kB\nMemAvailable: {available} kB\n");
        let at = |available| of_host(text(available).as_bytes()).unwrap();
        assert_eq!(at(151_200), Room { bytes: 100_000 * 1024, is_short: false, is_ample: false });
        assert_eq!(at(102_399).bytes, 51_199 * 1024);
        assert!(at(102_399).is_short);
        assert_eq!(at(10), Room { bytes: 0, is_short: true, is_ample: false });
    }

    #[test]
    fn this_process_has_room() {
        open();
        assert!(take(|| true));
        assert!(LEFT.load(Ordering::Relaxed) > 0);
        assert!(host_memory() > 64 * MIB);
    }

    #[test]
    fn groups_of_both_versions_are_found() {
        let found = folders(b"4:memory:/nowhere/at/all\n3:cpu:/x\n0::/not/there\n");
        let below = |(folder, _): &(PathBuf, _)| folder.starts_with("/sys/fs/cgroup");
        assert!(found.iter().all(below), "{found:?}");
        let at_root = found.iter().any(|(folder, _)| folder.ends_with("cgroup/memory"));
        assert_eq!(at_root, Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists());
    }
}
