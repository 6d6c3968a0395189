//! The thread of all exports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::session::Session;
use super::{Protocol, lock};
use crate::state::Daemon;

/// Time between two looks at queues that do not wake the thread.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Time between two looks for changes of ports and settings.
const FOLLOW: Duration = Duration::from_millis(500);

/// Starts the thread.
///
/// # Errors
/// The system is out of threads.
pub fn start(daemon: &Arc<Daemon>) -> io::Result<()> {
    let exporting = Exporting { daemon: daemon.clone(), sessions: Vec::new(), is_wanted: false };
    let thread = thread::Builder::new().name("export".to_owned()).spawn(move || exporting.run())?;
    *lock(&daemon.exports.thread) = Some(thread);
    // A change before that has woken nothing.
    daemon.exports.wake();
    Ok(())
}

struct Exporting {
    daemon: Arc<Daemon>,
    sessions: Vec<Session>,
    /// Whether any export is configured.
    is_wanted: bool,
}

impl Exporting {
    fn run(mut self) {
        let mut followed: Option<Instant> = None;
        while !self.daemon.exports.is_ending.load(Ordering::Relaxed) {
            if followed.is_none_or(|at| at.elapsed() >= FOLLOW) {
                self.follow();
                followed = Some(Instant::now());
            }
            if self.sessions.is_empty() {
                match self.is_wanted {
                    // What is configured does not run yet.
                    true => thread::park_timeout(FOLLOW),
                    false => thread::park(),
                }
                followed = None;
                continue;
            }
            let mut has_more = false;
            for session in &mut self.sessions {
                has_more |= session.work();
            }
            if !has_more {
                self.wait();
            }
        }
        self.sessions.drain(..).for_each(Session::end);
    }

    /// Begins, changes and ends sessions as it is configured.
    fn follow(&mut self) {
        let exported = self.daemon.exported();
        self.is_wanted = exported.is_some();
        let exported = exported.unwrap_or_default();
        let wanted = |session: &Session| exported.iter().any(|network| session.is_of(network));
        let (kept, gone): (Vec<_>, Vec<_>) = self.sessions.drain(..).partition(wanted);
        self.sessions = kept;
        gone.into_iter().for_each(Session::end);
        for network in &exported {
            for protocol in Protocol::ALL {
                let known = self.sessions.iter_mut().find(|it| it.serves(network.id, protocol));
                match known {
                    Some(session) => session.follow(network),
                    None => self.sessions.extend(Session::begin(&self.daemon, network, protocol)),
                }
            }
        }
        let told = self.sessions.iter().map(|it| (it.name(), it.faults())).collect();
        *lock(&self.daemon.exports.statuses) = told;
    }

    /// Waits until a queue has much, or some time.
    fn wait(&self) {
        let wakes = || self.sessions.iter().filter_map(Session::queue);
        let mut fds: Vec<_> =
            wakes().map(|queue| PollFd::from_borrowed_fd(queue.wake(), PollFlags::IN)).collect();
        // An error is a signal, after which the next look is early.
        if poll(&mut fds, Some(&TICK)).is_ok_and(|ready| ready > 0) {
            for queue in wakes() {
                // Takes back what woke the thread; nothing there is no fault.
                let _ = rustix::io::read(queue.wake(), &mut [0; 8]);
            }
        }
    }
}
