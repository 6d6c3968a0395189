//! What the web process gives up before it reads the first byte of a browser.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use trama_sandbox::{
    Files, Missing, Mode, Process, become_user, drop_privileges, restrict_calls, restrict_files,
    restrict_mounts,
};

/// How the web process is started: by its arguments.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options {
    /// The user and group that it runs as; `None` = those of the process that started it.
    pub user: Option<(u32, u32)>,
    /// Whether it has a mount namespace of its own.
    pub own_mounts: bool,
    /// How strictly files and system calls are restricted.
    pub sandbox: Mode,
}

/// Gives up mounts, user, privileges, all files and all but some system calls. The process has its
/// sockets already, and no further one can be made but pairs. Returns the parts that are not in
/// force, each with the reason.
///
/// # Errors
/// User or privileges cannot be given up.
pub fn confine(options: Options) -> io::Result<Vec<String>> {
    let mounts = options.own_mounts.then(restrict_mounts).and_then(Result::err);
    match options.user {
        Some((user, group)) => become_user(user, group)?,
        None => drop_privileges()?,
    }
    // Its memory has the key that sessions are signed with.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let files = restrict_files(&Files::default(), options.sandbox).err();
    let calls = restrict_calls(Process::Web, options.sandbox).err();
    let missing: [Option<Missing>; 3] = [mounts, files, calls];
    Ok(missing.into_iter().flatten().map(|missing| missing.to_string()).collect())
}
