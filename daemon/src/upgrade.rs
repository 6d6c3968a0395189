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

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use trama_helper::Rights;
use trama_keeper::Keeper;

use crate::Fault;

/// How long a successor may take until it takes over.
const LIMIT: Duration = Duration::from_secs(10);

/// Where this switch is between its start and its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Serves,
    /// A successor was started.
    Upgrading,
    /// Another switch takes over; this process ends.
    Frozen,
}

/// The hand-over to a successor. Clones are handles of the same.
#[derive(Clone)]
pub struct HandOver {
    keeper: Keeper,
    rights: Rights,
    stage: Arc<Mutex<Stage>>,
}

impl HandOver {
    /// The hand-over of a switch that serves.
    pub fn new(keeper: Keeper, rights: Rights) -> HandOver {
        HandOver { keeper, rights, stage: Arc::new(Mutex::new(Stage::Serves)) }
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
        let fault = self.start_and_wait(bridges);
        let mut stage = self.stage();
        if *stage == Stage::Frozen {
            drop(stage);
            end_soon();
        }
        *stage = Stage::Serves;
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
        let Some(freeze) = self.keeper.freeze_event() else { end_soon() };
        loop {
            let mut fds = [PollFd::from_borrowed_fd(freeze, PollFlags::IN)];
            while poll(&mut fds, None) == Err(Errno::INTR) {}
            let mut stage = self.stage();
            // Meanwhile the one that asked may have been ended.
            if self.keeper.forget_freeze() {
                *stage = Stage::Frozen;
                return;
            }
        }
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
