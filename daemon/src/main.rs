//! `tramad`, the daemon.
//!
//! Reads the configuration, starts the workers, serves the control socket on a runtime that handles
//! no frames, and waits for signals.
#![forbid(unsafe_code)]

mod probe;
mod signals;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tracing_subscriber::EnvFilter;
use trama_api::folders::Folders;
use trama_daemon::config::model::{Config, DaemonConfig};
use trama_daemon::crashes::Crashes;
use trama_daemon::listeners::Listeners;
use trama_daemon::notify::Notifier;
use trama_daemon::state::{Daemon, Source};
use trama_daemon::succession::{self, ClaimError, Origin, Seat};
use trama_daemon::take_over::TakeOver;
use trama_daemon::upgrade::HandOver;
use trama_daemon::{api, confinement, describe, descriptors, export, panics, process_name};
use trama_helper::{Rights, Setup};
use trama_keeper::Keeper;

use probe::Confined;
use signals::{Signals, lose_control, wait_for_end, wait_in_vain};

/// How often ports that do not run are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the sockets are tried, and the pause between tries.
const SOCKET_TRIES: u32 = 25;
const SOCKET_PAUSE: Duration = Duration::from_millis(20);

/// The most that `--linger` may say, in seconds.
const LONGEST_LINGER: u64 = 3600;

/// The trama daemon: a switch for virtual machines, containers and namespaces.
#[derive(Parser)]
#[command(name = "tramad", version)]
struct Options {
    /// Read the configuration from FILE, not from the default location, where it may be missing
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the calling user's folders (XDG) for all files; the default for users other than root
    #[arg(long)]
    user: bool,
    /// Validate the configuration, print what it would build, and exit
    #[arg(long)]
    check: bool,
    /// Format of the log on standard error; TRAMA_LOG filters it, for example "warn" or
    /// "trama_daemon=debug"
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Take over from a tramad that runs, which then ends
    #[arg(long)]
    take_over: bool,
    /// At SIGTERM, let another process go on for this long, from which the next tramad takes over,
    /// so that a restart is not noticed; if none does, everything ends then
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = linger)]
    linger: u64,
    /// Take over until the next tramad is started, for this long at most; only a helper says so
    #[arg(long, value_name = "SECONDS", hide = true, conflicts_with = "take_over")]
    bridge: Option<u64>,
    #[command(subcommand)]
    command: Option<Subcommand>,
}

/// What the program does instead of running the daemon.
#[derive(clap::Subcommand)]
enum Subcommand {
    /// The gateway of a network; only a daemon starts it.
    #[command(hide = true)]
    Gateway(GatewayOptions),
    /// The process that opens devices and sockets for the daemon; only a daemon starts it.
    #[command(hide = true)]
    Helper,
    /// The process that keeps descriptors while the daemon restarts; only a daemon starts it.
    #[command(hide = true)]
    Keeper {
        /// How strictly files and system calls are restricted
        #[arg(long, default_value_t)]
        sandbox: trama_sandbox::Mode,
    },
    /// A daemon that goes on after another one has ended without a word; only a helper starts it.
    #[command(hide = true)]
    StandIn {
        /// The process that has ended
        #[arg(long, value_name = "PROCESS")]
        after: i32,
        /// How it has ended
        #[arg(long, value_name = "WORDS")]
        ended: Option<String>,
        /// The signal by which it has ended
        #[arg(long, value_name = "NUMBER")]
        by: Option<i32>,
        /// Its control socket
        #[arg(long, value_name = "PATH")]
        control: PathBuf,
    },
    /// Tries what a restricted process must not be able to do, and prints the outcome; for tests.
    #[command(hide = true)]
    ProbeSandbox {
        /// The kind of process
        process: Confined,
        /// What is tried
        attempt: String,
    },
}

/// How the process of a gateway is started.
#[derive(clap::Args)]
struct GatewayOptions {
    /// Become this user and group, as UID:GID
    #[arg(long, value_name = "UID:GID", value_parser = ids)]
    user: Option<(u32, u32)>,
    /// Make all mounts of its own mount namespace read-only
    #[arg(long)]
    own_mounts: bool,
    /// The descriptor of the open folder of its leases
    #[arg(long, value_name = "DESCRIPTOR", num_args = 0..=1, require_equals = true,
          default_missing_value = "3")]
    leases: Option<i32>,
    /// How strictly files and system calls are restricted
    #[arg(long, default_value_t)]
    sandbox: trama_sandbox::Mode,
}

impl From<GatewayOptions> for trama_gateway::process::Options {
    fn from(options: GatewayOptions) -> Self {
        let GatewayOptions { user, own_mounts, leases, sandbox } = options;
        Self { user, own_mounts, leases, sandbox }
    }
}

/// Reads how long a stop may be delayed: up to an hour.
fn linger(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= LONGEST_LINGER);
    seconds.ok_or_else(|| format!("{text:?} is not a number of seconds from 0 to {LONGEST_LINGER}"))
}

/// Reads a user and a group, by numbers.
fn ids(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(user, group)| {
        let numbers = (user.parse().ok()?, group.parse().ok()?);
        Some(numbers)
    });
    numbers.ok_or_else(|| format!("{text:?} is not UID:GID"))
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    process_name::take();
    let mut options = Options::parse();
    let limit = options.bridge.map(Duration::from_secs);
    let origin = match options.command.take() {
        None => match limit {
            Some(limit) => Origin::Bridges { limit },
            None => Origin::Started { takes_over: options.take_over },
        },
        Some(Subcommand::StandIn { after, ended, by, control }) => {
            Origin::StandsIn { after, ended, by, control, limit }
        }
        Some(Subcommand::Gateway(options)) => {
            return ended(|| trama_gateway::process::run(options.into()));
        }
        Some(Subcommand::Helper) => return ended(trama_helper::run),
        Some(Subcommand::Keeper { sandbox }) => return ended(|| trama_keeper::run(sandbox)),
        Some(Subcommand::ProbeSandbox { process, attempt }) => {
            return ended(|| process.probe(&attempt));
        }
    };
    let arguments = own_arguments(&options);
    let source = match source(options.config, options.user) {
        Ok(source) => source,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    if options.check {
        return describe::check(&source);
    }
    start_log(options.log_format);
    // Before anything is opened: each port takes some.
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    panics::end_process(|text| tracing::error!("{text}"));
    match run(source, &origin, arguments, options.linger) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// The arguments with which a stand-in or a successor has the same files and log as this process.
fn own_arguments(options: &Options) -> Vec<OsString> {
    let format = options.log_format.to_possible_value();
    let format = format.map(|value| format!("--log-format={}", value.get_name()));
    let config = options.config.iter().flat_map(|file| ["--config".into(), file.into()]);
    let user = options.user.then(|| "--user".into());
    let linger = (options.linger > 0).then(|| format!("--linger={}", options.linger).into());
    config.chain(user).chain(format.map(OsString::from)).chain(linger).collect()
}

/// Chooses the configuration file and the default folders.
fn source(stated: Option<PathBuf>, wants_user: bool) -> Result<Source, String> {
    let folders = Folders::of_process(wants_user);
    let may_be_missing = stated.is_none();
    let file = stated.unwrap_or_else(|| folders.config.clone());
    if file.as_os_str().is_empty() {
        let message = "neither XDG_CONFIG_HOME nor HOME is set; name a configuration with --config";
        return Err(message.to_owned());
    }
    Ok(Source { file, folders, may_be_missing, text: String::new() })
}

/// Runs a process that a daemon has started, or a test; returns its exit status.
fn ended<E: Display>(run: impl FnOnce() -> Result<(), E>) -> ExitCode {
    panics::end_process(|text| eprintln!("{text}"));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TRAMA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(
    mut source: Source,
    origin: &Origin,
    arguments: Vec<OsString>,
    linger: u64,
) -> Result<(), String> {
    // The file may be replaced later.
    let program = std::env::current_exe().map_err(|error| format!("the program: {error}"))?;
    let started = Instant::now();
    let notifier = Arc::new(Notifier::from_environment());
    let (mut config, found) = match read(&mut source, origin) {
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
    // The sockets come first: a second daemon must end before it disturbs the first one's ports.
    let (seat, listeners) = match take_sockets(&config.daemon, origin, found) {
        Err(NotTaken::Taken(pid)) => return give_way(&config.daemon.control, pid, origin),
        Err(NotTaken::Failed(message)) => return Err(message),
        Ok(taken) => taken,
    };
    let follows = seat.as_ref().is_some_and(|seat| seat.resumes);
    let previous = seat.as_ref().and_then(|seat| seat.previous.clone());
    let crashes = Crashes::follow(seat.as_ref(), signal_before(origin));
    let keeper = seat.map(|seat| seat.keeper);
    let resumes = follows && !crashes.starts_cold();
    if crashes.starts_cold()
        && let Some(keeper) = &keeper
    {
        // All that was not asked for by now.
        keeper.settle().map_err(|error| format!("the keeper does not work: {error}"))?;
    }
    let setup = Setup {
        arguments,
        bridges: origin.limit().map(|limit| limit.as_secs()),
        program,
        follows: follows && previous.is_none(),
        is_beside: previous.is_some(),
        ..source.helper_setup(&config.daemon, true)
    };
    let (rights, missing) = match origin {
        Origin::Started { .. } | Origin::Bridges { .. } => Rights::start_helper(&setup),
        Origin::StandsIn { .. } => Rights::of_starter(&setup),
    }
    .map_err(|error| format!("the helper does not run: {error}"))?;
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
    export::start(&daemon).map_err(|error| format!("thread: {error}"))?;
    let hand_over = keeper.clone().map(|keeper| HandOver::new(keeper, rights.clone()));
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
    // First, so that no stand-in follows whatever happens from here on.
    rights.end(false);
    daemon.stop();
    // One that has ended keeps nothing.
    let _ = keeper.map(|keeper| keeper.end());
    if served.is_ok() {
        tracing::info!("ended");
    }
    served
}

/// Reads the configuration. If the file has faults by now, a stand-in goes on with what was in
/// force; then the keeper is returned, too, from which it has that.
///
/// # Errors
/// The file has faults, and nothing else is known; or another process goes on.
fn read(source: &mut Source, origin: &Origin) -> Result<(Config, Option<Seat>), NotTaken> {
    let faults = match source.read() {
        Ok(config) => return Ok((config, None)),
        Err(faults) => faults.to_string(),
    };
    let Origin::StandsIn { control, .. } = origin else { return Err(NotTaken::Failed(faults)) };
    let found = match succession::follow(control, origin) {
        Err(ClaimError::Taken(pid)) => return Err(NotTaken::Taken(pid)),
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
enum NotTaken {
    /// A process is the switch.
    Taken(i32),
    /// Another reason, in words.
    Failed(String),
}

/// Finds the keeper and the sockets, or makes them. Another process may just start as well: it may
/// have the one, and this process the other.
fn take_sockets(
    daemon: &DaemonConfig,
    origin: &Origin,
    mut found: Option<Seat>,
) -> Result<(Option<Seat>, Listeners), NotTaken> {
    for tries in 1..=SOCKET_TRIES {
        if found.is_none() {
            found = match succession::follow(&daemon.control, origin) {
                Err(ClaimError::Taken(pid)) => return Err(NotTaken::Taken(pid)),
                followed => followed.map_err(|error| NotTaken::Failed(error.to_string()))?,
            };
        }
        let is_last = tries == SOCKET_TRIES;
        match Listeners::open(daemon, found.as_ref().map(|seat| &seat.keeper)) {
            Err(message) if is_last => return Err(NotTaken::Failed(message)),
            // The keeper may have ended meanwhile, and the switch that has the sockets have a new
            // one.
            Err(_) => found = None,
            Ok(listeners) if found.is_some() => return Ok((found, listeners)),
            Ok(listeners) => {
                match succession::start_keeper(&daemon.control, daemon.sandbox, origin) {
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
fn signal_before(origin: &Origin) -> Option<i32> {
    match origin {
        Origin::StandsIn { by, .. } => *by,
        Origin::Started { .. } | Origin::Bridges { .. } => None,
    }
}

/// Leaves the place to the process that has it.
fn give_way(control: &Path, pid: i32, origin: &Origin) -> Result<(), String> {
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
fn decline(pid: i32) {
    tracing::info!("process {pid} goes on; ends");
    Rights::decline();
}

/// Gives the keeper copies of the sockets.
fn keep(listeners: Listeners, daemon: &DaemonConfig, keeper: Option<&Keeper>) -> Listeners {
    if let Some(keeper) = keeper
        && let Err(error) = listeners.keep(daemon, keeper)
    {
        tracing::warn!("a restart will close the control socket: {error}");
    }
    listeners
}

fn serve(
    daemon: &Arc<Daemon>,
    (control, metrics): (std::os::unix::net::UnixListener, Option<std::net::TcpListener>),
    start: &Start,
    origin: &Origin,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let served = runtime.block_on(async {
        let control = UnixListener::from_std(control)?;
        let metrics = metrics.map(TcpListener::from_std).transpose()?;
        let signals = Signals::install()?;
        let (serves, is_serving) = tokio::sync::oneshot::channel();
        let building = tokio::task::spawn_blocking({
            let (daemon, start) = (daemon.clone(), start.clone());
            move || start.build(&daemon, serves)
        });
        let maintenance = tokio::spawn({
            let (daemon, start) = (daemon.clone(), start.clone());
            async move {
                if building.await.is_ok() && daemon.is_running() {
                    announce(&daemon, &start);
                    maintain(daemon).await;
                }
            }
        });
        let mut ended = pin!(async {
            tokio::select! {
                () = wait_for_end(signals, daemon, &start.notifier, start.linger) => {}
                () = lose_control(daemon), if !matches!(origin, Origin::Started { .. }) => {}
                () = wait_in_vain(origin) => {}
            }
        });
        tokio::select! {
            _ = is_serving => api::serve(daemon.clone(), control, metrics, ended).await,
            () = &mut ended => {
                if start.take_over.as_ref().is_some_and(TakeOver::give_up) {
                    // Dropping anything would close what the other one has.
                    std::process::exit(0);
                }
            }
        }
        daemon.give_up_building();
        maintenance.abort();
        Ok(())
    });
    served.map_err(|error: io::Error| format!("control: {error}"))
}

/// How the start goes on once everything can be built.
#[derive(Clone)]
struct Start {
    notifier: Arc<Notifier>,
    started: Instant,
    /// The way from a switch that still runs.
    take_over: Option<TakeOver>,
    /// For how many seconds another process goes on at SIGTERM; 0: for none.
    linger: u64,
}

impl Start {
    /// Builds everything; `serves` is told when this is the switch that users steer. A large
    /// configuration takes seconds, in which the control socket answers, unless another switch
    /// still does.
    fn build(&self, daemon: &Daemon, serves: tokio::sync::oneshot::Sender<()>) {
        // The receiver is gone if the daemon ends already.
        let Some(take_over) = &self.take_over else {
            let _ = serves.send(());
            return daemon.build();
        };
        match take_over.build(daemon, &self.notifier, self.started) {
            Ok(()) => drop(serves.send(())),
            Err(error) => {
                tracing::error!("does not take over: {error}");
                // Dropping anything would close what the other one has.
                std::process::exit(1);
            }
        }
    }
}

/// Says that the start is over.
fn announce(daemon: &Daemon, Start { notifier, started, .. }: &Start) {
    let config = daemon.config();
    tracing::info!(
        "ready after {:.1?}: {} networks, {} ports, {} workers, control socket {}",
        started.elapsed(),
        config.networks.len(),
        config.ports.len(),
        config.daemon.workers,
        config.daemon.control.display(),
    );
    daemon.announce();
    notifier.send("READY=1");
}

/// Handles vanished devices, loaded workers, storms and loops, and tries again to start ports that
/// do not run. Sleeps while every port runs and nothing is suspected.
async fn maintain(daemon: Arc<Daemon>) {
    let event = match daemon.event().and_then(UnixStream::from_std) {
        Ok(event) => event,
        Err(error) => {
            tracing::error!("vanished devices and load will not be noticed: {error}");
            return;
        }
    };
    let mut next = None;
    loop {
        // Events in between do not delay the retry.
        next = match daemon.retries_by_time() {
            false => None,
            true => next.or_else(|| Some(tokio::time::Instant::now() + RETRY)),
        };
        let retry = async {
            match next {
                None => std::future::pending().await,
                Some(at) => tokio::time::sleep_until(at).await,
            }
        };
        let flood_check = async {
            match daemon.next_flood_check() {
                None => std::future::pending().await,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        };
        tokio::select! {
            _ = event.readable() => {
                while event.try_read(&mut [0; 256]).is_ok_and(|length| length > 0) {}
                daemon.handle_events();
            }
            () = retry => {
                daemon.retry();
                next = None;
            }
            () = flood_check => daemon.follow_floods(),
        }
    }
}
