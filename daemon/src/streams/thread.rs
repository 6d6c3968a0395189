//! The thread that waits for all stream ports.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;

/// Pause after an error of poll(2), which would return at once again.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is waited for.
pub(super) struct Wait {
    pub(super) socket: Arc<OwnedFd>,
    /// Readable, or writable.
    pub(super) flags: PollFlags,
}

pub(super) fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("streams".into()).spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    while !shared.is_stopped.load(Ordering::Acquire) {
        let is_paused = shared.is_paused.load(Ordering::Acquire);
        let (ready, has_ended) = wait(shared, is_paused);
        let now = Instant::now();
        let (mut arrivals, mut ended) = (Vec::new(), Vec::new());
        for (name, plug) in shared.lock().iter_mut() {
            if has_ended {
                plug.take_end(name);
            }
            if !is_paused {
                plug.advance(name, ready.contains(name), now);
            }
            arrivals.append(&mut plug.take_arrivals());
            if plug.is_over() {
                ended.push(name.clone());
            }
        }
        if !arrivals.is_empty() || !ended.is_empty() {
            shared.note(|changes| {
                changes.arrivals.append(&mut arrivals);
                changes.ended.extend(ended);
            });
        }
    }
}

/// Waits until something has happened. Returns the ports whose sockets are ready, and whether a
/// connection has ended.
fn wait(shared: &Shared, is_paused: bool) -> (Vec<String>, bool) {
    let (mut waits, mut due) = (Vec::new(), None::<Instant>);
    if !is_paused {
        for (name, plug) in shared.lock().iter() {
            waits.extend(plug.wait().map(|wait| (name.clone(), wait)));
            due = due.into_iter().chain(plug.due()).min();
        }
    }
    let mut fds = vec![
        PollFd::new(&shared.changed, PollFlags::IN),
        PollFd::new(&*shared.ended, PollFlags::IN),
    ];
    fds.extend(waits.iter().map(|(_, wait)| PollFd::new(&*wait.socket, wait.flags)));
    let limit = due.map(|due| due.saturating_duration_since(Instant::now()));
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            tracing::error!("stream ports: cannot wait: {error}");
            std::thread::sleep(PAUSE);
        }
    }
    let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let names = waits.into_iter().zip(&is_ready[2..]);
    let names = names.filter_map(|((name, _), is_ready)| is_ready.then_some(name));
    let names = names.collect();
    let mut counter = [0; 8];
    // They are non-blocking; one that was not written to has nothing to take.
    let _ = rustix::io::read(&shared.changed, &mut counter);
    let has_ended = rustix::io::read(&*shared.ended, &mut counter).is_ok();
    (names, has_ended)
}
