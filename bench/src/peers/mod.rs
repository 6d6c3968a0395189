//! The switches that are compared, each started alone on the switch core. All of them end with the
//! [`Switch`] that stands for them.
//!
//! To add one: a function from [`Setup`] to [`Switch`], a [`Peer`] that names it, a line in
//! [`ALL`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::delay;
use crate::host::{Link, Namespace};
use crate::process::{Process, Result, run};
use crate::program::Program;
use crate::usage::family;

mod bridge;
pub mod dhcp;
mod direct;
mod dpdk;
mod nat;
pub mod null;
mod ovs;
mod trama;
mod vde;
pub mod virtio_queue;

pub use bridge::LINUX_BRIDGE;
pub use dhcp::{DNSMASQ, TRAMA_DHCP};
pub use direct::DIRECT;
pub use dpdk::{DPDK_IO, TESTPMD};
pub use nat::{PASTA, SLIRP4NETNS, TRAMA_NAT};
pub use null::{NULL_DEVICE, NULL_DEVICE_BY_ADDRESS, NULL_DEVICE_TO_ALL};
pub use ovs::{OVS_DPDK, OVS_USERSPACE, OVS_USERSPACE_TSO};
pub use trama::{TRAMA, VLAN as TRUNK_VLAN};
pub use vde::VDE;
pub use virtio_queue::VIRTIO_QUEUE;

/// The MTU of the way to a server that is [`Port::Afar`]: packets of nearly 64 KiB, in place of the
/// segmentation that the kernel leaves to a device. Else the relay would be what is measured.
const LONG_WAY_MTU: u32 = 65_000;
/// How long a peer may take to be ready.
const START: Duration = Duration::from_secs(30);

/// Every peer that the command line knows.
pub const ALL: [&Peer; 17] = [
    &TRAMA,
    &OVS_DPDK,
    &OVS_USERSPACE,
    &OVS_USERSPACE_TSO,
    &DPDK_IO,
    &VIRTIO_QUEUE,
    &VDE,
    &LINUX_BRIDGE,
    &DIRECT,
    &NULL_DEVICE,
    &NULL_DEVICE_BY_ADDRESS,
    &NULL_DEVICE_TO_ALL,
    &TRAMA_NAT,
    &PASTA,
    &SLIRP4NETNS,
    &TRAMA_DHCP,
    &DNSMASQ,
];

/// A kind of switch.
pub struct Peer {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The programs it consists of.
    pub programs: &'static [Program],
    /// Whether it needs hugepages.
    pub hugepages: bool,
    /// Starts one.
    pub start: fn(&Setup) -> Result<Switch>,
}

/// What plugs into a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A vhost-user frontend.
    Vhost,
    /// A host in a namespace of its own.
    Host,
    /// A device in the benchmark's own namespace, which other programs join.
    Tap,
    /// A TAP for a virtual machine to open.
    Machine,
    /// A host in a namespace of its own behind an interface of the benchmark's namespace, the
    /// uplink.
    Beyond,
    /// A host in a namespace of its own with a round trip of ten milliseconds to it.
    Afar,
}

/// What trama, or its surroundings, are asked for beside the ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Twist {
    /// The first port is an access port of a VLAN and the others are trunks.
    pub vlan: bool,
    /// No VLANs, and frames of the lengths that arrive where there is [`Twist::vlan`].
    pub lengths_of_vlan: bool,
    /// So many more ports where nothing ever moves: TAPs, and vhost-user ports with a driver.
    pub silent_ports: usize,
    /// How many addresses there are, all ports together.
    pub macs: u32,
    /// Whether workers poll for ever and never sleep.
    pub polls: bool,
    /// Whether the gateway has another core than the worker.
    pub apart: bool,
    /// So many open and silent TCP flows through the NAT beside those that are measured.
    pub idle_flows: usize,
    /// Whether a host behind a NAT keeps few bytes under way.
    pub small_window: bool,
    /// Whether every port hears what is for others, so that there is somebody to flood to.
    pub hears_all: bool,
}

/// What a peer is to be started with.
pub struct Setup<'a> {
    /// The folder of `tramad`.
    pub bin: &'a Path,
    /// A folder for sockets and the like.
    pub dir: &'a Path,
    /// The hugepages' mount; empty where there is none.
    pub huge: &'a str,
    /// The core that it has for itself.
    pub core: usize,
    /// The ports it has to have.
    pub ports: &'a [Port],
    /// The largest layer-3 packet.
    pub mtu: u32,
    /// What trama is asked for beside.
    pub twist: Twist,
}

impl Setup<'_> {
    /// The socket of port `number`.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.dir.join(format!("v{number}.sock"))
    }

    /// The error of a peer that knows no port of this kind.
    fn refuse<T>(&self, peer: &Peer) -> Result<T> {
        Err(format!("{} cannot join ports of the kinds {:?}", peer.name, self.ports))
    }

    /// Whether all ports are of one kind.
    fn all(&self, kind: Port) -> bool {
        self.ports.iter().all(|&port| port == kind)
    }
}

/// The far end of a port.
pub enum End {
    /// A vhost-user socket.
    Vhost {
        /// Its path.
        socket: PathBuf,
        /// Whether the frontend has to listen on it.
        frontend_listens: bool,
    },
    /// A host that has its address.
    Host(Namespace),
    /// The name of a device in the benchmark's namespace.
    Tap(String),
    /// The name of a TAP that a virtual machine can open.
    Machine(String),
}

/// A running switch. Its processes end before its devices and namespaces go.
pub struct Switch {
    /// Its own processes; the processor time of these is its cost.
    pub running: Vec<Process>,
    /// One end for each port that was asked for.
    pub ends: Vec<End>,
    /// From its start until it said that it is ready, where it says so.
    pub ready_after: Option<Duration>,
    /// Sockets of silent ports that drivers have to join.
    pub silent: Vec<PathBuf>,
    /// Namespaces between it and its ends.
    _namespaces: Vec<Namespace>,
    /// Devices of the benchmark's namespace that go with it.
    _links: Vec<Link>,
    /// Processes that are not its own and go with it.
    _helpers: Vec<Process>,
}

impl Switch {
    /// A switch that runs as these processes.
    fn of(running: Vec<Process>, ends: Vec<End>) -> Self {
        Self {
            running,
            ends,
            ready_after: None,
            silent: Vec::new(),
            _namespaces: Vec::new(),
            _links: Vec::new(),
            _helpers: Vec::new(),
        }
    }

    /// The hosts among its ends.
    pub fn hosts(&self) -> Vec<&Namespace> {
        let ends = self.ends.iter();
        ends.filter_map(|end| if let End::Host(host) = end { Some(host) } else { None }).collect()
    }

    /// The process ids, those of the processes that its own have started too.
    pub fn pids(&self) -> Vec<u32> {
        self.running.iter().flat_map(|process| family(process.id())).collect()
    }
}

/// A host with this number behind a veth pair, whose near end is the benchmark's and goes with the
/// link.
fn host_behind(uplink: &str, number: usize, mtu: u32) -> Result<(Link, Namespace)> {
    let host = Namespace::new(number)?;
    let length = mtu.to_string();
    let kind = ["mtu", &length, "type", "veth", "peer", "name", "eth0", "netns", &host.0];
    let link = Link::add(uplink, &kind)?;
    host.configure("eth0", &format!("{}/24", Namespace::address(number)), mtu)?;
    Ok((link, host))
}

/// As [`host_behind`], by way of a long delay. The devices go with the process.
fn host_afar(uplink: &str, number: usize, mtu: u32) -> Result<(Process, Namespace)> {
    const FAR: &str = "far0";
    let host = Namespace::new(number)?;
    let relay = delay::start(uplink, FAR)?;
    run("ip", &["link", "set", uplink, "mtu", &mtu.to_string()])?;
    host.adopt(FAR)?;
    host.configure(FAR, &format!("{}/24", Namespace::address(number)), mtu)?;
    Ok((relay, host))
}

/// A host for every port, each with a device that `plug(number, host)` has put in, by its name.
fn hosts_with(
    setup: &Setup,
    mut plug: impl FnMut(usize, &Namespace) -> Result<String>,
) -> Result<Vec<End>> {
    let mut ends = Vec::new();
    for number in 0..setup.ports.len() {
        let host = Namespace::new(number)?;
        let device = plug(number, &host)?;
        host.configure(&device, &format!("{}/24", Namespace::address(number)), setup.mtu)?;
        ends.push(End::Host(host));
    }
    Ok(ends)
}
