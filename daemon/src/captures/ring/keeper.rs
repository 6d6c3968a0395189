//! The thread of the ring: from the queues of its watches to the store.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use trama_switch::Time;

use super::super::ports::{Ports, finish_checksum};
use super::super::wanted::Wanted;
use super::store::Store;
use super::{Ask, Line};
use crate::state::Daemon;

/// Bytes that are kept of a frame: its headers, and what most protocols say first.
pub(in crate::captures) const SNAPLEN: u32 = 256;
/// Time between two looks at queues that do not wake the thread.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Time between two looks for ports that come and go.
const FOLLOW: Duration = Duration::from_millis(500);
/// Frames that one queue may give before the next one has its turn.
const TURN: usize = 1024;

struct Keeper {
    daemon: Arc<Daemon>,
    asked: Receiver<Ask>,
    wake: OwnedFd,
    wanted: Wanted,
    ports: Ports,
    store: Store,
    /// The frame that is taken.
    bytes: Vec<u8>,
}

/// Starts the thread, which keeps nothing until the ring has a size.
///
/// # Errors
/// The system is out of threads or descriptors.
pub fn start(daemon: &Arc<Daemon>) -> io::Result<()> {
    let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let (asks, asked) = channel();
    let keeper = Keeper {
        daemon: Arc::clone(daemon),
        asked,
        wake: wake.try_clone()?,
        wanted: Wanted::everything(SNAPLEN),
        ports: Ports::new(Arc::clone(daemon)),
        store: Store::default(),
        bytes: Vec::new(),
    };
    thread::Builder::new().name("ring".to_owned()).spawn(move || keeper.run())?;
    // It is started once.
    let _ = daemon.ring.keeper.set(Line { asks, wake });
    Ok(())
}

impl Keeper {
    fn run(mut self) {
        let mut followed: Option<Instant> = None;
        loop {
            let size = self.daemon.ring.size();
            self.store.resize(size);
            if size == 0 {
                self.unwatch();
                followed = None;
            } else if followed.is_none_or(|at| at.elapsed() >= FOLLOW) {
                self.ports.forget_gone();
                self.ports.follow(&self.wanted, &mut |_| {});
                followed = Some(Instant::now());
            }
            self.answer();
            if !self.take_turn() {
                self.wait((size > 0).then_some(&TICK));
            }
        }
    }

    /// Ends the watches.
    fn unwatch(&mut self) {
        self.daemon.captures.count(0, self.ports.unwatch());
        self.ports = Ports::new(Arc::clone(&self.daemon));
    }

    /// Answers captures that look back.
    fn answer(&mut self) {
        while let Ok(Ask { until, answer }) = self.asked.try_recv() {
            for index in 0..self.ports.watches.len() {
                self.take(index, usize::MAX, until);
            }
            // A capture that has given up waits no longer.
            let _ = answer.send(self.store.all());
        }
    }

    /// Takes a turn's frames from each queue; returns whether there were any.
    fn take_turn(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.ports.watches.len() {
            any |= self.take(index, TURN, Time(u64::MAX)) > 0;
        }
        any
    }

    /// Takes at most this many frames from a queue, and only one that is not older than `until`.
    /// Returns how many.
    fn take(&mut self, index: usize, most: usize, until: Time) -> usize {
        let Ports { watches, seen, .. } = &mut self.ports;
        let (mut taken, mut missed) = (0, 0);
        while taken < most
            && let Some(record) = watches[index].queue.read()
        {
            taken += 1;
            let Some(seen) = seen.get_mut(&record.port) else { continue };
            seen.missed += record.missed;
            missed += record.missed;
            self.bytes.clear();
            self.bytes.extend_from_slice(record.bytes);
            finish_checksum(&record, &mut self.bytes);
            self.store.push(&seen.port, &record, &self.bytes);
            if record.time >= until {
                break;
            }
        }
        self.daemon.captures.count(0, missed);
        taken
    }

    /// Waits until a queue has much, or the ring is resized or asked, or some time.
    fn wait(&self, limit: Option<&Timespec>) {
        let queues = || self.ports.watches.iter().map(|watched| watched.queue.wake());
        let wakes = || queues().chain([self.wake.as_fd()]);
        let mut fds: Vec<_> =
            wakes().map(|wake| PollFd::from_borrowed_fd(wake, PollFlags::IN)).collect();
        // An error is a signal, after which the next look is early.
        if poll(&mut fds, limit).is_ok_and(|ready| ready > 0) {
            for wake in wakes() {
                // Takes back what woke the thread; nothing there is no fault.
                let _ = rustix::io::read(wake, &mut [0; 8]);
            }
        }
    }
}
