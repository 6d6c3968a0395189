//! The values of a configuration, as plain types.
//!
//! Everything that decides (validation, planning, the commands of `tramactl`) works on these
//! types. Only [`text`](super::text) knows that they come from TOML.

pub mod config;
pub mod daemon;
pub mod dhcp;
pub mod export;
pub mod mirror;
pub mod network;
pub mod openvswitch;
pub mod port;
pub mod rule;
pub mod socket;
pub mod tunnel;
pub mod vlan;
pub mod wire;

pub use config::Config;
pub use daemon::{DaemonConfig, Sandbox, Spin, WebAddress};
pub use mirror::Mirror;
pub use network::{Mode, Network};
pub use port::{
    Attached, AttachedKind, Interface, LoopMode, MemoryLimits, Port, Promiscuous, Role, STORM,
    Spoof, StormLimits, System, Tap, Uplink, VhostUser,
};
pub use vlan::{Vlan, VlanModeName};
