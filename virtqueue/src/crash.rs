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
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lasting::Lasting;

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

static MARK: OnceLock<Lasting<CrashMark>> = OnceLock::new();
/// What was to be done before, by the place in [`SIGNALS`].
static PREVIOUS: [OnceLock<libc::sigaction>; SIGNALS.len()] =
    [const { OnceLock::new() }; SIGNALS.len()];

/// Has a crash of this process marked there, unless that was asked for before.
///
/// # Errors
/// The system refuses a handler (sigaction(2)).
pub(crate) fn mark_at(mark: Lasting<CrashMark>) -> io::Result<()> {
    if MARK.set(mark).is_err() {
        return Ok(());
    }
    for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        let _ = previous.set(install(signal)?);
    }
    Ok(())
}

fn install(signal: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both are valid for `sigaction` as zeroed memory with the relevant fields set. The
    // handler has the three-argument form required by SA_SIGINFO. With SA_ONSTACK it runs on the
    // alternate stack that the standard library gives each thread, if the stack has overflowed.
    unsafe {
        let fields = &mut *action.as_mut_ptr();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        fields.sa_sigaction = handler as usize;
        fields.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut fields.sa_mask);
        if libc::sigaction(signal, action.as_ptr(), previous.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(previous.assume_init())
    }
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
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
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
                return std::mem::transmute::<usize, WithInfo>(address)(signal, info, context);
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use super::*;
    use crate::lasting::LastingMemory;

    /// Names the case that a child process of a test carries out.
    const CASE: &str = "TRAMA_TEST_CRASH";

    /// Overflows the stack.
    #[expect(unconditional_recursion, reason = "until the stack is full")]
    fn recurse(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        recurse(depth + 1) + room[0]
    }

    #[test]
    fn a_case_in_a_process_of_its_own() {
        let Ok(case) = std::env::var(CASE) else { return };
        // The memory is standard input.
        let input = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        let memory = LastingMemory::open(&input).unwrap();
        crate::mark_crashes(memory.at(0, Arc::new(())).unwrap()).unwrap();
        let crash = move || match case.as_str() {
            "fault" => crash_for_a_test(),
            "abort" => std::process::abort(),
            "stack" => drop(recurse(0)),
            // SAFETY: takes no address.
            "sent" => drop(unsafe { libc::raise(libc::SIGSEGV) }),
            // SAFETY: takes no address.
            "sent bus" => drop(unsafe { libc::raise(libc::SIGBUS) }),
            // SAFETY: takes no address.
            "killed" => drop(unsafe { libc::raise(libc::SIGKILL) }),
            other => unreachable!("{other}"),
        };
        let _ = std::thread::spawn(crash).join();
        unreachable!("it goes on");
    }

    /// Runs a case; returns the signal that has ended it, and the mark.
    fn run(case: &str) -> (Option<i32>, u64, u64) {
        let (memory, file) = LastingMemory::create(size_of::<CrashMark>()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash::tests::a_case_in_a_process_of_its_own", "--nocapture"]);
        command.env(CASE, case).stdin(file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let process = u64::from(child.id());
        let status = child.wait().unwrap();
        let mark = memory.at::<CrashMark>(0, Arc::new(())).unwrap();
        let thread = mark.thread.load(Ordering::Relaxed);
        assert!(thread == 0 || thread > process, "a thread that is not the first one: {thread}");
        (status.signal(), mark.signal.load(Ordering::Relaxed), thread)
    }

    #[test]
    fn a_crash_is_marked_and_ends_the_process_as_ever() {
        for (case, ends, marked) in [
            ("fault", libc::SIGSEGV, libc::SIGSEGV),
            ("abort", libc::SIGABRT, libc::SIGABRT),
            ("stack", libc::SIGABRT, libc::SIGSEGV),
            ("sent", libc::SIGSEGV, libc::SIGSEGV),
            ("sent bus", libc::SIGBUS, libc::SIGBUS),
        ] {
            let (signal, mark, thread) = run(case);
            assert_eq!((signal, mark), (Some(ends), marked as u64), "{case}");
            assert!(thread != 0, "{case}");
        }
    }

    #[test]
    fn a_kill_leaves_no_mark() {
        assert_eq!(run("killed"), (Some(libc::SIGKILL), 0, 0));
    }
}
