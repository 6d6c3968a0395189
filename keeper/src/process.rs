//! The keeper's process: what it gives up before it listens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use signal_hook::consts::SIGTERM;
use trama_sandbox::{
    Files, Mode, Process, drop_privileges, ignore_signals, restrict_calls, restrict_files,
};

use crate::server::Server;

/// How long the keeper waits for a switch while none is attached.
const LINGER: Duration = Duration::from_secs(30);

/// Runs the keeper on the listening socket that is standard input and the channel to the first
/// switch that is standard output, until a switch ends it or none is attached for 30 seconds.
///
/// # Errors
/// They are not such sockets, or the system fails the process.
pub fn run(mode: Mode) -> io::Result<()> {
    // The switch ends the keeper.
    ignore_signals(&[SIGTERM])?;
    // Its descriptors are guests' memory and the host's devices: no process may read them.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    let mut server = Server::new(listener, LINGER)?;
    server.connect(io::stdout().as_fd().try_clone_to_owned()?)?;
    // No other copy of it may be left, or the switch would not see the keeper close it.
    rustix::stdio::dup2_stdout(io::stderr())?;
    server.note_missing(confine(mode)?);
    server.run()
}

/// Serves switches that connect to a listening socket, in this process and with its privileges, as
/// [`run`] does; without one for `linger`, it ends. For tests.
///
/// # Errors
/// The system fails it.
pub fn serve(listener: OwnedFd, linger: Duration) -> io::Result<()> {
    Server::new(listener, linger)?.run()
}

/// Gives up all privileges, all files and all but a few system calls. Returns what is not in force.
///
/// # Errors
/// The capabilities cannot be dropped, which no kernel refuses.
pub fn confine(mode: Mode) -> io::Result<Vec<String>> {
    drop_privileges()?;
    let files = restrict_files(&Files::default(), mode).err();
    let calls = restrict_calls(Process::Keeper, mode).err();
    let missing = [files, calls].into_iter().flatten();
    Ok(missing.map(|missing| format!("{missing} (keeper)")).collect())
}
