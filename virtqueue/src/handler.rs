//! Installs handlers of signals.

use std::io;
use std::mem::MaybeUninit;

/// What the kernel calls: with the signal, what is known of it, and where the thread stood.
pub(crate) type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler; returns what was to be done before. A signal that comes before the caller
/// has noted that finds no previous handler.
///
/// It runs on the alternate stack that the standard library gives each thread, if it has one, so
/// that it also runs when the stack has overflowed, and leaves that stack to the library's own
/// handler.
///
/// # Errors
/// The system refuses (sigaction(2)).
pub(crate) fn install(signal: libc::c_int, handler: Handler) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both are valid for `sigaction` as zeroed memory with the relevant fields set. The
    // handler has the three-argument form required by SA_SIGINFO.
    unsafe {
        let fields = &mut *action.as_mut_ptr();
        fields.sa_sigaction = handler as usize;
        fields.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut fields.sa_mask);
        if libc::sigaction(signal, action.as_ptr(), previous.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(previous.assume_init())
    }
}
