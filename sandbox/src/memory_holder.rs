//! A process that shares this one's memory and outlives it, so that this one's end is seen at once.
//!
//! When the last process that uses some memory ends, the kernel first waits until no asynchronous
//! I/O of it is under way (io_setup(2)), which takes two grace periods of RCU: 40 ms on an idle
//! machine with two cores, 60 ms on a busy one, even if there was none. Only then does it close the
//! descriptors, by which others notice the end. With a holder it is the holder that waits.
//!
//! Whoever subverts the process can write to the holder's memory, too, and gains nothing: a filter
//! (seccomp(2)) lets the holder read from a pipe and exit, and no more. So it may be made before
//! the process is restricted. It ends when the pipe closes, and so with the process.
#![expect(unsafe_code, reason = "clone(2) with a stack of its own, and what its child does")]

use std::ffi::{CStr, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use seccompiler::BpfProgram;

use crate::{calls, kernel};

/// Bytes of its stack; it makes a few system calls.
const STACK: usize = 16 << 10;
/// Name in the list of processes.
const NAME: &CStr = c"trama:memory";

/// How long it may take to restrict itself.
const LIMIT: Duration = Duration::from_secs(1);

/// All that it may call: to wait, and to end.
const CALLS: [c_long; 2] = [libc::SYS_read, libc::SYS_exit];

/// Set by the holder when it is restricted.
static STATE: AtomicU32 = AtomicU32::new(STARTING);
const STARTING: u32 = 0;
const HOLDING: u32 = 1;
const REFUSED: u32 = 2;

/// Starts the holder of this process's memory, once for a process.
///
/// # Errors
/// The kernel refuses a process or its restriction; then none runs.
pub fn hold_memory() -> io::Result<()> {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    let filter = calls::only(&CALLS).map_err(io::Error::other)?;
    let own = Box::leak(Box::new(Own { pipe: reading.as_raw_fd(), filter }));
    let stack: &mut [MaybeUninit<u128>] = Box::leak(Box::new_uninit_slice(STACK / 16));
    let top = stack.as_mut_ptr_range().end.cast();
    let cloned = with_signals_blocked(|| {
        // SAFETY: the stack and `own` are the child's alone and never freed. `hold` shares the
        // memory, so it touches only these and `STATE`, and calls nothing that allocates or takes a
        // lock. Until `STATE` is set this thread calls nothing that sets `errno`, which they share.
        unsafe { libc::clone(hold, top, libc::CLONE_VM, (&raw mut *own).cast()) }
    })?;
    if cloned < 0 {
        return Err(io::Error::last_os_error());
    }
    let until = Instant::now() + LIMIT;
    while STATE.load(Ordering::Acquire) == STARTING && Instant::now() < until {
        std::thread::yield_now();
    }
    if STATE.load(Ordering::Acquire) != HOLDING {
        // It ends, as the pipe closes.
        return Err(io::Error::other("it cannot restrict itself"));
    }
    // It is open as long as this process is.
    let _ = writing.into_raw_fd();
    Ok(())
}

/// What the holder is given.
struct Own {
    pipe: RawFd,
    filter: BpfProgram,
}

/// The holder.
extern "C" fn hold(own: *mut c_void) -> c_int {
    let mut byte = 0u8;
    // SAFETY: its maker has leaked `own`; system calls on numbers, and on a string and a
    // byte that live.
    unsafe {
        let own = &*own.cast::<Own>();
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        let is_alone = libc::dup2(own.pipe, 0) == 0
            && libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && kernel::install_filter(&own.filter).is_ok();
        STATE.store(if is_alone { HOLDING } else { REFUSED }, Ordering::Release);
        if is_alone {
            libc::read(0, (&raw mut byte).cast(), 1);
        }
    }
    0
}

/// Signals are for the process, not for its holder, which keeps the mask it is made with.
fn with_signals_blocked<T>(run: impl FnOnce() -> T) -> io::Result<T> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both live, and the first call initialises the set that the second one reads.
    let refused = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    let result = run();
    // SAFETY: the call above has written the mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    Ok(result)
}
