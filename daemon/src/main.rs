//! `tramad`, the daemon.
//!
//! Reads the configuration, starts the workers, serves the control socket on a runtime that handles
//! no frames, and waits for signals.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trama_api::folders::Folders;
use trama_daemon::config::model::{
    Config, DaemonConfig, Interface, Role, Tap, Uplink, VhostUser, Vlan,
};
use trama_daemon::notify::Notifier;
use trama_daemon::socket::ControlSocket;
use trama_daemon::state::{Daemon, Source};
use trama_daemon::watchdog::Watchdog;
use trama_daemon::{api, config, confinement, descriptors, host, panics};
use trama_helper::Rights;
use trama_vhost_net_backend::{Access, access};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;
/// How often ports that do not run are tried again.
const RETRY: Duration = Duration::from_secs(5);

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
    /// Tries what a restricted process must not be able to do, and prints the outcome; for tests.
    #[command(hide = true)]
    ProbeSandbox {
        /// The kind of process
        process: Confined,
        /// What is tried
        attempt: String,
    },
}

/// A kind of process that is restricted.
#[derive(Clone, Copy, ValueEnum)]
enum Confined {
    Switch,
    Gateway,
    Helper,
    Keeper,
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
    let options = Options::parse();
    if let Some(command) = options.command {
        panics::end_process(|text| eprintln!("{text}"));
        return match command {
            Subcommand::Gateway(options) => ended(trama_gateway::process::run(options.into())),
            Subcommand::Helper => ended(trama_helper::run()),
            Subcommand::Keeper { sandbox } => ended(trama_keeper::run(sandbox)),
            Subcommand::ProbeSandbox { process, attempt } => probe(process, &attempt),
        };
    }
    let source = match source(options.config, options.user) {
        Ok(source) => source,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    if options.check {
        return check(&source);
    }
    start_log(options.log_format);
    // Before anything is opened: each port takes some.
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    panics::end_process(|text| tracing::error!("{text}"));
    match run(source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
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

/// The exit status of a process that a daemon has started.
fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Enters the sandbox of a process, tries something and prints the outcome.
fn probe(process: Confined, attempt: &str) -> ExitCode {
    match confine(process).map(|missing| (missing, trama_sandbox::probe::attempt(attempt))) {
        Ok((missing, Some(outcome))) => {
            missing.iter().for_each(|missing| println!("missing: {missing}"));
            match outcome {
                Ok(()) => println!("done"),
                Err(error) => println!("refused: {error}"),
            }
            ExitCode::SUCCESS
        }
        Ok((_, None)) => {
            eprintln!("{attempt:?} is not known");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Restricts this process. Returns what is not in force.
fn confine(process: Confined) -> io::Result<Vec<String>> {
    use trama_sandbox::{CapabilitySet, Mode, Process, keep_only, restrict_calls};
    match process {
        Confined::Gateway => {
            let user = rustix::process::geteuid().is_root().then_some((NOBODY, NOBODY));
            let options = trama_gateway::process::Options { user, ..Default::default() };
            trama_gateway::process::confine(options)
        }
        Confined::Switch => {
            confinement::enter(Mode::Enforce)?;
            Ok(confinement::missing())
        }
        Confined::Helper => {
            keep_only(CapabilitySet::empty())?;
            let missing = restrict_calls(Process::Helper, Mode::Enforce).err();
            Ok(missing.iter().map(ToString::to_string).collect())
        }
        Confined::Keeper => trama_keeper::confine(Mode::Enforce),
    }
}

/// Prints what a configuration would build, or all its faults.
fn check(source: &Source) -> ExitCode {
    let name = source.file.display().to_string();
    let text = match std::fs::read_to_string(&source.file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{name}: {error}; name a configuration with --config FILE");
            return ExitCode::FAILURE;
        }
    };
    match config::parse_on(&text, &name, &source.folders, host::problems) {
        Ok(config) => {
            describe(&config);
            ExitCode::SUCCESS
        }
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints one line for each network and port that would be built.
fn describe(config: &Config) {
    for network in &config.networks {
        let mut words = format!("{}, MTU {}", network.mode.name(), network.mtu);
        for subnet in network.subnets() {
            words.push_str(&format!(", {subnet}"));
        }
        if let Some(uplink) = &network.uplink {
            words.push_str(&format!(", uplink {uplink}"));
        }
        println!("network {}: {words}", network.name);
    }
    for network in &config.expanded().networks {
        for (kind, rules) in [("forward", &network.forward), ("loopback", &network.loopback)] {
            for rule in rules {
                println!("{kind} {} on {}: {rule}", rule.label(), network.name);
            }
        }
    }
    for port in &config.expanded().ports {
        let device = match &port.interface {
            Interface::VhostUser(VhostUser { path, role: Role::Server, .. }) => {
                format!("vhost-user, listens on {}", path.display())
            }
            Interface::VhostUser(VhostUser { path, role: Role::Client, .. }) => {
                format!("vhost-user, connects to {}", path.display())
            }
            Interface::Tap(Tap { ifname, netns: None, .. }) => format!("TAP {ifname}"),
            Interface::Tap(Tap { ifname, netns: Some(netns), .. }) => {
                format!("TAP {ifname} in namespace {netns}")
            }
            Interface::Uplink(Uplink { ifname }) => format!("uplink {ifname}"),
        };
        // Printed as written: a port of a network of mode `nat` runs on a network of its own.
        let written = config.port(&port.name).unwrap_or(port);
        let place = match &written.network {
            Some(network) => format!("on {network}, {}", vlans(&written.vlan)),
            None => "not attached".to_owned(),
        };
        println!("port {}: {device}; {place}", port.name);
    }
}

/// Describes the VLANs of a port in a few words.
fn vlans(vlan: &Vlan) -> String {
    let mut words = vlan.mode_or_default().name().to_owned();
    if let Some(tag) = vlan.tag {
        words.push_str(&format!(", VLAN {tag}"));
    }
    if !vlan.trunks.is_empty() {
        let trunks: Vec<String> = vlan.trunks.iter().map(u16::to_string).collect();
        words.push_str(&format!(", trunks {}", trunks.join(" ")));
    }
    words
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TRAMA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(mut source: Source) -> Result<(), String> {
    let started = Instant::now();
    let notifier = Arc::new(Notifier::from_environment());
    let config = source.read().map_err(|error| error.to_string())?;
    if source.may_be_missing {
        let file = source.file.display();
        tracing::info!("{file} is not there: nothing is set up, and the first change makes it");
    }
    // The sockets come first: a second daemon must end before it disturbs the first one's ports.
    let access = control_access(&config.daemon)?;
    let (socket, control) =
        ControlSocket::bind(&config.daemon.control, &access).map_err(|fault| fault.to_string())?;
    let metrics = config.daemon.metrics.map(bind_metrics).transpose()?;
    let setup = source.helper_setup(&config.daemon, true);
    let (rights, missing) = Rights::start_helper(&setup)
        .map_err(|error| format!("the helper does not run: {error}"))?;
    confinement::note_missing(&missing);
    socket.leave();
    confinement::enter(config.daemon.sandbox)
        .map_err(|error| format!("capabilities cannot be dropped: {error}"))?;
    let daemon = Daemon::prepare(source, config, rights).map_err(|error| error.to_string())?;
    let served = serve(&daemon, control, metrics, &notifier, started);
    notifier.send("STOPPING=1");
    daemon.stop();
    if served.is_ok() {
        tracing::info!("ended");
    }
    served
}

/// Returns the users that may connect to the control socket and so do everything: its owner and its
/// group. A user's daemon has a group only if one is named.
fn control_access(daemon: &DaemonConfig) -> Result<Access, String> {
    let group = daemon.group.as_deref().map(access::group_id).transpose();
    let group = group.map_err(|error| format!("daemon.group: {error}"))?;
    let is_shared = group.is_some() || !daemon.folders.is_private;
    Ok(Access { owner: None, group, mode: Some(if is_shared { 0o660 } else { 0o600 }) })
}

fn bind_metrics(address: SocketAddr) -> Result<std::net::TcpListener, String> {
    let bind = |address: SocketAddr| -> io::Result<_> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let no_ipv6 = Some(Errno::AFNOSUPPORT.raw_os_error());
    let bound = match bind(address) {
        // On a host without IPv6, `::` stands for all IPv4 addresses.
        Err(error) if error.raw_os_error() == no_ipv6 && address.ip() == Ipv6Addr::UNSPECIFIED => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    };
    bound.map_err(|error: io::Error| {
        format!("{address}: {error}; set another address as daemon.metrics")
    })
}

fn serve(
    daemon: &Arc<Daemon>,
    control: std::os::unix::net::UnixListener,
    metrics: Option<std::net::TcpListener>,
    notifier: &Arc<Notifier>,
    started: Instant,
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
        let ended = wait_for_end(signals, daemon, notifier);
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
