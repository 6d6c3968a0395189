//! Watches named network namespaces: they come, go, or are created again under the same name.
//!
//! A name is a mount point below `/run/netns`, or a symbolic link there to a process's namespace.
//! The kernel reports both: poll on the list of mounts returns after each change (proc(5),
//! `/proc/pid/mounts`), and inotify reports changes of the folder. A thread waits for the two.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

const FOLDER: &str = "/run/netns";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Creating or deleting a namespace takes several changes; they are reported together.
const SETTLE: Duration = Duration::from_millis(100);

/// Writes to a stream when a name may have changed. Dropping it ends its thread.
pub(crate) struct NamespaceWatch {
    has_changed: Arc<AtomicBool>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl NamespaceWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub(crate) fn start(event: UnixStream) -> io::Result<NamespaceWatch> {
        let has_changed = Arc::<AtomicBool>::default();
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let watcher = Watcher {
            mounts: File::open(MOUNTS)?,
            folder: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            has_changed: has_changed.clone(),
            stop: stop.try_clone()?,
            event,
        };
        let thread = std::thread::Builder::new().name("namespaces".into());
        let thread = thread.spawn(move || watcher.run())?;
        Ok(NamespaceWatch { has_changed, stop, thread: Some(thread) })
    }

    /// Returns whether a name may have changed since the last call.
    pub(crate) fn take_change(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }
}

impl Drop for NamespaceWatch {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at namespaces ended by a panic");
        }
    }
}

struct Watcher {
    mounts: File,
    folder: OwnedFd,
    has_changed: Arc<AtomicBool>,
    stop: OwnedFd,
    event: UnixStream,
}

impl Watcher {
    fn run(mut self) {
        loop {
            self.watch_folder();
            if self.wait_for_change().is_break() || self.is_stopped_within(SETTLE) {
                return;
            }
            // Changes in the meantime are reported together.
            while rustix::io::read(&self.folder, &mut [0; 4096]).is_ok_and(|length| length > 0) {}
            self.has_changed.store(true, Ordering::Release);
            // A full buffer has woken the reader already.
            let _ = self.event.write(&[1]);
        }
    }

    /// Watches the folder, if it exists. The first `ip netns add` creates it and mounts something,
    /// which the list of mounts shows.
    fn watch_folder(&self) {
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let _ = inotify::add_watch(&self.folder, FOLDER, names | WatchFlags::ONLYDIR);
    }

    /// Waits for a change; breaks if the thread must stop.
    fn wait_for_change(&self) -> ControlFlow<()> {
        let mut waiting = [
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::new(&self.mounts, PollFlags::PRI),
            PollFd::new(&self.folder, PollFlags::IN),
        ];
        loop {
            match poll(&mut waiting, None) {
                Ok(_) if waiting[0].revents().is_empty() => return ControlFlow::Continue(()),
                Ok(_) => return ControlFlow::Break(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return ControlFlow::Break(()),
            }
        }
    }

    fn is_stopped_within(&self, time: Duration) -> bool {
        let Ok(limit) = Timespec::try_from(time) else { return true };
        let mut waiting = [PollFd::new(&self.stop, PollFlags::IN)];
        poll(&mut waiting, Some(&limit)).is_ok_and(|ready| ready > 0)
    }
}
