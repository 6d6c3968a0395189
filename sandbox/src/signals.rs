//! Signals that a process leaves to the one that started it.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1, SIGUSR2};

/// Ignores signals that are sent to many processes at once, such as a reload, or a terminal's
/// hang-up or interrupt: they are for the daemon, which ends its processes in order. `also` are
/// further signals to ignore. The runtime ignores SIGPIPE.
///
/// # Errors
/// A signal cannot be ignored.
pub fn ignore_signals(also: &[i32]) -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGUSR1, SIGUSR2].iter().chain(also) {
        // A handler, because ignoring a signal takes `unsafe`; the flag is not read.
        signal_hook::flag::register(*signal, Arc::default())?;
    }
    Ok(())
}
