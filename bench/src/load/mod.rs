//! The loads on a switch, and their measurement.
//!
//! To add a load: a variant of [`Load`] with its line in [`Load::measure`], and scenarios that use
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use trama_bench::generator::Direction;

use crate::host::Namespace;
use crate::peers::{Switch, TESTPMD, Variant};
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

pub(crate) use datagrams::{
    SINK_COMMAND as DATAGRAM_SINK_COMMAND, SOURCE_COMMAND as DATAGRAM_SOURCE_COMMAND,
    sink as datagram_sink, source as datagram_source,
};
pub(crate) use driven::silent_drivers;
pub(crate) use echo::{
    CONNECT_COMMAND, REQUEST_COMMAND, SERVER_COMMAND as ECHO_COMMAND, connects, requests,
    serve as echo,
};
pub(crate) use flood::{COMMAND as BROADCAST_COMMAND, broadcast_source};
pub(crate) use idle::{COMMAND as IDLE_COMMAND, hold_open};
pub(crate) use stream::{SINK_COMMAND, SOURCE_COMMAND, Streams, WRITE_SIZE, sink, source};

/// The sending end of streams through a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The host behind the NAT: an upload.
    Client,
    /// The server: a download.
    Server,
}

/// The messages of DHCP clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchanges {
    /// Four messages each, by new clients.
    New,
    /// Renewals, mixed with as many exchanges of four messages, by known clients.
    Renewals,
}

/// A kind of work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// testpmd's ports in pairs; frames of this size circulate as known unicast in both directions.
    Circulate {
        /// Frame size in bytes, without the frame check sequence.
        bytes: usize,
    },
    /// testpmd's flowgen: every frame is flooded, and its source was on another port a burst ago.
    FloodMove {
        /// Frame size in bytes, without the frame check sequence.
        bytes: usize,
    },
    /// trama's generator, as fast as the rings take frames.
    Driven {
        /// Frame size in bytes, without the frame check sequence.
        bytes: usize,
        /// The traffic pattern.
        direction: Direction,
    },
    /// trama's generator with frames of 64 KiB, from the first port to the second.
    LargeSegments,
    /// The highest rate without loss, in both directions.
    LossFree {
        /// Frame size in bytes, without the frame check sequence.
        bytes: usize,
    },
    /// Latency in both directions.
    Latency {
        /// Frame size in bytes, without the frame check sequence.
        bytes: usize,
        /// Offered load in percent of the loss-free rate.
        percent: u8,
    },
    /// One TCP stream from each other host to the first.
    TcpFanIn,
    /// One TCP stream from the first host to each other.
    TcpFanOut,
    /// One TCP stream from the first port to the second, one of which may be a vhost-user port.
    Stream,
    /// TCP streams between a host behind a NAT and a server.
    NatStreams {
        /// Concurrent streams.
        streams: usize,
        /// Bytes of a write.
        write: usize,
        /// The end that sends.
        sender: Sender,
    },
    /// Short connections from a host behind a NAT: connect, echo of 64 bytes, close.
    NatConnects,
    /// One-byte round trips on one connection from a host behind a NAT.
    NatRequests,
    /// Datagrams from a host behind a NAT.
    NatDatagrams {
        /// Bytes of a datagram.
        bytes: usize,
        /// Datagrams sent a second; `None`: as fast as possible.
        each_second: Option<u32>,
    },
    /// DHCP exchanges.
    Dhcp {
        /// Their messages.
        exchanges: Exchanges,
    },
    /// Flood ping from the first host to the second.
    Ping,
    /// Broadcast datagrams from the first host; counts what arrives at all others.
    Broadcast,
    /// One TCP stream from a virtual machine on the first port to the host on the second.
    GuestTcp,
    /// Processor time used with silent ports.
    IdleCpu,
    /// Wake-ups of the switch with silent ports.
    IdleWakeups,
    /// The switch's memory.
    Memory,
    /// Memory that each additional port takes.
    MemoryPerPort,
    /// Memory that each address takes.
    MemoryPerMac,
    /// Start-up time of the switch.
    Ready,
}

/// The environment of a load.
pub(crate) struct Context<'a> {
    /// The running switch.
    pub switch: &'a Switch,
    /// The core dedicated to the switch.
    pub core: usize,
    /// Further requests to trama.
    pub variant: Variant,
    /// The folder of `tramad` and `tramactl`.
    pub bin: &'a Path,
    /// The switch's folder.
    pub dir: &'a Path,
    /// The mount point of the hugepages; empty if there are none.
    pub huge: &'a str,
    /// Duration of the measurement in seconds.
    pub seconds: u64,
}

/// The result of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// The figure, in the base unit: frames, bits, seconds, bytes.
    pub value: f64,
    /// Details, by name with unit.
    pub details: BTreeMap<String, f64>,
    /// Cost during the measurement.
    pub usage: Usage,
    /// The generator's ceiling, where the load itself determines it.
    pub ceiling: Option<f64>,
}

impl Measured {
    /// A figure without details.
    fn of(value: f64, usage: Usage) -> Self {
        Self { value, usage, ..Self::default() }
    }
}

/// Attempts to reach another host.
const ATTEMPTS: usize = 10;

/// Waits until the host answers: a bridge may still be learning.
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
    /// Returns the programs that it needs.
    pub(crate) fn programs(self) -> &'static [Program] {
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

    /// Returns whether it needs hugepages.
    pub(crate) fn hugepages(self) -> bool {
        matches!(self, Self::Circulate { .. } | Self::FloodMove { .. })
    }

    /// Returns roughly the seconds for start, end and search, without the measurement.
    pub(crate) fn overhead(self) -> u64 {
        match self {
            Self::LossFree { .. } | Self::Dhcp { .. } => 30,
            Self::GuestTcp => 20,
            Self::Latency { .. } => 15,
            Self::IdleCpu | Self::IdleWakeups => 12,
            Self::MemoryPerMac => 8,
            _ => 3,
        }
    }

    /// Downloads what it needs, as the internet is unreachable during measurements. A failure here
    /// recurs and is reported there.
    pub(crate) fn prepare(self) {
        if matches!(self, Self::GuestTcp) {
            let _ = std::panic::catch_unwind(guest::fetch_image);
        }
    }

    /// Runs the load once.
    pub(crate) fn measure(self, context: &Context) -> Result<Measured> {
        match self {
            Self::Circulate { bytes } => testpmd::circulate(context, bytes),
            Self::FloodMove { bytes } => testpmd::flood_and_move(context, bytes),
            Self::Driven { bytes, direction } => driven::unpaced(context, bytes, direction),
            Self::LargeSegments => driven::large_segments(context),
            Self::LossFree { bytes } => driven::loss_free(context, bytes),
            Self::Latency { bytes, percent } => driven::latency(context, bytes, percent),
            Self::TcpFanIn => stream::fan_in(context),
            Self::TcpFanOut => stream::fan_out(context),
            Self::Stream => stream::tcp(context),
            Self::NatStreams { streams, write, sender } => {
                stream::through_nat(context, streams, write, sender)
            }
            Self::NatConnects => echo::measure_connects(context),
            Self::NatRequests => echo::measure_requests(context),
            Self::NatDatagrams { bytes, each_second } => {
                datagrams::measure(context, bytes, each_second)
            }
            Self::Dhcp { exchanges } => dhcp::measure(context, exchanges),
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
