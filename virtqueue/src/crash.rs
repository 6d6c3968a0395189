//! Marks the process as crashed, in memory that outlives it.
//!
//! Who reads that memory later can tell a crash from a process that was killed, also if it is not
//! its parent, and knows the thread. The mark is made by a handler of the signals by which a crash
//! ends a process. It takes no lock and allocates nothing: two stores, after which the process ends
//! as it would have without it. The report of an overflowed stack, by the handler of the standard
//! library, is still made.
//!
//! SIGBUS belongs to `sigbus`, which passes on here what is not a guest's doing. SIGSYS
//! has no handler: a filter that lets one run is for tests, where the process exits.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::handler::{self, Handler};

/// The signals that end a process by a crash, but for SIGBUS.
const SIGNALS: [libc::c_int; 4] = [libc::SIGSEGV, libc::SIGABRT, libc::SIGILL, libc::SIGFPE];

crate::atomic_words! {
    /// What is known of a crash.
    #[derive(Default)]
    pub struct CrashMark {
        /// The thread that has crashed, or that took a signal that was sent to the process; 0 if
        /// the process has not crashed. Written before the signal.
        pub thread: AtomicU64,
        /// The signal's number.
        pub signal: AtomicU64,
    }
}

static MARK: OnceLock<&'static CrashMark> = OnceLock::new();
/// What was to be done before, by the place in [`SIGNALS`].
static PREVIOUS: [OnceLock<libc::sigaction>; SIGNALS.len()] =
    [const { OnceLock::new() }; SIGNALS.len()];

/// Has a crash of this process marked there, unless that was asked for before.
///
/// # Errors
/// The system refuses a handler (sigaction(2)).
pub(crate) fn mark_at(mark: &'static CrashMark) -> io::Result<()> {
    if MARK.set(mark).is_err() {
        return Ok(());
    }
    for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        let _ = previous.set(handler::install(signal, handle)?);
    }
    Ok(())
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let place = SIGNALS.iter().position(|known| *known == signal);
    let previous = place.and_then(|place| PREVIOUS[place].get());
    end(signal, info, context, previous);
}

/// Marks the crash, if that is wanted, and lets the process end by the signal. `previous` is what
/// was to be done before.
pub(crate) fn end(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    previous: Option<&libc::sigaction>,
) {
    type Plain = extern "C" fn(libc::c_int);
    if let Some(mark) = MARK.get() {
        // SAFETY: takes no argument.
        let thread = unsafe { libc::gettid() } as u64;
        let first = mark.thread.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            mark.signal.store(signal as u64, Ordering::Relaxed);
        }
    }
    let (address, flags) = previous.map_or((libc::SIG_DFL, 0), |it| (it.sa_sigaction, it.sa_flags));
    // SAFETY: the kernel passes a valid siginfo. It would have called this address with these
    // arguments, in the form given by its flags. Without such a handler the default action is
    // restored: a fault is repeated on return, and a signal that was sent is sent again.
    unsafe {
        let is_fault = (*info).si_code > 0;
        match address {
            libc::SIG_DFL | libc::SIG_IGN => {}
            address if is_fault && flags & libc::SA_SIGINFO != 0 => {
                return std::mem::transmute::<usize, Handler>(address)(signal, info, context);
            }
            address if is_fault => {
                return std::mem::transmute::<usize, Plain>(address)(signal);
            }
            // The standard library's handler lets the first signal pass that is not a fault.
            _ => {}
        }
        libc::signal(signal, libc::SIG_DFL);
        if !is_fault {
            libc::raise(signal);
        }
    }
}

/// Crashes by SIGSEGV, for tests of programs: it is only in builds with debug assertions.
#[doc(hidden)]
#[cfg(debug_assertions)]
pub fn crash_for_a_test() {
    // SAFETY: nothing is mapped there or ever will be, so the kernel ends the process.
    unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) }
}
