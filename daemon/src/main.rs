//! `tramad`, the daemon.
//!
//! Reads the configuration, starts the workers, serves the control socket on a runtime that handles
//! no frames, and waits for signals.
#![forbid(unsafe_code)]

mod probe;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trama_api::folders::Folders;
use trama_daemon::config::model::DaemonConfig;
use trama_daemon::listeners::Listeners;
use trama_daemon::notify::Notifier;
use trama_daemon::state::{Daemon, Source};
use trama_daemon::succession::{self, ClaimError, Origin, Seat};
use trama_daemon::watchdog::Watchdog;
use trama_daemon::{api, confinement, describe, descriptors, panics};
use trama_helper::{Rights, Setup};
use trama_keeper::Keeper;

use probe::Confined;

/// How often ports that do not run are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often a stand-in checks that its control socket is still there.
const CONTROL_CHECK: Duration = Duration::from_secs(10);

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
    let mut options = Options::parse();
    let origin = match options.command.take() {
        None => Origin::Started { takes_over: options.take_over },
        Some(Subcommand::StandIn { after, ended, control }) => {
            Origin::StandsIn { after, ended, control }
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
    let stand_in = stand_in_arguments(&options);
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
    match run(source, &origin, stand_in) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// The arguments with which a stand-in has the same files and log as this process.
fn stand_in_arguments(options: &Options) -> Vec<OsString> {
    let format = options.log_format.to_possible_value();
    let format = format.map(|value| format!("--log-format={}", value.get_name()));
    let config = options.config.iter().flat_map(|file| ["--config".into(), file.into()]);
    let user = options.user.then(|| "--user".into());
    config.chain(user).chain(format.map(OsString::from)).collect()
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
    Ok(Source { file, folders, may_be_missing })
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

fn run(mut source: Source, origin: &Origin, stand_in: Vec<OsString>) -> Result<(), String> {
    let started = Instant::now();
    let notifier = Arc::new(Notifier::from_environment());
    let mut config = source.read().map_err(|error| error.to_string())?;
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
    let control = &config.daemon.control;
    let found = match succession::follow(control, origin) {
        Err(ClaimError::Taken(pid)) => return give_way(control, pid, origin),
        found => found.map_err(|error| format!("the keeper does not work: {error}"))?,
    };
    let listeners = Listeners::open(&config.daemon, found.as_ref().map(|seat| &seat.keeper))?;
    // Only now: until here, the one before goes on if this one does not start.
    if let Some(seat) = &found {
        seat.keeper.go().map_err(|error| error.to_string())?;
    }
    let seat = found.or_else(|| start_keeper(&config.daemon, origin));
    let resumes = seat.as_ref().is_some_and(|seat| seat.resumes);
    let keeper = seat.map(|seat| seat.keeper);
    let setup = Setup { stand_in, follows: resumes, ..source.helper_setup(&config.daemon, true) };
    let (rights, missing) = match origin {
        Origin::Started { .. } => Rights::start_helper(&setup),
        Origin::StandsIn { .. } => Rights::of_starter(&setup),
    }
    .map_err(|error| format!("the helper does not run: {error}"))?;
    confinement::note_missing(&missing);
    let Listeners { control, file, metrics } = keep(listeners, &config.daemon, keeper.as_ref());
    if let Some(file) = file {
        // The helper removes it.
        file.leave();
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
    let rights = rights.with_keeper(keeper.clone());
    let prepared = Daemon::prepare(source, config, rights.clone());
    let daemon = prepared.map_err(|error| error.to_string())?;
    if resumes {
        daemon.hold();
    }
    if let Some(keeper) = keeper.clone() {
        succession::hand_over_when_told(keeper, rights.clone(), daemon.workers())
            .map_err(|error| format!("thread: {error}"))?;
    }
    let served = serve(&daemon, (control, metrics), &notifier, started, origin);
    notifier.send("STOPPING=1");
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

/// Leaves the place to the process that has it.
fn give_way(control: &Path, pid: i32, origin: &Origin) -> Result<(), String> {
    match origin {
        Origin::Started { .. } => Err(succession::taken(control).to_string()),
        Origin::StandsIn { .. } => {
            tracing::info!("process {pid} goes on; ends");
            Rights::decline();
            Ok(())
        }
    }
}

/// Starts a keeper. Without one, guests lose their link when the daemon ends, as a warning says.
fn start_keeper(daemon: &DaemonConfig, origin: &Origin) -> Option<Seat> {
    let started = succession::start_keeper(&daemon.control, daemon.sandbox, origin);
    let warn = |error: &io::Error| {
        tracing::warn!("no keeper: {error}; a restart will disconnect guests");
    };
    started.inspect_err(warn).ok()
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
    notifier: &Arc<Notifier>,
    started: Instant,
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
        // A large configuration takes seconds, in which the control socket answers.
        let building = tokio::task::spawn_blocking({
            let daemon = daemon.clone();
            move || daemon.build()
        });
        let maintenance = tokio::spawn({
            let (daemon, notifier) = (daemon.clone(), notifier.clone());
            async move {
                if building.await.is_ok() && daemon.is_running() {
                    announce(&daemon, &notifier, started);
                    maintain(daemon).await;
                }
            }
        });
        let ended = async {
            tokio::select! {
                () = wait_for_end(signals, daemon, notifier) => {}
                () = lose_control(daemon), if matches!(origin, Origin::StandsIn { .. }) => {}
            }
        };
        api::serve(daemon.clone(), control, metrics, ended).await;
        daemon.give_up_building();
        maintenance.abort();
        Ok(())
    });
    served.map_err(|error: io::Error| format!("control: {error}"))
}

/// Says that the start is over.
fn announce(daemon: &Daemon, notifier: &Notifier, started: Instant) {
    let config = daemon.config();
    tracing::info!(
        "ready after {:.1?}: {} networks, {} ports, {} workers, control socket {}",
        started.elapsed(),
        config.networks.len(),
        config.ports.len(),
        config.daemon.workers,
        config.daemon.control.display(),
    );
    notifier.send("READY=1");
}

/// The signals that the daemon handles.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Handles signals and the watchdog until a signal ends the daemon.
async fn wait_for_end(mut signals: Signals, daemon: &Arc<Daemon>, notifier: &Notifier) {
    let period = notifier.watchdog.unwrap_or(RETRY);
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let mut watchdog = Watchdog::new(daemon.workers());
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(daemon),
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = alive.tick(), if notifier.watchdog.is_some() => {
                if watchdog.beat() {
                    notifier.send("WATCHDOG=1");
                }
            }
        }
    }
}

/// Waits until the control socket's file is gone, without which nobody can steer a stand-in.
async fn lose_control(daemon: &Daemon) {
    let control = &daemon.started_with().control;
    while control.exists() {
        tokio::time::sleep(CONTROL_CHECK).await;
    }
    tracing::info!("{} is gone; ends", control.display());
}

fn reload(daemon: &Daemon) {
    match daemon.reload() {
        Ok(done) => tracing::info!("reloaded: {} steps", done.steps.len()),
        Err(faults) => {
            faults.iter().for_each(|fault| tracing::error!("{fault}"));
            tracing::error!("not reloaded: nothing has changed");
        }
    }
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
        next = match daemon.runs_all_ports() {
            true => None,
            false => next.or_else(|| Some(tokio::time::Instant::now() + RETRY)),
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
