//! Helper processes of a measurement: hidden commands of this program.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Subcommand;
use trama_bench::generator::Forwarding;

use crate::process::Result;
use crate::{delay, load, peers};

/// A helper process.
#[derive(Subcommand)]
pub(crate) enum Helper {
    /// Run the peer `virtio-queue`
    #[command(name = peers::virtio_queue::COMMAND, hide = true)]
    VirtioQueuePeer { first: PathBuf, second: PathBuf },
    /// Run the null device
    #[command(name = peers::null::COMMAND, hide = true)]
    NullDevice {
        #[arg(value_parser = peers::null::forwarding)]
        forwarding: Forwarding,
        sockets: Vec<PathBuf>,
    },
    /// Send broadcast datagrams
    #[command(name = load::BROADCAST_COMMAND, hide = true)]
    BroadcastSource { to: String, seconds: u64 },
    /// Write until the reader closes the connection
    #[command(name = load::SOURCE_COMMAND, hide = true)]
    StreamSource {
        #[command(flatten)]
        streams: load::Streams,
        /// Bytes per write
        #[arg(long, default_value_t = load::WRITE_SIZE)]
        write: usize,
    },
    /// Discard received data and print the rate
    #[command(name = load::SINK_COMMAND, hide = true)]
    StreamSink {
        #[command(flatten)]
        streams: load::Streams,
        seconds: u64,
    },
    /// Echo everything on every connection
    #[command(name = load::ECHO_COMMAND, hide = true)]
    Echo { address: Ipv4Addr },
    /// Open many short connections
    #[command(name = load::CONNECT_COMMAND, hide = true)]
    Connects { address: Ipv4Addr, seconds: u64 },
    /// Send requests on one connection
    #[command(name = load::REQUEST_COMMAND, hide = true)]
    Requests { address: Ipv4Addr, seconds: u64 },
    /// Hold connections open
    #[command(name = load::IDLE_COMMAND, hide = true)]
    IdleConnections { address: Ipv4Addr, count: usize },
    /// Send datagrams
    #[command(name = load::DATAGRAM_SOURCE_COMMAND, hide = true)]
    DatagramSource {
        to: SocketAddr,
        bytes: usize,
        seconds: u64,
        #[arg(long)]
        each_second: Option<u32>,
    },
    /// Count datagrams
    #[command(name = load::DATAGRAM_SINK_COMMAND, hide = true)]
    DatagramSink { at: SocketAddr, seconds: u64 },
    /// Delay frames between two TAPs
    #[command(name = delay::COMMAND, hide = true)]
    Delay { near: String, far: String },
}

impl Helper {
    /// Runs the helper to its end.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::VirtioQueuePeer { first, second } => peers::virtio_queue::serve([first, second]),
            Self::NullDevice { forwarding, sockets } => peers::null::serve(forwarding, &sockets),
            Self::BroadcastSource { to, seconds } => load::broadcast_source(&to, seconds),
            Self::StreamSource { streams, write } => load::source(&streams, write),
            Self::StreamSink { streams, seconds } => load::sink(&streams, seconds),
            Self::Echo { address } => load::echo(address),
            Self::Connects { address, seconds } => load::connects(address, seconds),
            Self::Requests { address, seconds } => load::requests(address, seconds),
            Self::IdleConnections { address, count } => load::hold_open(address, count),
            Self::DatagramSource { to, bytes, seconds, each_second } => {
                load::datagram_source(to, bytes, seconds, each_second)
            }
            Self::DatagramSink { at, seconds } => load::datagram_sink(at, seconds),
            Self::Delay { near, far } => delay::relay(&near, &far),
        }
    }
}
