//! The switches that are compared, each started alone on the switch core. All their resources end
//! with the [`Switch`] value.
//!
//! To add a peer: a function from [`Setup`] to [`Switch`], a [`Peer`] that names it, a line in
//! [`ALL`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use trama_vhost_net_backend::Role;

use crate::delay;
use crate::host::{Link, Namespace};
use crate::process::{Process, Result, run};
use crate::program::Program;
use crate::usage::family;

mod bridge;
pub(crate) mod dhcp;
mod direct;
mod dpdk;
mod nat;
pub(crate) mod null;
mod ovs;
mod trama;
mod tunnel;
mod vde;
pub(crate) mod virtio_queue;

pub(crate) use bridge::LINUX_BRIDGE;
pub(crate) use dhcp::{DNSMASQ, TRAMA_DHCP};
pub(crate) use direct::DIRECT;
pub(crate) use dpdk::{DPDK_IO, TESTPMD};
pub(crate) use nat::{PASTA, SLIRP4NETNS, TRAMA_NAT};
pub(crate) use null::{NULL_DEVICE, NULL_DEVICE_BY_ADDRESS, NULL_DEVICE_TO_ALL};
pub(crate) use ovs::{OVS_DPDK, OVS_USERSPACE, OVS_USERSPACE_TSO};
pub(crate) use trama::{TRAMA, VLAN as TRUNK_VLAN};
pub(crate) use tunnel::{KERNEL_TUNNEL, OVS_TUNNEL, TRAMA_TUNNEL};
pub(crate) use vde::VDE;
pub(crate) use virtio_queue::VIRTIO_QUEUE;

/// MTU of the link to a server that is [`Port::Remote`]: packets of nearly 64 KiB take the place of
/// segmentation offload. Otherwise the relay would be the bottleneck.
const REMOTE_MTU: u32 = 65_000;
/// Time limit for a peer to be ready.
const START: Duration = Duration::from_secs(30);

/// Every peer that the command line knows.
pub(crate) const ALL: [&Peer; 20] = [
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
    &TRAMA_TUNNEL,
    &KERNEL_TUNNEL,
    &OVS_TUNNEL,
];

/// A kind of switch.
pub(crate) struct Peer {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// A description.
    pub about: &'static str,
    /// The programs that it needs.
    pub programs: &'static [Program],
    /// Whether it needs hugepages.
    pub hugepages: bool,
    /// Starts it.
    pub start: fn(&Setup) -> Result<Switch>,
}

/// What is connected to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// A vhost-user frontend.
    Vhost,
    /// A host in a namespace of its own.
    Host,
    /// A device in the benchmark's own namespace, for other programs to use.
    Tap,
    /// A TAP for a virtual machine to open.
    VmTap,
    /// A host in a namespace of its own behind an interface of the benchmark's namespace, the
    /// uplink.
    BehindUplink,
    /// A host in a namespace of its own at a round trip of ten milliseconds.
    Remote,
}

/// Further requests to trama or its surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variant {
    /// The first port is an access port of a VLAN and the others are trunks.
    pub vlan: bool,
    /// No VLANs, but the frame sizes that arrive with [`Variant::vlan`].
    pub vlan_frame_sizes: bool,
    /// Number of additional silent ports: TAPs, and vhost-user ports with a driver.
    pub silent_ports: usize,
    /// Number of addresses, all ports together.
    pub macs: u32,
    /// Whether workers always poll and never sleep.
    pub spins_always: bool,
    /// Whether the gateway has another core than the worker.
    pub separate_cores: bool,
    /// Number of idle TCP flows through the NAT in addition to those measured.
    pub idle_flows: usize,
    /// Whether a host behind a NAT uses a small window.
    pub small_window: bool,
    /// Whether every port receives frames for unknown addresses, so that frames are flooded.
    pub promiscuous: bool,
    /// Whether ports may send any number of broadcast frames.
    pub floods: bool,
}

/// The parameters of a peer's start.
pub(crate) struct Setup<'a> {
    /// The folder of `tramad`.
    pub bin: &'a Path,
    /// A folder for sockets and the like.
    pub dir: &'a Path,
    /// The mount point of the hugepages; empty if there are none.
    pub huge: &'a str,
    /// The core dedicated to the switch.
    pub core: usize,
    /// The ports it needs.
    pub ports: &'a [Port],
    /// The largest layer-3 packet.
    pub mtu: u32,
    /// Further requests to trama.
    pub variant: Variant,
}

impl Setup<'_> {
    /// Returns the socket of port `number`.
    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        self.dir.join(format!("v{number}.sock"))
    }

    /// Returns the error of a peer that does not support this kind of port.
    fn refuse<T>(&self, peer: &Peer) -> Result<T> {
        Err(format!("{} does not support ports of the kinds {:?}", peer.name, self.ports))
    }

    /// Returns whether all ports are of one kind.
    fn all(&self, kind: Port) -> bool {
        self.ports.iter().all(|&port| port == kind)
    }
}

/// The far end of a port.
pub(crate) enum End {
    /// A vhost-user socket.
    Vhost {
        /// Its path.
        socket: PathBuf,
        /// The switch's side of it.
        backend_role: Role,
    },
    /// A host with an address.
    Host(Namespace),
    /// The name of a device in the benchmark's namespace.
    Tap(String),
    /// The name of a TAP that a virtual machine can open.
    VmTap(String),
}

/// A running switch. Its processes end before its devices and namespaces.
pub(crate) struct Switch {
    /// Its own processes, whose processor time is its cost.
    pub running: Vec<Process>,
    /// One end for each requested port.
    pub ends: Vec<End>,
    /// Start-up time until it reports that it is ready, if it does.
    pub ready_after: Option<Duration>,
    /// Sockets of silent ports, to which drivers must connect.
    pub silent: Vec<PathBuf>,
    /// Namespaces between the switch and its ends.
    _namespaces: Vec<Namespace>,
    /// Devices of the benchmark's namespace that are deleted with it.
    _links: Vec<Link>,
    /// Auxiliary processes that end with it.
    _helpers: Vec<Process>,
}

impl Switch {
    /// A switch that consists of these processes.
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

    /// Returns the hosts among its ends.
    pub(crate) fn hosts(&self) -> Vec<&Namespace> {
        let ends = self.ends.iter();
        ends.filter_map(|end| if let End::Host(host) = end { Some(host) } else { None }).collect()
    }

    /// Returns the process ids of its own processes and their descendants.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.running.iter().flat_map(|process| family(process.id())).collect()
    }
}

/// Creates host `number` behind a veth pair, whose near end is in the benchmark's namespace and is
/// deleted with the link.
fn host_behind_uplink(uplink: &str, number: usize, mtu: u32) -> Result<(Link, Namespace)> {
    let host = Namespace::new(number)?;
    let length = mtu.to_string();
    let kind = ["mtu", &length, "type", "veth", "peer", "name", "eth0", "netns", &host.0];
    let link = Link::add(uplink, &kind)?;
    host.configure("eth0", &format!("{}/24", Namespace::address(number)), mtu)?;
    Ok((link, host))
}

/// As [`host_behind_uplink`], through a delay line. The devices are deleted with the process.
fn remote_host(uplink: &str, number: usize, mtu: u32) -> Result<(Process, Namespace)> {
    const FAR: &str = "far0";
    let host = Namespace::new(number)?;
    let relay = delay::start(uplink, FAR)?;
    run("ip", &["link", "set", uplink, "mtu", &mtu.to_string()])?;
    host.adopt(FAR)?;
    host.configure(FAR, &format!("{}/24", Namespace::address(number)), mtu)?;
    Ok((relay, host))
}

/// Creates a host for every port, each with the device that `plug(number, host)` moved in and
/// named.
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
