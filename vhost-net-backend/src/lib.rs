#![doc = include_str!("../README.md")]
//!
//! # Theory of operation
//!
//! A [`Session`] is one thread that waits for a frontend (as server) or connects to one (as
//! client), speaks the vhost-user protocol with it, and starts over when it disconnects. The
//! session carries out requests through [`Rings`]: memory, rings and notification descriptors
//! change there, and each call is finished before the frontend gets its answer.
//!
//! The session never touches a ring or a frame. Whatever a frontend sends, at worst its own
//! connection is closed with a reason; the session then continues with the next one.
//!
//! A connection ends with the process, unless a [`ConnectionKeeper`] has it: the session of the
//! next process then goes on with it, and the frontend does not notice.

pub mod access;
mod connection;
pub mod descriptors;
mod device;
pub mod features;
mod handler;
mod keeper;
mod link_watch;
pub mod log_limit;
mod memory_table;
mod options;
mod pace;
mod peer;
mod refused;
mod requests;
mod rings;
mod session;
mod socket;
mod status;
mod vring;
mod waiting;
mod wire;

pub use access::Access;
pub use device::DeviceSettings;
pub use keeper::{ConnectionKeeper, ResumedConnection};
pub use link_watch::LinkWatch;
pub use options::{ParseRoleError, Role, SessionOptions};
pub use peer::Peer;
pub use rings::{Rings, RingsError};
pub use session::{Session, SessionError, SessionHandle};
pub use socket::{
    BoundDatagrams, Listening, OwnSockets, SocketError, SocketFile, Sockets, bind, bind_datagrams,
    take_over,
};
pub use status::{SessionState, SessionStatus};
pub use trama_virtqueue::{MemoryLimits, RingFds};
pub use vring::notifier;
