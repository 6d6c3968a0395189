//! Network namespaces by name or path, and work inside one.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Directory of named network namespaces.
const NAMESPACES: &str = "/run/netns";

/// A network namespace, independent of its name. While it exists, no other is equal to it: a device
/// inside keeps it alive, even after its name is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceId {
    /// The device of its file.
    pub device: u64,
    /// The inode of its file.
    pub inode: u64,
}

impl NamespaceId {
    /// Returns the namespace that has this name or path now.
    ///
    /// # Errors
    /// The name does not exist, or the process may not look at it.
    pub fn of(netns: &str) -> io::Result<NamespaceId> {
        std::fs::metadata(&*path(netns)).map(NamespaceId::from)
    }
}

impl From<Metadata> for NamespaceId {
    fn from(file: Metadata) -> NamespaceId {
        NamespaceId { device: file.dev(), inode: file.ino() }
    }
}

/// Why a namespace cannot be entered: the failed step and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}; {remedy}")]
pub struct NamespaceError {
    /// The step.
    pub step: String,
    /// The system's error.
    pub error: io::Error,
    /// What to do about it.
    pub remedy: &'static str,
}

fn path(netns: &str) -> Cow<'_, str> {
    match netns.starts_with('/') {
        true => Cow::Borrowed(netns),
        false => Cow::Owned(format!("{NAMESPACES}/{netns}")),
    }
}

/// Runs `job` on a thread inside a network namespace, given by its name or an absolute path; also
/// returns which one it was. What the job opens works from any namespace.
///
/// # Errors
/// The namespace cannot be entered, or the job fails.
pub fn in_namespace<R: Send, E: From<NamespaceError> + Send>(
    netns: &str,
    job: impl FnOnce() -> Result<R, E> + Send,
) -> Result<(R, NamespaceId), E> {
    let (namespace, id) = open(netns)?;
    on_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| cannot_enter(netns, error.into()))?;
        Ok((job()?, id))
    })
}

/// Runs `job` on a thread of its own, which may leave the process's namespaces.
pub(crate) fn on_thread<R: Send, E: From<NamespaceError> + Send>(
    job: impl FnOnce() -> Result<R, E> + Send,
) -> Result<R, E> {
    std::thread::scope(|scope| {
        let failed = |error| NamespaceError {
            step: "work inside a network namespace".to_owned(),
            error,
            remedy: "see the log",
        };
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, job)
            .map_err(failed)?;
        let panicked = || failed(io::Error::other("the thread panicked"));
        thread.join().unwrap_or_else(|_| Err(panicked().into()))
    })
}

/// Opens a network namespace, given by its name or an absolute path.
pub(crate) fn open(netns: &str) -> Result<(File, NamespaceId), NamespaceError> {
    let is_name = !netns.is_empty() && !netns.contains('/') && !netns.starts_with('.');
    if !is_name && !netns.starts_with('/') {
        return Err(NamespaceError {
            step: format!("network namespace {netns:?}"),
            error: io::ErrorKind::InvalidInput.into(),
            remedy: "give a name as `ip netns list` shows it, or an absolute path",
        });
    }
    let path = path(netns);
    let opened = File::open(&*path).and_then(|file| Ok((file.metadata()?.into(), file)));
    let (id, file) = opened.map_err(|error| NamespaceError {
        step: format!("open network namespace {path}"),
        error,
        remedy: match is_name {
            true => "create it first with `ip netns add`",
            false => "the path must lead to a namespace, as /proc/PID/ns/net does",
        },
    })?;
    Ok((file, id))
}

fn cannot_enter(netns: &str, error: io::Error) -> NamespaceError {
    let remedy = match error.raw_os_error() {
        // Left by `ip netns add` before it mounts the namespace, and by a reboot of the host.
        Some(libc::EINVAL) if netns.starts_with('/') => "the file is not a network namespace",
        Some(libc::EINVAL) => {
            "the file is not a network namespace; run `ip netns del`, then `ip netns add`"
        }
        _ => "run with CAP_SYS_ADMIN",
    };
    NamespaceError { step: format!("enter network namespace {netns}"), error, remedy }
}
