//! Which process is the switch, and how one follows another.
//!
//! ```text
//!  tramad ─ killed, or crashes ─▶ stand-in ─ a user starts tramad ─▶ tramad
//!    │                             ▲  │                                ▲
//!    │ channel closes              │  │ is told to freeze, and exits   │ attaches as the next one
//!    └───────────────────▶ helper ─┘  └─────────────── keeper ─────────┘
//! ```
//!
//! The keeper has one switch at a time. What each has opened is kept there, so the next one goes on
//! with the same devices, sockets and connections. A stand-in is the switch until a `tramad` that a
//! user or the system starts takes over, until it is told to end, or until its control socket is
//! gone, by which alone it can be steered.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use trama_helper::Rights;
use trama_keeper::{AttachError, Attached, Claim, Keeper};
use trama_sandbox::Mode;
use trama_switch::WorkerHandle;

use crate::socket::listens;
use crate::upgrade::HandOver;
use crate::{Fault, confinement};

/// How long a switch that has ended may still look attached: the keeper learns of its end when the
/// kernel has closed its descriptors.
const ENDING: Duration = Duration::from_secs(5);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a switch may be without a keeper: it makes its control socket first, and has one that
/// has ended replaced.
const WITHOUT_KEEPER: Duration = Duration::from_secs(2);
/// Pause between tries then.
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// How long the workers may take to stand still before the process ends all the same.
const HOLDING: Duration = Duration::from_millis(100);

/// How this process comes to be the switch.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A user or the system has started it.
    Started {
        /// Whether it may take over from another that was started.
        takes_over: bool,
    },
    /// The helper of another one, which ends, has started it: it takes over from that one, until a
    /// user or the system starts the next one, at most this long.
    Bridges {
        /// How long.
        limit: Duration,
    },
    /// The helper of another one has started it.
    StandsIn {
        /// The process of that one, which has ended.
        after: i32,
        /// How it has ended, in words, if that is known.
        ended: Option<String>,
        /// The signal by which it has ended, if it was one and that is known.
        by: Option<i32>,
        /// Its control socket, and so this one's, whatever the configuration says by now.
        control: PathBuf,
        /// How long it may go on: as long as the one that has ended might; `None`: for good.
        limit: Option<Duration>,
    },
}

impl Origin {
    /// How long this process may go on until the next one is started; `None`: for good.
    pub fn limit(&self) -> Option<Duration> {
        match self {
            Origin::Started { .. } => None,
            Origin::Bridges { limit } => Some(*limit),
            Origin::StandsIn { limit, .. } => *limit,
        }
    }
}

/// Why this process does not become the switch.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process is the switch.
    #[error("process {0} is the switch")]
    Taken(i32),
    /// The keeper does not work.
    #[error("the keeper does not work: {0}")]
    Keeper(#[from] io::Error),
    /// The one that runs has no keeper, and no helper that would start one.
    #[error(
        "{}: another tramad listens there, whose keeper has ended: none can take over from it; stop \
         it first",
        .0.display()
    )]
    NoKeeper(PathBuf),
    /// The keeper that runs is of another version.
    #[error("the keeper does not work: {0}")]
    Version(AttachError),
}

/// Returns the path of the keeper's socket.
pub fn keeper_socket(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".keeper");
    path.into()
}

/// A switch that still runs.
#[derive(Clone, Debug)]
pub struct Previous {
    pub(crate) process: i32,
    /// Readable when it has ended; `None` if it had already.
    end: Option<Arc<OwnedFd>>,
}

impl Previous {
    /// To be called before this process is confined.
    fn of(process: i32) -> Previous {
        let pid = Pid::from_raw(process);
        let end = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Previous { process, end: end.map(Arc::new) }
    }

    /// Waits until it has ended, for some seconds.
    pub(crate) fn wait_for_end(&self) {
        let Some(end) = &self.end else { return };
        let limit = Timespec { tv_sec: ENDING.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&limit));
    }
}

/// The keeper of this process's things.
#[derive(Debug)]
pub struct Seat {
    /// The keeper.
    pub keeper: Keeper,
    /// Whether another switch was there before, whose devices and connections go on.
    pub resumes: bool,
    /// The process of the one that still runs; [`Keeper::go`] ends it.
    pub previous: Option<Previous>,
}

/// Becomes the next switch of the keeper that runs; returns `None` if none runs. The one before may
/// still serve: [`Keeper::go`] ends it. `service`: the helper, if this process is a service's.
///
/// # Errors
/// Another process is the switch and stays it, or the keeper does not work.
pub fn follow(
    control: &Path,
    origin: &Origin,
    service: Option<&Rights>,
) -> Result<Option<Seat>, ClaimError> {
    let path = keeper_socket(control);
    let (since, until) = (Instant::now(), Instant::now() + ENDING);
    loop {
        let Some(keeper) = find(&path, service)? else {
            if !listens(control).unwrap_or(false) {
                return Ok(None);
            }
            if since.elapsed() >= WITHOUT_KEEPER {
                return Err(ClaimError::NoKeeper(control.to_owned()));
            }
            std::thread::sleep(LONG_PAUSE);
            continue;
        };
        match keeper.attach(claim(origin)) {
            Ok(attached) => {
                confinement::note_missing(&attached.missing);
                let Attached { resumes, previous, .. } = attached;
                let previous = previous.map(Previous::of);
                return Ok(Some(Seat { keeper, resumes, previous }));
            }
            Err(AttachError::Busy { pid }) if is_ending(pid, origin) && Instant::now() < until => {}
            Err(AttachError::Busy { pid }) => return Err(ClaimError::Taken(pid)),
            // It ends because no switch has come for a while. Its socket is closed soon.
            Err(AttachError::Io(_)) if Instant::now() < until => {}
            Err(AttachError::Io(error)) => return Err(error.into()),
            Err(version) => return Err(ClaimError::Version(version)),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Connects to the keeper; a service by its helper, if the keeper is that of a root's `tramad`.
fn find(path: &Path, service: Option<&Rights>) -> io::Result<Option<Keeper>> {
    match (Keeper::find(path), service) {
        (Err(error), Some(rights)) if error.kind() == io::ErrorKind::PermissionDenied => {
            rights.reach_keeper()
        }
        (found, _) => found,
    }
}

/// Starts a keeper and becomes its first switch. A service has its helper start it.
///
/// # Errors
/// The process cannot be started.
pub fn start_keeper(
    control: &Path,
    mode: Mode,
    origin: &Origin,
    service: Option<&Rights>,
) -> io::Result<Seat> {
    let claim = claim(origin);
    let (keeper, attached) = match service {
        None => Keeper::start(&keeper_socket(control), mode, claim)?,
        Some(rights) => Keeper::start_by(claim, |channel| {
            rights.start_keeper(&channel).map_err(io::Error::other)?;
            Ok(None)
        })?,
    };
    confinement::note_missing(&attached.missing);
    Ok(Seat { keeper, resumes: false, previous: None })
}

fn claim(origin: &Origin) -> Claim {
    match origin {
        Origin::Started { takes_over: true } => Claim::TakeOver,
        Origin::Started { takes_over: false } => Claim::Main,
        Origin::Bridges { .. } => Claim::Bridge,
        Origin::StandsIn { .. } => Claim::StandIn,
    }
}

/// Whether the process has ended or is about to.
fn is_ending(pid: i32, origin: &Origin) -> bool {
    // One that the helper, this one's parent, has connected to the keeper looks like the helper.
    let is_parent = || getppid().is_some_and(|parent| parent.as_raw_pid() == pid);
    let is_predecessor =
        matches!(origin, Origin::StandsIn { after, .. } if *after == pid || is_parent());
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    is_predecessor || is_exiting(&read("stat")) || is_killed(&read("status"))
}

/// Whether a process is gone or exits, by its `stat` in `/proc`, see `proc_pid_stat(5)`. Its
/// descriptors may be closed much later than it was killed: its memory is freed first.
fn is_exiting(stat: &str) -> bool {
    const PF_EXITING: u32 = 4;
    // The fields follow the name in parentheses. Z is one whose parent has not waited for it.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return true };
    let fields: Vec<&str> = fields.split(' ').collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u32>().ok()).unwrap_or_default();
    matches!(fields[0], "Z" | "X") || flags & PF_EXITING != 0
}

/// Whether SIGKILL is on its way to a process, by its `status` in `/proc`.
fn is_killed(status: &str) -> bool {
    const SIGKILL: u32 = 9;
    let pending = status.lines().filter_map(|line| {
        let (name, signals) = line.split_once(":\t")?;
        let signals = u64::from_str_radix(signals, 16).ok()?;
        matches!(name, "SigPnd" | "ShdPnd").then_some(signals)
    });
    pending.fold(0, |all, signals| all | signals) & (1 << (SIGKILL - 1)) != 0
}

/// Waits, on a thread of its own, until another switch takes over; then stops the workers between
/// two bursts and ends the process. What it has opened stays with the keeper.
///
/// # Errors
/// The thread cannot be started.
pub fn hand_over_when_told(hand_over: HandOver, workers: Vec<WorkerHandle>) -> io::Result<()> {
    let wait = move || {
        hand_over.wait();
        leave(&hand_over, workers);
    };
    std::thread::Builder::new().name("hand-over".to_owned()).spawn(wait).map(drop)
}

/// Stops the workers between two bursts and ends the process, for another switch to go on.
pub fn leave(hand_over: &HandOver, workers: Vec<WorkerHandle>) -> ! {
    hold(workers);
    hand_over.leave();
    tracing::info!("leaves everything to another tramad; ends");
    // Nothing is dropped: that would remove devices and close connections.
    std::process::exit(0);
}

/// Holds the workers, each between two bursts, for the rest of the process's life.
fn hold(workers: Vec<WorkerHandle>) {
    let (stopped, all) = mpsc::channel();
    let count = workers.len();
    for worker in workers {
        let stopped = stopped.clone();
        // Side by side. Without a thread, the worker ends in the middle of a burst.
        let _ = std::thread::Builder::new().spawn(move || {
            let held = worker.call(|engine, _| engine.hold());
            let _ = held.map(|()| stopped.send(()));
        });
    }
    let until = Instant::now() + HOLDING;
    for _ in 0..count {
        let _ = all.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// The message for a user whose `tramad` is not the first one.
pub fn taken(control: &Path) -> Fault {
    let message = format!("{}: another tramad listens there", control.display());
    Fault::new(message, "stop it first, or start this one with --take-over")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ending_if_it_is_gone_or_its_helper_says_so() {
        let started = Origin::Started { takes_over: false };
        let own = std::process::id() as i32;
        assert!(!is_ending(own, &started));
        assert!(is_ending(
            own,
            &Origin::StandsIn {
                after: own,
                ended: None,
                by: None,
                control: PathBuf::new(),
                limit: None
            }
        ));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        while !is_ending(pid, &started) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_ending(pid, &started));
    }

    #[test]
    fn a_process_is_ending_from_the_moment_when_it_is_killed() {
        let runs = "17 (a) b) R 1 17 17 0 -1 4194304 145 0 0 0";
        assert!(!is_exiting(runs) && is_exiting(&runs.replace("4194304", "4194308")));
        assert!(is_exiting(&runs.replace(") R", ") Z")) && is_exiting(""));
        let status = "Name:\ttramad\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n";
        assert!(is_killed(status) && !is_killed(&status.replace("100", "200")));
        let started = Origin::Started { takes_over: false };
        for _ in 0..100 {
            let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            child.kill().unwrap();
            assert!(is_ending(child.id() as i32, &started));
            child.wait().unwrap();
        }
    }
}
