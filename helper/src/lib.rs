//! The helper: the one process of trama with privileges.
//!
//! `tramad` maps the memory of guests and parses what their VMMs send, so it has no capability and
//! opens no socket. What needs either is done by a child process, the *helper*, which it starts
//! before it gives up its own:
//!
//! ```text
//!  tramad ──── Request, descriptors ───▶ helper ── opens TAPs, packet sockets, Unix sockets,
//!  (Rights)    one datagram each         (Acts)     the configuration file, lease folders
//!         ◀─── Reply, descriptors ─────       │
//!            └── is the parent of ──▶ gateway ◀── starts (clone(2), CLONE_PARENT)
//! ```
//!
//! The helper parses nothing that a guest, a peer or a VMM has sent. It takes requests from
//! `tramad` alone, in a narrow format (`request`), and does not trust them (`rules`): what
//! reaches other people's traffic or sockets must stand in the configuration as the operator wrote
//! it, or in a command of `tramactl` that root ran.
//!
//! [`Rights`] is `tramad`'s side. In tests it carries out requests in its own process.

mod acts;
mod approvals;
mod client;
mod config_file;
mod connections;
mod gateway;
mod internet;
mod kept;
mod kept_gateway;
mod pidfd;
mod process;
mod reach;
mod recall;
mod remote_internet;
mod remote_sockets;
mod request;
mod rights;
mod rules;
mod service;
mod sockets;
mod spawn;
mod stand_in;
mod successor;
mod tunnels;
mod unapproved;

pub use config_file::read_config_file;
pub use kept::Entry;
pub use kept_gateway::{GatewayFds, GatewayRecord, KeptGateway};
pub use process::run;
pub use remote_internet::OpenedSocket;
pub use request::{ConfigFile, Place, Setup};
pub use rights::{Gateway, NotJoined, OpenedTap, OpenedUplink, Rights, Started, Successor};
pub use service::Service;
