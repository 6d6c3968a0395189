//! What the gateway's process gives up before it handles the first frame.
//!
//! First its rights, which takes nothing but the arguments that the process was started with. Then,
//! once the settings are there and before it starts a thread, all files and system calls that they
//! do not need.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use trama_sandbox::{
    Files, Missing, Mode, Process, become_user, drop_privileges, inherited_descriptor,
    restrict_calls, restrict_files, restrict_mounts,
};

use crate::dns::resolver_files::folders;

/// How a gateway's process is started: by its arguments.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options {
    /// The user and group that it runs as; `None` = those of the process that started it.
    pub user: Option<(u32, u32)>,
    /// Whether it has a mount namespace of its own.
    pub own_mounts: bool,
    /// The descriptor of the open folder of its leases; `None` = no address is leased.
    pub leases: Option<RawFd>,
    /// How strictly files and system calls are restricted.
    pub sandbox: Mode,
}

/// Confines the calling process as a gateway's. Returns the parts of the sandbox that are not in
/// force, each with the reason.
///
/// # Errors
///
/// User or privileges cannot be given up.
pub fn confine(options: Options) -> io::Result<Vec<String>> {
    let mut confinement = Confinement::begin(options)?;
    confinement.complete(None)?;
    Ok(confinement.take_missing())
}

/// What is restricted, and what is not.
pub(crate) struct Confinement {
    sandbox: Mode,
    /// The open folder of the leases.
    pub(crate) leases: Option<OwnedFd>,
    /// The folder of boot files, by device and inode.
    boot_folder: Option<(u64, u64)>,
    missing: Vec<String>,
}

impl Confinement {
    /// Gives up mounts, user and privileges.
    ///
    /// # Errors
    ///
    /// User or privileges cannot be given up, or a descriptor that is named is not open.
    pub(crate) fn begin(options: Options) -> io::Result<Confinement> {
        let leases = options.leases.map(inherited_descriptor).transpose()?;
        let mut this = Confinement {
            sandbox: options.sandbox,
            leases,
            boot_folder: None,
            missing: Vec::new(),
        };
        if options.own_mounts {
            this.note(restrict_mounts());
        }
        match options.user {
            Some((user, group)) => become_user(user, group)?,
            None => drop_privileges()?,
        }
        Ok(this)
    }

    /// Restricts files and system calls to what a gateway with this folder of boot files and these
    /// of the host's resolvers needs.
    ///
    /// # Errors
    ///
    /// The descriptor of the leases cannot be copied.
    pub(crate) fn complete(&mut self, tftp: Option<&Path>) -> io::Result<()> {
        self.boot_folder = identity(tftp);
        let leases = self.leases.as_ref().map(OwnedFd::try_clone).transpose()?;
        // For backtraces: the process's own program and where it is in memory.
        let program = std::env::current_exe().unwrap_or_default();
        let read = tftp.map(Path::to_owned).into_iter().chain(folders());
        let read = read.chain([program, "/proc/self/maps".into()]);
        let files = Files {
            read: read.map(Into::into).collect(),
            read_write: leases.into_iter().map(Into::into).collect(),
            tcp: true,
        };
        self.note(restrict_files(&files, self.sandbox));
        self.note(restrict_calls(Process::Gateway, self.sandbox));
        Ok(())
    }

    /// Whether the folder of boot files is another one than at the start, which this process may
    /// not read.
    pub(crate) fn has_other_boot_folder(&self, tftp: Option<&Path>) -> bool {
        identity(tftp) != self.boot_folder
    }

    fn note<T>(&mut self, result: Result<T, Missing>) {
        self.missing.extend(result.err().map(|missing| missing.to_string()));
    }

    /// Takes the parts that are not in force, each with the reason.
    pub(crate) fn take_missing(&mut self) -> Vec<String> {
        std::mem::take(&mut self.missing)
    }
}

/// Device and inode of a folder, if there is one.
fn identity(folder: Option<&Path>) -> Option<(u64, u64)> {
    let found = std::fs::metadata(folder?).ok()?;
    Some((found.dev(), found.ino()))
}
