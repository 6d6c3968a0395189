//! The life of a switch: it finds its place among others, is confined, serves, and ends or hands
//! over.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use trama_daemon::crashes::Crashes;
use trama_daemon::listeners::Listeners;
use trama_daemon::notify::Notifier;
use trama_daemon::state::{Daemon, Source};
use trama_daemon::succession::{self, Origin};
use trama_daemon::take_over::TakeOver;
use trama_daemon::upgrade::HandOver;
use trama_daemon::{captures, confinement, export};
use trama_helper::{Place, Rights, Setup};
use trama_keeper::Keeper;

use crate::place::{self, NotTaken, decline, give_way, keep};
use crate::serve::{Start, serve};

/// For how many seconds a successor of a service goes on until the service manager has started the
/// next process.
const UNTIL_RESTART: u64 = 10;

/// How this process was started.
pub(crate) struct Launch {
    pub(crate) origin: Origin,
    /// The arguments of a stand-in and a successor.
    pub(crate) arguments: Vec<OsString>,
    /// The socket at which a service manager starts helpers.
    pub(crate) helper: Option<PathBuf>,
    /// For how many seconds another process goes on at SIGTERM; 0: for none.
    pub(crate) linger: u64,
}

/// Runs a switch until its end.
///
/// # Errors
/// It cannot start, or the control socket fails it; the text is for the log.
pub(crate) fn run(mut source: Source, launch: Launch) -> Result<(), String> {
    let Launch { origin, arguments, helper, linger } = launch;
    let origin = &origin;
    // The file may be replaced later.
    let program = std::env::current_exe().map_err(|error| format!("the program: {error}"))?;
    let started = Instant::now();
    let notifier = Arc::new(Notifier::from_environment());
    let service = helper.as_deref().map(|socket| place::service(socket, origin)).transpose()?;
    let (mut config, found) = match place::read(&mut source, origin, service.as_ref()) {
        Err(NotTaken::Taken(pid)) => {
            decline(pid);
            return Ok(());
        }
        Err(NotTaken::Failed(message)) => return Err(message),
        Ok(read) => read,
    };
    if let Origin::StandsIn { control, .. } = origin {
        config.daemon.control.clone_from(control);
    }
    if source.may_be_missing {
        let file = source.file.display();
        tracing::info!("{file} is not there: nothing is set up, and the first change makes it");
    }
    if matches!(origin, Origin::StandsIn { .. }) && !config.daemon.control.exists() {
        tracing::info!("{} is gone; ends", config.daemon.control.display());
        Rights::decline();
        return Ok(());
    }
    let bridges = origin.limit().map(|limit| limit.as_secs());
    let setup = Setup { arguments, bridges, program, ..source.helper_setup(&config.daemon, true) };
    let set_up = |rights: &Rights| {
        let missing = rights.set_up(setup.clone());
        missing.map_err(|error| format!("the helper: {error}"))
    };
    let mut missing = service.as_ref().map(set_up).transpose()?.unwrap_or_default();
    // The sockets come first: a second daemon must end before it disturbs the first one's ports.
    let taken = place::take_sockets(&config.daemon, origin, found, service.as_ref());
    let (seat, listeners) = match taken {
        Err(NotTaken::Taken(pid)) => return give_way(&config.daemon.control, pid, origin),
        Err(NotTaken::Failed(message)) => return Err(message),
        Ok(taken) => taken,
    };
    let follows = seat.as_ref().is_some_and(|seat| seat.resumes);
    let previous = seat.as_ref().and_then(|seat| seat.previous.clone());
    let crashes = Crashes::follow(seat.as_ref(), place::signal_before(origin));
    let keeper = seat.map(|seat| seat.keeper);
    let resumes = follows && !crashes.starts_cold();
    if crashes.starts_cold()
        && let Some(keeper) = &keeper
    {
        // All that was not asked for by now.
        keeper.settle().map_err(|error| format!("the keeper does not work: {error}"))?;
    }
    let is_service = service.is_some();
    let rights = match service {
        Some(rights) => rights,
        None => {
            let rights = place::helper(origin)?;
            missing = set_up(&rights)?;
            rights
        }
    };
    let is_beside = previous.is_some();
    let serves = rights.serve(Place { follows: follows && !is_beside, is_beside });
    missing.extend(serves.map_err(|error| format!("the helper does not run: {error}"))?);
    confinement::note_missing(&missing);
    let Listeners { control, file, metrics } = keep(listeners, &config.daemon, keeper.as_ref());
    if let Some(file) = file {
        // The helper removes it.
        file.leave();
    }
    // Before the process is restricted, which then makes no other.
    if let Err(error) = trama_sandbox::hold_memory() {
        tracing::warn!("no holder of the memory: {error}; after a crash, frames wait longer");
    }
    confinement::enter(config.daemon.sandbox)
        .map_err(|error| format!("capabilities cannot be dropped: {error}"))?;
    if let Origin::StandsIn { after, ended, .. } = origin {
        let (own, how) = (std::process::id(), ended.as_deref().unwrap_or("signal unknown"));
        tracing::warn!(
            "process {after} ended without a word ({how}); going on as process {own}: kill -TERM \
             {own} ends it, a new tramad takes over"
        );
    }
    let rights = rights.with_keeper(keeper.clone(), resumes);
    let prepared = Daemon::prepare(source, config, rights.clone(), crashes);
    let daemon = prepared.map_err(|error| error.to_string())?;
    if resumes {
        daemon.hold();
    }
    let threads = export::start(&daemon).and_then(|()| captures::start_ring(&daemon));
    threads.map_err(|error| format!("thread: {error}"))?;
    let until_restart = (is_service && notifier.has_manager()).then_some(UNTIL_RESTART);
    let hand_over = |keeper| HandOver::new(keeper, rights.clone(), until_restart);
    let hand_over = keeper.clone().map(hand_over);
    if let Some(hand_over) = hand_over.clone() {
        daemon.set_hand_over(hand_over.clone());
        succession::hand_over_when_told(hand_over, daemon.workers())
            .map_err(|error| format!("thread: {error}"))?;
    }
    let take_over = keeper.clone().zip(previous).map(|(it, pid)| TakeOver::new(it, pid));
    // One that follows another that has ended ends at once itself.
    let linger = if matches!(origin, Origin::Started { .. }) { linger } else { 0 };
    let start = Start { notifier, started, take_over, linger };
    let served = serve(&daemon, (control, metrics), &start, origin);
    if let Some(hand_over) = hand_over.filter(HandOver::begin_to_end) {
        succession::leave(&hand_over, daemon.workers());
    }
    start.notifier.send("STOPPING=1");
    end(&daemon, &rights, keeper.as_ref());
    if served.is_ok() {
        tracing::info!("ended");
    }
    served
}

/// Ends everything.
fn end(daemon: &Daemon, rights: &Rights, keeper: Option<&Keeper>) {
    // First, so that no stand-in follows whatever happens from here on.
    rights.end(false);
    daemon.stop();
    // One that has ended keeps nothing.
    let _ = keeper.map(Keeper::end);
}
