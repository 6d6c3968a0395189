//! `tramad`, the daemon.
//!
//! Reads the configuration, starts the workers, serves the control socket on a runtime of its
//! own that no frame ever meets, and waits for signals.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trama_daemon::config::model::{Config, Interface, Role, Tap, Uplink, VhostUser, Vlan};
use trama_daemon::notify::Notifier;
use trama_daemon::socket::ControlSocket;
use trama_daemon::state::Daemon;
use trama_daemon::{api, config, host};

/// How often ports that do not run are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The trama daemon: a switch for virtual machines, containers and namespaces.
#[derive(Parser)]
#[command(name = "tramad", version)]
struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/trama/trama.toml")]
    config: PathBuf,
    /// Validate the configuration, print what would be built, and exit.
    #[arg(long)]
    check: bool,
    /// How log lines are written to standard error. TRAMA_LOG filters them, as in
    /// "warn" or "trama_daemon=debug".
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Part>,
}

/// What the program can be beside the daemon.
#[derive(clap::Subcommand)]
enum Part {
    /// The gateway of a network; only a daemon starts it.
    #[command(hide = true)]
    Gateway,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Part::Gateway) = options.command {
        return gateway();
    }
    if options.check {
        return check(&options.config);
    }
    start_log(options.log_format);
    match run(&options.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

fn gateway() -> ExitCode {
    match trama_nat::process::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what a configuration would build, or everything that is wrong with it.
fn check(file: &Path) -> ExitCode {
    let name = file.display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{name}: {error}; name a configuration with --config FILE");
            return ExitCode::FAILURE;
        }
    };
    match config::parse_on(&text, &name, host::problems) {
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

/// One line for each thing that would be built.
fn describe(config: &Config) {
    for network in &config.networks {
        let mut words = format!("{}, MTU {}", network.mode.name(), network.mtu);
        for (address, prefix) in network.subnets() {
            words.push_str(&format!(", {address}/{prefix}"));
        }
        if let Some(uplink) = &network.uplink {
            words.push_str(&format!(", uplink {uplink}"));
        }
        println!("network {}: {words}", network.name);
    }
    for network in &config.laid_out().networks {
        for (kind, rules) in [("forward", &network.forward), ("loopback", &network.loopback)] {
            for rule in rules {
                println!("{kind} {} on {}: {rule}", rule.label(), network.name);
            }
        }
    }
    for port in &config.ports {
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
        let place = match &port.network {
            Some(network) => format!("on {network}, {}", vlans(&port.vlan)),
            None => "not attached".to_owned(),
        };
        println!("port {}: {device}; {place}", port.name);
    }
}

/// The VLANs of a port in a few words.
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

fn run(file: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let notifier = Notifier::from_environment();
    let config = Daemon::read(file).map_err(|error| error.to_string())?;
    // The sockets come first: where another daemon has them, its ports are not disturbed.
    let (socket, control) = ControlSocket::bind(&config.daemon.control)?;
    let metrics = config.daemon.metrics.map(bind_metrics).transpose()?;
    let daemon = Daemon::start_with(file.to_owned(), config).map_err(|error| error.to_string())?;
    let served = serve(&daemon, control, metrics, &notifier, begun);
    notifier.send("STOPPING=1");
    daemon.stop();
    drop(socket);
    if served.is_ok() {
        tracing::info!("ended");
    }
    served
}

fn bind_metrics(address: SocketAddr) -> Result<std::net::TcpListener, String> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error: io::Error| {
        format!("{address}: {error}; set another address as daemon.metrics")
    })
}

fn serve(
    daemon: &Arc<Daemon>,
    control: std::os::unix::net::UnixListener,
    metrics: Option<std::net::TcpListener>,
    notifier: &Notifier,
    begun: Instant,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let served = runtime.block_on(async {
        let control = UnixListener::from_std(control)?;
        let metrics = metrics.map(TcpListener::from_std).transpose()?;
        let signals = Signals::catch()?;
        let tended = tokio::spawn(tend(daemon.clone()));
        let config = daemon.config();
        tracing::info!(
            "ready after {:.1?}: {} networks, {} ports, {} workers, control socket {}",
            begun.elapsed(),
            config.networks.len(),
            config.ports.len(),
            config.daemon.workers,
            config.daemon.control.display(),
        );
        notifier.send("READY=1");
        let ended = until_ended(signals, daemon, notifier);
        let served = api::serve(daemon.clone(), control, metrics, ended).await;
        tended.abort();
        served
    });
    served.map_err(|error: io::Error| format!("control: {error}"))
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Handles signals and the watchdog until one of the signals says to end.
async fn until_ended(mut signals: Signals, daemon: &Arc<Daemon>, notifier: &Notifier) {
    let mut alive = tokio::time::interval(notifier.watchdog.unwrap_or(RETRY));
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(daemon),
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = alive.tick(), if notifier.watchdog.is_some() => notifier.send("WATCHDOG=1"),
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

/// Looks after ports that do not run (notices vanished devices, and tries again now and then) and
/// after loaded workers. Sleeps while all is well.
async fn tend(daemon: Arc<Daemon>) {
    let event = match daemon.event().and_then(UnixStream::from_std) {
        Ok(event) => event,
        Err(error) => {
            tracing::error!("vanished devices and load will not be noticed: {error}");
            return;
        }
    };
    let mut next = None;
    loop {
        // What happens meanwhile does not put it off.
        next = match daemon.is_whole() {
            true => None,
            false => next.or_else(|| Some(tokio::time::Instant::now() + RETRY)),
        };
        let retry = async {
            match next {
                None => std::future::pending().await,
                Some(at) => tokio::time::sleep_until(at).await,
            }
        };
        tokio::select! {
            _ = event.readable() => {
                while event.try_read(&mut [0; 256]).is_ok_and(|length| length > 0) {}
                daemon.tend();
            }
            () = retry => {
                daemon.retry();
                next = None;
            }
        }
    }
}
