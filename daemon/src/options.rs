//! The command line of `tramad`, and of the processes that it starts.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::probe::Confined;

/// The most that `--linger` may say, in seconds.
const LONGEST_LINGER: u64 = 3600;

/// The trama daemon: a switch for virtual machines, containers and namespaces.
#[derive(Parser)]
#[command(name = "tramad", version)]
pub(crate) struct Options {
    /// Read the configuration from FILE, not from the default location, where it may be missing
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use the calling user's folders (XDG) for all files; the default for users other than root
    #[arg(long)]
    pub(crate) user: bool,
    /// Validate the configuration, print what it would build, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Format of the log on standard error; TRAMA_LOG filters it, for example "warn" or
    /// "trama_daemon=debug"
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Take over from a tramad that runs, which then ends
    #[arg(long)]
    pub(crate) take_over: bool,
    /// At SIGTERM, let another process go on for this long, from which the next tramad takes over,
    /// so that a restart is not noticed; if none does, everything ends then
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = linger)]
    pub(crate) linger: u64,
    /// Be a service with a user of its own: use the system's folders, and the helper that the
    /// service manager starts for each tramad that connects to this socket
    #[arg(long, value_name = "SOCKET", conflicts_with = "user")]
    pub(crate) helper: Option<PathBuf>,
    /// Take over until the next tramad is started, for this long at most; only a helper says so
    #[arg(long, value_name = "SECONDS", hide = true, conflicts_with = "take_over")]
    pub(crate) bridge: Option<u64>,
    #[command(subcommand)]
    pub(crate) command: Option<Subcommand>,
}

/// What the program does instead of running the daemon.
#[derive(clap::Subcommand)]
pub(crate) enum Subcommand {
    /// The gateway of a network; only a daemon starts it.
    #[command(hide = true)]
    Gateway(GatewayOptions),
    /// The process that serves browsers; only a daemon starts it.
    #[command(hide = true)]
    Web(WebOptions),
    /// The process that opens devices and sockets for the daemon; only a daemon starts it, or a
    /// service manager for a daemon that has connected.
    #[command(hide = true)]
    Helper {
        /// Serve a daemon of this user, which has connected to standard input
        #[arg(long = "for", value_name = "USER")]
        user: Option<String>,
        /// The configuration of that daemon
        #[arg(long, value_name = "FILE", requires = "user")]
        config: Option<PathBuf>,
    },
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
pub(crate) struct GatewayOptions {
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

/// How the process that serves browsers is started.
#[derive(clap::Args)]
pub(crate) struct WebOptions {
    /// Become this user and group, as UID:GID
    #[arg(long, value_name = "UID:GID", value_parser = ids)]
    user: Option<(u32, u32)>,
    /// Make all mounts of its own mount namespace read-only
    #[arg(long)]
    own_mounts: bool,
    /// How strictly files and system calls are restricted
    #[arg(long, default_value_t)]
    sandbox: trama_sandbox::Mode,
}

impl From<WebOptions> for trama_web::process::Options {
    fn from(options: WebOptions) -> Self {
        let WebOptions { user, own_mounts, sandbox } = options;
        Self { user, own_mounts, sandbox }
    }
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
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for trama_log::Format {
    fn from(format: LogFormat) -> trama_log::Format {
        match format {
            LogFormat::Text => trama_log::Format::Text,
            LogFormat::Json => trama_log::Format::Json,
        }
    }
}
