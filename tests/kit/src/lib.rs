//! The test kit: what the tests and benchmarks of several crates build their scenes from.
//!
//! - Frames: [`frame`], [`tagged`], [`mac`].
//! - A switch on the caller's thread: [`network`], [`port`], dummy ports ([`Station`]), several of
//!   them on one network ([`Lab`]), and vhost ports with a driver in this process ([`Guest`]);
//!   [`paths`] are its main paths as repeatable work.
//! - Two guests that check what arrives while the device side is replaced: [`Exchange`].
//! - A vhost-user session from both sides: [`Card`] is a frontend with a driver, [`RawFrontend`]
//!   sends any bytes, [`MockRings`] record what the session requests. A [`TestKeeper`] keeps the
//!   connection when the switch dies.
//! - Waiting: [`eventually`], [`is_asleep`].
//!
//! Crates use it as a dev-dependency only; their unit tests cannot, because they are built with
//! another copy of the crate than the kit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot continue panics, and so does its support code"
)]

mod card;
mod exchange;
mod frames;
mod guest;
mod keeper;
mod lab;
mod mock_rings;
pub mod paths;
mod raw_frontend;
pub mod requests;
mod rings;
mod setup;
mod shared_memory;
mod station;
mod threads;
mod wait;

pub use card::{Card, connect};
pub use exchange::{Exchange, Plug};
pub use frames::{PLAIN, c_tag, frame, large_segment, mac, tagged};
pub use guest::Guest;
pub use keeper::{KeptSwitch, TestKeeper};
pub use lab::Lab;
pub use mock_rings::{MockRings, Recorded};
pub use raw_frontend::RawFrontend;
pub use rings::{IN_ORDER_FEATURES, LINUX_FEATURES, driver_options};
pub use setup::{access, network, port, trunk, vid, watch_of};
pub use shared_memory::SharedMemory;
pub use station::Station;
pub use threads::{is_asleep, thread_of, ticks};
pub use wait::{PATIENCE, eventfd, eventually, take_count};
