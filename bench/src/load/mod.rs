//! What the switches are given to do, and what is measured of it.
//!
//! To add one: a variant of [`Load`] with its line in [`Load::measure`], and scenarios that name
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use trama_bench::generator::Direction;

use crate::host::Namespace;
use crate::peers::{Switch, TESTPMD, Twist};
use crate::process::{Result, pause, run};
use crate::program::Program;
use crate::usage::Usage;

mod datagrams;
mod dhcp;
mod driven;
mod echo;
mod flood;
mod footprint;
mod guest;
mod helpers;
mod idle;
mod ping;
mod stream;
mod testpmd;

pub use datagrams::{
    SINK_COMMAND as DATAGRAM_SINK_COMMAND, SOURCE_COMMAND as DATAGRAM_SOURCE_COMMAND,
    sink as datagram_sink, source as datagram_source,
};
pub use driven::silent_drivers;
pub use echo::{
    CONNECT_COMMAND, REQUEST_COMMAND, SERVER_COMMAND as ECHO_COMMAND, connects, requests,
    serve as echo,
};
pub use flood::{COMMAND as BLAST_COMMAND, blast};
pub use idle::{COMMAND as IDLE_COMMAND, hold};
pub use stream::{PIECE, SINK_COMMAND, SOURCE_COMMAND, Streams, sink, source};

/// A kind of work.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// testpmd's ports in pairs; frames of so many bytes circulate as known unicast both ways.
    Circulate {
        /// Bytes of a frame, without the checksum.
        bytes: usize,
    },
    /// testpmd's flowgen: every frame is flooded and its source was elsewhere a burst ago.
    FloodMove {
        /// Bytes of a frame, without the checksum.
        bytes: usize,
    },
    /// Our own generator flat out.
    Driven {
        /// Bytes of a frame, without the checksum.
        bytes: usize,
        /// Who sends to whom.
        direction: Direction,
    },
    /// Our own generator with frames of 64 KiB, from the first port to the second.
    LargeSegments,
    /// The highest rate without loss, both ways.
    LossFree {
        /// Bytes of a frame, without the checksum.
        bytes: usize,
    },
    /// Latency both ways.
    Latency {
        /// Bytes of a frame, without the checksum.
        bytes: usize,
        /// Of the loss-free rate.
        percent: u8,
    },
    /// One TCP stream from each of the other hosts to the first one.
    TcpFanIn,
    /// One TCP stream from the first host to each of the other ones.
    TcpFanOut,
    /// One TCP stream from the first port to the second, of which one may be a vhost-user port.
    Stream,
    /// TCP streams between a host behind a NAT and a server.
    NatStreams {
        /// How many at once.
        streams: usize,
        /// Bytes of a write.
        write: usize,
        /// Whether it is the server that sends.
        down: bool,
    },
    /// Short connections from a host behind a NAT: connect, 64 bytes there and back, close.
    NatConnects,
    /// One byte there and back on one connection from a host behind a NAT.
    NatRequests,
    /// Datagrams from a host behind a NAT.
    NatDatagrams {
        /// Bytes of a datagram.
        bytes: usize,
        /// How many it sends; as fast as it can where that is not said.
        each_second: Option<u32>,
    },
    /// Whole DHCP exchanges, by clients that are new or, half of them, renew.
    Dhcp {
        /// Whether clients renew.
        renew: bool,
    },
    /// Flood ping from the first host to the second.
    Ping,
    /// Broadcast datagrams from the first host; what arrives at all others is counted.
    Broadcast,
    /// One TCP stream from a virtual machine on the first port to the host on the second.
    GuestTcp,
    /// The processor that silent ports cost.
    IdleCpu,
    /// How often the switch wakes up for silent ports.
    IdleWakeups,
    /// The switch's memory.
    Memory,
    /// What each further port adds to it.
    MemoryPerPort,
    /// What each address adds to it.
    MemoryPerMac,
    /// How long the switch takes to start.
    Ready,
}

/// What a load finds where it runs.
pub struct Context<'a> {
    /// The running switch.
    pub switch: &'a Switch,
    /// The core that it has for itself.
    pub core: usize,
    /// What is asked of trama beside.
    pub twist: Twist,
    /// The folder of `tramad` and `tramactl`.
    pub bin: &'a Path,
    /// The switch's folder.
    pub dir: &'a Path,
    /// The hugepages' mount; empty where there is none.
    pub huge: &'a str,
    /// How long to measure, in seconds.
    pub seconds: u64,
}

/// What was measured in one round.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The figure, in the base unit: frames, bits, seconds, bytes.
    pub value: f64,
    /// More that is worth keeping, by name with unit.
    pub details: BTreeMap<String, f64>,
    /// What it cost meanwhile.
    pub usage: Usage,
    /// What the generator would have reached with a switch that costs nothing, where the load
    /// itself can tell.
    pub ceiling: Option<f64>,
}

impl Measured {
    /// A figure without more.
    fn of(value: f64, usage: Usage) -> Self {
        Self { value, usage, ..Self::default() }
    }
}

/// How often a host may find that another one cannot be reached yet.
const ATTEMPTS: usize = 10;

/// Waits until the host answers: ports of a bridge may still be learning.
fn wait_for_reach(from: &Namespace, address: &str) -> Result<()> {
    let ping = ["netns", "exec", &from.0, "ping", "-c", "1", "-W", "1", address];
    for _ in 0..ATTEMPTS {
        if run("ip", &ping).is_ok() {
            return Ok(());
        }
        pause(Duration::from_millis(100))?;
    }
    Err(format!("{} cannot reach {address} through the switch", from.0))
}

const IPERF: Program = Program::new("iperf3", "iperf3");
const PING: Program = Program::new("ping", "iputils-ping");
const PERFDHCP: Program = Program::new("perfdhcp", "kea-admin");
const QEMU: Program = Program::new("qemu-system-x86_64", "qemu-system-x86");

impl Load {
    /// The programs it needs.
    pub fn programs(self) -> &'static [Program] {
        match self {
            Self::Circulate { .. } | Self::FloodMove { .. } => &[TESTPMD],
            Self::GuestTcp => &[IPERF, PING, QEMU],
            Self::Ping | Self::Broadcast | Self::TcpFanIn | Self::TcpFanOut | Self::Stream => {
                &[PING]
            }
            Self::Dhcp { .. } => &[PERFDHCP],
            _ => &[],
        }
    }

    /// Whether it needs hugepages.
    pub fn hugepages(self) -> bool {
        matches!(self, Self::Circulate { .. } | Self::FloodMove { .. })
    }

    /// Roughly the seconds that start, end and search take, beside the measurement.
    pub fn overhead(self) -> u64 {
        match self {
            Self::LossFree { .. } | Self::Dhcp { .. } => 30,
            Self::GuestTcp => 20,
            Self::Latency { .. } => 15,
            Self::IdleCpu | Self::IdleWakeups => 12,
            Self::MemoryPerMac => 8,
            _ => 3,
        }
    }

    /// Fetches what it needs from the network, which is out of reach while it is measured. What
    /// fails here fails again, and is told, there.
    pub fn prepare(self) {
        if matches!(self, Self::GuestTcp) {
            let _ = std::panic::catch_unwind(guest::fetch_image);
        }
    }

    /// Does the work once.
    pub fn measure(self, context: &Context) -> Result<Measured> {
        match self {
            Self::Circulate { bytes } => testpmd::circulate(context, bytes),
            Self::FloodMove { bytes } => testpmd::flood_and_move(context, bytes),
            Self::Driven { bytes, direction } => driven::flat_out(context, bytes, direction),
            Self::LargeSegments => driven::large_segments(context),
            Self::LossFree { bytes } => driven::loss_free(context, bytes),
            Self::Latency { bytes, percent } => driven::latency(context, bytes, percent),
            Self::TcpFanIn => stream::fan_in(context),
            Self::TcpFanOut => stream::fan_out(context),
            Self::Stream => stream::tcp(context),
            Self::NatStreams { streams, write, down } => {
                stream::through_nat(context, streams, write, down)
            }
            Self::NatConnects => echo::measure_connects(context),
            Self::NatRequests => echo::measure_requests(context),
            Self::NatDatagrams { bytes, each_second } => {
                datagrams::measure(context, bytes, each_second)
            }
            Self::Dhcp { renew } => dhcp::measure(context, renew),
            Self::Ping => ping::flood(context),
            Self::Broadcast => flood::broadcast(context),
            Self::GuestTcp => guest::tcp(context),
            Self::IdleCpu => footprint::idle_cpu(context),
            Self::IdleWakeups => footprint::idle_wakeups(context),
            Self::Memory => footprint::memory(context),
            Self::MemoryPerPort => footprint::memory_per_port(context),
            Self::MemoryPerMac => footprint::memory_per_mac(context),
            Self::Ready => footprint::ready(context),
        }
    }
}
