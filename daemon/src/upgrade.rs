//! Asks for a planned hand-over: the helper starts a successor, and this process ends once that one
//! takes over. If it does not, this one goes on.
//!
//! ```text
//!              start                     it wants to go
//!  Serves ──────────────▶ Upgrading ─────────────────────▶ Frozen ─▶ the process ends
//!    ▲  │                     │                              ▲
//!    │  │                     │ it ends, or time is over     │
//!    │  └─────────────────────┼──────────────────────────────┘ another one has been started
//!    └────────────────────────┘
//! ```
//!
//! The thread that waits for a successor also replaces a keeper that has ended, which would take
//! what it has along at the next restart, and reports the end of the helper.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trama_helper::Rights;
use trama_keeper::{Attached, Keeper};

use crate::{Fault, confinement};

/// How long a successor may take until it takes over.
const LIMIT: Duration = Duration::from_secs(10);
/// Least time between two new keepers.
const KEEPER_PAUSE: Duration = Duration::from_secs(1);
/// How often a new keeper is tried, and the pause between tries: the one before may not have closed
/// its socket.
const KEEPER_TRIES: u32 = 10;
const TRY_PAUSE: Duration = Duration::from_millis(20);

/// Where this switch is between its start and its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Serves,
    /// A successor was started.
    Upgrading,
    /// Another switch takes over; this process ends.
    Frozen,
    /// This process ends, and its keeper and helper with it.
    Ending,
}

/// What happens to this switch from outside.
#[derive(Clone, Copy)]
enum Event {
    Freeze,
    KeeperEnded,
    HelperEnded,
}

/// The hand-over to a successor. Clones are handles of the same.
#[derive(Clone)]
pub struct HandOver {
    keeper: Keeper,
    rights: Rights,
    /// For how many seconds a successor goes on if it is the service manager that starts the next
    /// one after this process; `None`: a successor stays.
    until_restart: Option<u64>,
    stage: Arc<Mutex<Stage>>,
}

impl HandOver {
    /// The hand-over of a switch that serves.
    ///
    /// A service manager takes the end of a service's process for the end of the service, unless
    /// the next one is in the service's control group, where only the manager can start it. With
    /// `until_restart`, a successor goes on until the manager has started that one, and ends after
    /// this number of seconds if it does not.
    pub fn new(keeper: Keeper, rights: Rights, until_restart: Option<u64>) -> HandOver {
        let stage = Arc::new(Mutex::new(Stage::Serves));
        HandOver { keeper, rights, until_restart, stage }
    }

    /// Starts the program as it is on disk, and waits until it takes over: this process then ends,
    /// and this does not return. `bridges`: for how many seconds it waits for the next one; `None`:
    /// it stays.
    /// Returns why it does not: this switch goes on.
    pub fn upgrade(&self, bridges: Option<u64>) -> Fault {
        match std::mem::replace(&mut *self.stage(), Stage::Upgrading) {
            Stage::Serves => {}
            before => {
                *self.stage() = before;
                return Fault::new("another tramad was started already", "wait for its end");
            }
        }
        let fault = self.start_and_wait(bridges.or(self.until_restart));
        let mut stage = self.stage();
        if *stage == Stage::Frozen {
            drop(stage);
            end_soon();
        }
        // Meanwhile this process may have begun to end.
        if *stage == Stage::Upgrading {
            *stage = Stage::Serves;
        }
        fault
    }

    /// Returns once it is known that the successor does not take over, or that it does.
    fn start_and_wait(&self, bridges: Option<u64>) -> Fault {
        let successor = match self.rights.start_successor(bridges) {
            Ok(successor) => successor,
            Err(text) => return Fault::plain(text),
        };
        let process = successor.process;
        tracing::info!("started process {process}, which is to take over");
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        let mut ends = [PollFd::new(&successor.pidfd, PollFlags::IN)];
        let has_ended = poll(&mut ends, Some(&limit)).is_ok_and(|ready| ready > 0);
        // Held, so that it is not ended while this process freezes for it.
        let stage = self.stage();
        if *stage == Stage::Frozen {
            return Fault::plain("it takes over");
        }
        let status = self.rights.end_successor().unwrap_or_else(|error| error);
        self.keeper.forget_freeze();
        let why = match has_ended {
            true => format!("has ended ({status})"),
            false => format!("was not ready within {} s and was ended", LIMIT.as_secs()),
        };
        let message = format!("the new tramad, process {process}, {why}; this one goes on");
        Fault::new(message, "the log has its messages")
    }

    /// Waits until another switch wants to take over, for good.
    pub fn wait(&self) {
        let mut helper = self.rights.helper_end_event();
        let mut keeper = self.keeper.end_event().ok();
        let mut renewed = None;
        loop {
            let Some(freeze) = self.keeper.freeze_event() else { end_soon() };
            let event = next_event(&freeze, keeper.as_ref(), helper.as_ref());
            let mut stage = self.stage();
            match event {
                _ if *stage == Stage::Ending => {
                    drop(stage);
                    end_soon();
                }
                Event::Freeze => {
                    // Meanwhile the one that asked may have been ended.
                    if self.keeper.forget_freeze() {
                        *stage = Stage::Frozen;
                        return;
                    }
                }
                Event::KeeperEnded => {
                    drop(stage);
                    keeper = self.renew_keeper(&mut renewed);
                }
                Event::HelperEnded => {
                    tracing::error!(
                        "the helper has ended: what needs it fails until another tramad takes \
                         over; {}",
                        self.new_helper()
                    );
                    helper = None;
                }
            }
        }
    }

    /// How the process comes to a helper again.
    fn new_helper(&self) -> &'static str {
        match self.until_restart {
            Some(_) => "systemctl restart trama starts one, which has a helper",
            None => "start one with --take-over, which takes the place of both",
        }
    }

    /// Has the helper start a keeper in the place of one that has ended, and gives it what this
    /// switch has kept. Returns what tells the end of that one.
    fn renew_keeper(&self, last: &mut Option<Instant>) -> Option<OwnedFd> {
        if last.is_some_and(|last| last.elapsed() < KEEPER_PAUSE) {
            std::thread::sleep(KEEPER_PAUSE);
        }
        *last = Some(Instant::now());
        match self.try_to_renew_keeper() {
            Ok(attached) => {
                confinement::note_missing(&attached.missing);
                tracing::warn!("the keeper has ended; a new one has all that this process has");
                self.keeper.end_event().ok()
            }
            Err(error) => {
                tracing::error!(
                    "the keeper has ended, and there is no new one: {error}; a restart will \
                     disconnect guests and make TAP devices again"
                );
                None
            }
        }
    }

    /// Whether a switch that was not started here is about to take over.
    pub(crate) fn is_followed(&self) -> bool {
        *self.stage() == Stage::Serves && self.keeper.is_followed()
    }

    fn try_to_renew_keeper(&self) -> std::io::Result<Attached> {
        let start = |channel| self.rights.start_keeper(&channel).map_err(std::io::Error::other);
        for _ in 1..KEEPER_TRIES {
            let renewed = self.keeper.renew(start);
            if renewed.is_ok() {
                return renewed;
            }
            std::thread::sleep(TRY_PAUSE);
        }
        self.keeper.renew(start)
    }

    /// Whether the helper has ended. Known once it was asked for something.
    pub(crate) fn has_no_helper(&self) -> bool {
        self.rights.helper_end_event().is_none()
    }

    /// This process is about to end, with its keeper and its helper. Returns whether it must not,
    /// but leave all that it has: a switch that was not started here is about to take over.
    pub fn begin_to_end(&self) -> bool {
        let is_followed = self.is_followed();
        *self.stage() = Stage::Ending;
        is_followed
    }

    /// Says that this switch moves no frames any more: the other one goes on with all it had.
    pub fn leave(&self) {
        self.keeper.leave();
        self.rights.end(true);
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another thread ends the process.
fn end_soon() -> ! {
    loop {
        std::thread::park();
    }
}

/// Waits for the next event; of several, the one that ends this process comes first.
fn next_event(freeze: &OwnedFd, keeper: Option<&OwnedFd>, helper: Option<&OwnedFd>) -> Event {
    let ends = [(keeper, Event::KeeperEnded), (helper, Event::HelperEnded)];
    let ends = ends.iter().filter_map(|(fd, event)| Some((fd.as_ref()?, PollFlags::RDHUP, *event)));
    let all: Vec<_> = [(&freeze, PollFlags::IN, Event::Freeze)].into_iter().chain(ends).collect();
    loop {
        let mut fds: Vec<_> = all.iter().map(|(fd, flags, _)| PollFd::new(fd, *flags)).collect();
        // It fails for a signal, or for want of memory.
        let _ = poll(&mut fds, None);
        if let Some(at) = fds.iter().position(|fd| !fd.revents().is_empty()) {
            return all[at].2;
        }
    }
}
