#![doc = include_str!("../README.md")]
//!
//! # Theory of operation
//!
//! An [`Engine`] owns networks, ports, rings, MAC tables and counters, and moves bursts of frames
//! to completion in five passes: fetch, classify, deliver, complete, flush. It has neither thread
//! nor clock; [`WorkerHandle::spawn`] puts one on a thread, a simulation drives one directly.
//! Control reaches a running engine only as jobs that the worker runs between two bursts.

mod addresses;
pub mod counters;
mod delivery;
pub mod drop_reason;
pub mod engine;
pub mod explain;
mod faults;
mod filter;
mod flow;
mod forward;
mod kept;
mod loops;
pub mod mac_table;
pub mod mirror;
pub mod news;
pub mod notes;
pub mod ports;
mod probe;
mod sources;
mod spin;
mod storm;
pub mod time;
mod types;
pub mod vlan;
pub mod watch;
pub mod worker;

pub use counters::{CounterSlab, Lasting, NetworkCounters, PortCounters, WorkerCounters};
pub use drop_reason::DropReason;
pub use engine::{
    DetachedPort, Engine, EngineError, HdrLen, Network, NetworkId, NetworkSettings, PortFault,
    PortFilter, PortId, PortSettings, Promiscuous, Spoof, Station,
};
pub use kept::KeptError;
pub use loops::LoopReport;
pub use mac_table::{FdbEntry, KeptMac, MacImage, MacTable, PortIndex, StaticEntry};
pub use notes::{Crash, Note, Notes, Suspect, Task};
pub use ports::dgram::{Dgram, DgramPeer, DgramReport};
pub use ports::dummy::{Captured, DummyDevice, DummyHandle, dummy};
pub use ports::packet::{Uplink, UplinkError, UplinkOptions, UplinkParts};
pub use ports::stream::{Stream, StreamEnd, StreamLink};
pub use ports::tap::Tap;
pub use ports::vhost::VhostDevice;
pub use ports::vxlan::{Tunnel, Tunnels, Vtep, VtepMailbox, Vxlan};
pub use ports::{Address, Device, Doorbell};
pub use spin::{ParseSpinError, Spin};
pub use storm::{FloodKind, Storm, StormLimits};
pub use time::{Epoch, Time};
pub use trama_tap::{Link, NamespaceError, NamespaceId, TapError, TapOptions, TapParts};
pub use trama_virtqueue::{RingFds, mark_crashes};
pub use vlan::{Egress, VlanMode, VlanModeName, VlanSet};
pub use worker::{
    MoveError, PortMoved, Probe, WorkerGone, WorkerGroup, WorkerHandle, WorkerOptions,
};
