//! How a switch finds its helper, its configuration, its keeper and its sockets, or that another
//! one has them.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use trama_daemon::config::model::{Config, DaemonConfig};
use trama_daemon::listeners::Listeners;
use trama_daemon::state::Source;
use trama_daemon::succession::{self, ClaimError, Origin, Seat};
use trama_helper::Rights;
use trama_keeper::Keeper;

/// How often the sockets are tried, and the pause between tries.
const SOCKET_TRIES: u32 = 25;
const SOCKET_PAUSE: Duration = Duration::from_millis(20);

/// Finds the helper of a service, which is there before the switch has anything; a stand-in has
/// that which has started it.
///
/// # Errors
/// It cannot be reached; the text has the remedy.
pub(crate) fn service(socket: &Path, origin: &Origin) -> Result<Rights, String> {
    let found = match origin {
        Origin::Started { .. } | Origin::Bridges { .. } => Rights::of_service(socket),
        Origin::StandsIn { .. } => Rights::of_starter(),
    };
    found.map_err(|error| {
        let remedy = "systemctl status trama-helper.socket";
        format!("the helper cannot be reached at {}: {error}; {remedy}", socket.display())
    })
}

/// Starts the helper of a switch that is no service; a stand-in has that which has started it.
///
/// # Errors
/// It cannot be started.
pub(crate) fn helper(origin: &Origin) -> Result<Rights, String> {
    let found = match origin {
        Origin::Started { .. } | Origin::Bridges { .. } => Rights::start_helper(),
        Origin::StandsIn { .. } => Rights::of_starter(),
    };
    found.map_err(|error| format!("the helper does not run: {error}"))
}

/// Reads the configuration. If the file has faults by now, a process that follows another one goes
/// on with what was in force; then the keeper is returned, too, from which it has that. One that a
/// user starts does not: the other one goes on, and the user is told. A service has no user that
/// waits for the answer, and the other one ends.
///
/// # Errors
/// The file has faults, and nothing else is known; or another process goes on.
pub(crate) fn read(
    source: &mut Source,
    origin: &Origin,
    service: Option<&Rights>,
) -> Result<(Config, Option<Seat>), NotTaken> {
    let read = match service {
        Some(rights) => source.read_as(rights.read_config()),
        None => source.read(),
    };
    let faults = match read {
        Ok(config) => return Ok((config, None)),
        Err(faults) => faults.to_string(),
    };
    let control = match origin {
        Origin::StandsIn { control, .. } => control.clone(),
        Origin::Started { .. } if service.is_none() => return Err(NotTaken::Failed(faults)),
        // Another one cannot be read from the file.
        Origin::Started { .. } | Origin::Bridges { .. } => source.folders.control(),
    };
    let found = match succession::follow(&control, origin, service) {
        Err(ClaimError::Taken(pid)) if matches!(origin, Origin::StandsIn { .. }) => {
            return Err(NotTaken::Taken(pid));
        }
        followed => followed.ok().flatten(),
    };
    let text = found.as_ref().and_then(|seat| Rights::kept_config(&seat.keeper));
    let Some(config) = text.and_then(|text| source.read_from(text).ok()) else {
        return Err(NotTaken::Failed(faults));
    };
    faults.lines().for_each(|line| tracing::error!("{line}"));
    tracing::error!(
        "goes on with the configuration that was in force: correct the file, then tramactl reload"
    );
    Ok((config, found))
}

/// Why this process has no sockets.
pub(crate) enum NotTaken {
    /// A process is the switch.
    Taken(i32),
    /// Another reason, in words.
    Failed(String),
}

/// Finds the keeper and the sockets, or makes them. Another process may just start as well: it may
/// have the one, and this process the other.
pub(crate) fn take_sockets(
    daemon: &DaemonConfig,
    origin: &Origin,
    mut found: Option<Seat>,
    service: Option<&Rights>,
) -> Result<(Option<Seat>, Listeners), NotTaken> {
    for tries in 1..=SOCKET_TRIES {
        if found.is_none() {
            found = match succession::follow(&daemon.control, origin, service) {
                Err(ClaimError::Taken(pid)) => return Err(NotTaken::Taken(pid)),
                followed => followed.map_err(|error| NotTaken::Failed(error.to_string()))?,
            };
        }
        let is_last = tries == SOCKET_TRIES;
        let keeper = found.as_ref().map(|seat| &seat.keeper);
        match Listeners::open(daemon, keeper, service) {
            Err(message) if is_last => return Err(NotTaken::Failed(message)),
            // The keeper may have ended meanwhile, and the switch that has the sockets have a new
            // one.
            Err(_) => found = None,
            Ok(listeners) if found.is_some() => return Ok((found, listeners)),
            Ok(listeners) => {
                let started =
                    succession::start_keeper(&daemon.control, daemon.sandbox, origin, service);
                match started {
                    Err(error) if error.kind() == ErrorKind::AddrInUse && !is_last => {}
                    started => return Ok((started.inspect_err(warn_of_no_keeper).ok(), listeners)),
                }
            }
        }
        std::thread::sleep(SOCKET_PAUSE);
    }
    Err(NotTaken::Failed("no try is left".to_owned()))
}

/// Without a keeper, guests lose their link when the daemon ends.
fn warn_of_no_keeper(error: &io::Error) {
    tracing::warn!("no keeper: {error}; a restart will disconnect guests");
}

/// The signal by which the process has ended that this one follows, if that is known.
pub(crate) fn signal_before(origin: &Origin) -> Option<i32> {
    match origin {
        Origin::StandsIn { by, .. } => *by,
        Origin::Started { .. } | Origin::Bridges { .. } => None,
    }
}

/// Leaves the place to the process that has it.
pub(crate) fn give_way(control: &Path, pid: i32, origin: &Origin) -> Result<(), String> {
    match origin {
        Origin::Started { .. } | Origin::Bridges { .. } => {
            Err(succession::taken(control).to_string())
        }
        Origin::StandsIn { .. } => {
            decline(pid);
            Ok(())
        }
    }
}

/// The same for a stand-in, whose helper is to start no other.
pub(crate) fn decline(pid: i32) {
    tracing::info!("process {pid} goes on; ends");
    Rights::decline();
}

/// Gives the keeper copies of the sockets.
pub(crate) fn keep(
    listeners: Listeners,
    daemon: &DaemonConfig,
    keeper: Option<&Keeper>,
) -> Listeners {
    if let Some(keeper) = keeper
        && let Err(error) = listeners.keep(daemon, keeper)
    {
        tracing::warn!("a restart will close the control socket: {error}");
    }
    listeners
}
