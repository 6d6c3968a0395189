//! What is configured and how it runs, in one piece: what a picture of it is drawn from.
//!
//! `GET /v1/state` is answered with a [`State`]. Its numbers only grow, as those of
//! [`top`](crate::top).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::explain::Described;
use crate::top::Numbers;

/// Everything at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The daemon's version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// Seconds since the daemon has started.
    pub uptime_s: u64,
    /// What is counted; its ports are those of `ports`, in the same order.
    pub numbers: Numbers,
    /// What happened and what to do, by each reason for which frames were dropped.
    pub reasons: BTreeMap<String, String>,
    /// In the configuration's order.
    pub networks: Vec<Network>,
    /// In the configuration's order.
    pub ports: Vec<Port>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its mode, as in the configuration.
    pub mode: Cow<'static, str>,
    /// Its subnets, with prefix lengths.
    pub subnets: Vec<String>,
    /// The largest layer-3 packet in bytes.
    pub mtu: u16,
    /// Its worker; `None` if it does not run. Of a network of mode `nat`, that of its first port.
    pub worker: Option<usize>,
    /// Addresses in its MAC table.
    pub mac_entries: usize,
    /// What is wrong with it, with the remedy.
    pub error: Option<String>,
    /// The interface by which it joins the LAN.
    pub uplink: Option<Uplink>,
    /// The host's addresses on it, with prefix lengths.
    pub host_addresses: Vec<String>,
    /// Its gateway; of mode `nat`, all gateways together.
    pub gateway: Option<Gateway>,
    /// Bytes that have left the network for what is outside, and that have come from there.
    pub edge: [u64; 2],
    /// Its forwards, and those of its ports.
    pub forwards: Vec<Forward>,
    /// Its mirrors.
    pub mirrors: Vec<Mirror>,
}

/// The interface by which a network joins the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name.
    pub ifname: String,
    /// Whether it is joined.
    pub running: bool,
}

/// A network's gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Whether each of its processes runs.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its processes: one, or of mode `nat` one for each port.
    pub count: usize,
    /// Flows by protocol.
    pub flows: BTreeMap<String, u64>,
    /// Active leases of the fullest DHCP service: DHCPv4 and DHCPv6 of a network have a range each,
    /// as has each port's gateway in mode `nat`.
    pub leases: usize,
    /// Addresses in the range of that service.
    pub pool: usize,
    /// How often a process was replaced.
    pub restarts: u64,
    /// Why the last one was replaced.
    pub last_error: Option<String>,
    /// Why no address is leased although a server is configured.
    pub lease_error: Option<String>,
}

/// A forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Its name.
    pub name: String,
    /// The rule, as in the configuration.
    pub rule: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's end.
    pub host: String,
    /// The guest's end.
    pub guest: String,
    /// The clients that may use it; empty: all.
    pub client: String,
    /// `listening`, or why it is not.
    pub status: String,
    /// The port whose forward it is; `None`: the network's.
    pub port: Option<String>,
}

/// A mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// Whether it copies what enters from any port.
    pub all: bool,
    /// Ports of which it copies what enters.
    pub from: Vec<String>,
    /// Ports of which it copies what leaves.
    pub to: Vec<String>,
    /// VLANs of which it copies frames; empty: all.
    pub vlans: Vec<u16>,
    /// The port that gets the copies.
    pub output_port: Option<String>,
    /// The VLAN that gets the copies.
    pub output_vlan: Option<u16>,
}

/// What a port does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Frames can pass.
    Up,
    /// It runs, and no machine is plugged in yet.
    #[default]
    Waiting,
    /// Its cable is out, or it is on no network.
    Cable,
    /// It is blocked because of a loop.
    Blocked,
    /// It does not run.
    NotRunning,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: Option<String>,
    /// Its number, as in `ofport`.
    pub ofport: u64,
    /// The type of its interface.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// What it does.
    pub state: PortState,
    /// Whether its cable is plugged in.
    pub cable: bool,
    /// What is wrong with it, with the remedy.
    pub error: Option<String>,
    /// Its VLAN mode.
    pub vlan_mode: Cow<'static, str>,
    /// Its access or native VLAN.
    pub tag: Option<u16>,
    /// Its trunks; empty: all.
    pub trunks: Vec<u16>,
    /// Its address: as configured, or the device's own.
    pub mac: Option<String>,
    /// Whether it may send from other addresses: `allow` or `deny`.
    pub spoof: Cow<'static, str>,
    /// Which frames of others it receives.
    pub promiscuous: Cow<'static, str>,
    /// Queue pairs in use.
    pub queues: u16,
    /// The path of its socket.
    pub path: Option<String>,
    /// The name of its device.
    pub ifname: Option<String>,
    /// The network namespace of its device.
    pub netns: Option<String>,
    /// What is connected to it.
    pub peer: Option<String>,
    /// Whether it is in no file.
    pub ephemeral: bool,
    /// The kinds of flooded frames of which it sends more than it may.
    pub storms: Vec<Cow<'static, str>>,
    /// Its IP addresses, as far as trama gives or is told them.
    pub addresses: Vec<Address>,
    /// The last frame that was dropped, for each reason of which one is kept.
    pub last_drops: Vec<LastDrop>,
}

/// An IP address of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// `static`, or the state of the lease.
    pub state: Cow<'static, str>,
    /// The machine's name.
    pub name: Option<String>,
    /// When the lease ends, in seconds since 1970.
    pub until: Option<u64>,
}

/// The last frame that was dropped for a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDrop {
    /// The reason, as in the metrics.
    pub reason: Cow<'static, str>,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Its length in bytes, without FCS.
    pub length: usize,
    /// The frame in a line.
    pub text: String,
    /// What it has, as `explain` takes it; `None` if it ends within its header.
    pub frame: Option<Described>,
}

/// The query of `GET /v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowsOf {
    /// The network.
    pub network: String,
    /// The port whose flows are wanted; all of the network without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// The flows through a network's NAT: the answer of `GET /v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Those that have moved most, at most 1000.
    pub flows: Vec<Flow>,
    /// How many there are.
    pub total: usize,
    /// The networks as they run whose gateways do not answer.
    pub unanswered: Vec<String>,
}

/// A flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The network, or of mode `nat` `NETWORK/PORT`.
    pub network: String,
    /// The guest's port, as far as its gateway knows it.
    pub port: Option<String>,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The guest's address and port.
    pub guest: String,
    /// The other end; `None` where one flow has several.
    pub remote: Option<String>,
    /// The state of the connection; empty if there is none.
    pub state: String,
    /// Bytes of payload from the guest.
    pub bytes_up: u64,
    /// Bytes of payload to the guest.
    pub bytes_down: u64,
    /// Seconds since anything was sent either way.
    pub idle_s: u64,
}

/// Asks whether a code of `tramactl web` opens a session: `POST /v1/web/code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// The code. It opens one session.
    pub code: String,
}

/// The settings of the process that serves the page: `GET /v1/web`, for that process alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSettings {
    /// Whether the page may change something.
    pub write: bool,
    /// Names by which browsers may reach the page, besides addresses of loopback.
    pub hosts: Vec<String>,
    /// The secret that sessions are signed with; it is the same in the next daemon.
    pub key: [u8; 32],
}

/// Where the page is: the answer of `POST /v1/web`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The listening address, or the path of the socket after `unix:`.
    pub address: String,
    /// A code that opens one session, for two minutes.
    pub code: String,
    /// The names by which browsers reach the page through a proxy.
    pub hosts: Vec<String>,
}
