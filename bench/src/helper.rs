//! The processes that a measurement consists of beside the switch: this program itself, by commands
//! that `--help` does not show.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Subcommand;
use trama_bench::generator::Crossing;

use crate::process::Result;
use crate::{delay, load, peers};

/// One of them.
#[derive(Subcommand)]
pub enum Helper {
    /// The peer of that name.
    #[command(name = peers::virtio_queue::COMMAND, hide = true)]
    VirtioQueuePeer { first: PathBuf, second: PathBuf },
    /// The peer of that name.
    #[command(name = peers::null::COMMAND, hide = true)]
    NullDevice {
        #[arg(value_parser = peers::null::crossing)]
        crossing: Crossing,
        sockets: Vec<PathBuf>,
    },
    /// The generator of broadcasts.
    #[command(name = load::BLAST_COMMAND, hide = true)]
    Blast { to: String, seconds: u64 },
    /// Writes until nobody reads any more.
    #[command(name = load::SOURCE_COMMAND, hide = true)]
    StreamSource {
        #[command(flatten)]
        streams: load::Streams,
        /// Bytes at once.
        #[arg(long, default_value_t = load::PIECE)]
        write: usize,
    },
    /// Drops what comes and tells the rate.
    #[command(name = load::SINK_COMMAND, hide = true)]
    StreamSink {
        #[command(flatten)]
        streams: load::Streams,
        seconds: u64,
    },
    /// Answers every connection with what it says.
    #[command(name = load::ECHO_COMMAND, hide = true)]
    Echo { address: Ipv4Addr },
    /// Many short connections.
    #[command(name = load::CONNECT_COMMAND, hide = true)]
    Connects { address: Ipv4Addr, seconds: u64 },
    /// Requests on one connection.
    #[command(name = load::REQUEST_COMMAND, hide = true)]
    Requests { address: Ipv4Addr, seconds: u64 },
    /// Connections that stay open.
    #[command(name = load::IDLE_COMMAND, hide = true)]
    IdleConnections { address: Ipv4Addr, count: usize },
    /// Sends datagrams.
    #[command(name = load::DATAGRAM_SOURCE_COMMAND, hide = true)]
    DatagramSource {
        to: SocketAddr,
        bytes: usize,
        seconds: u64,
        #[arg(long)]
        each_second: Option<u32>,
    },
    /// Counts datagrams.
    #[command(name = load::DATAGRAM_SINK_COMMAND, hide = true)]
    DatagramSink { at: SocketAddr, seconds: u64 },
    /// The long way between two TAPs.
    #[command(name = delay::COMMAND, hide = true)]
    Delay { near: String, far: String },
}

impl Helper {
    /// Is it, to the end.
    pub fn run(self) -> Result<()> {
        match self {
            Self::VirtioQueuePeer { first, second } => peers::virtio_queue::serve([first, second]),
            Self::NullDevice { crossing, sockets } => peers::null::serve(crossing, &sockets),
            Self::Blast { to, seconds } => load::blast(&to, seconds),
            Self::StreamSource { streams, write } => load::source(&streams, write),
            Self::StreamSink { streams, seconds } => load::sink(&streams, seconds),
            Self::Echo { address } => load::echo(address),
            Self::Connects { address, seconds } => load::connects(address, seconds),
            Self::Requests { address, seconds } => load::requests(address, seconds),
            Self::IdleConnections { address, count } => load::hold(address, count),
            Self::DatagramSource { to, bytes, seconds, each_second } => {
                load::datagram_source(to, bytes, seconds, each_second)
            }
            Self::DatagramSink { at, seconds } => load::datagram_sink(at, seconds),
            Self::Delay { near, far } => delay::relay(&near, &far),
        }
    }
}
