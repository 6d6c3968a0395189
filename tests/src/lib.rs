//! Support code for the system tests under `tests/tests`.
//!
//! A test builds a small network from real parts: the built [`Tramad`], [`Guest`]s in QEMU,
//! [`Netns`] hosts on TAPs, DPDK's [`Testpmd`], and [`RawTap`]s for individual frames. Every part
//! ends when its value is dropped, and with the test's process if that is killed: the kernel kills
//! child processes (parent-death signal), and the next test that creates a namespace removes
//! orphaned ones.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot continue panics, and so does its support code"
)]

mod agent;
pub mod browser;
pub mod docker;
pub mod family;
pub mod guest;
pub mod host;
pub mod impaired;
pub mod libvirt;
mod model;
pub mod nat;
pub mod netns;
pub mod process;
pub mod raw_tap;
pub mod script;
pub mod sim;
pub mod slope;
pub mod testpmd;
pub mod tramad;
pub mod uboot;

pub use family::Member;
pub use guest::{FULL_KERNEL, Guest, GuestOptions, Nic};
pub use host::{Capture, CommandResult, Host, Pinging, assert_reaches};
pub use libvirt::{Domain, Libvirt};
pub use netns::Netns;
pub use process::{Process, SOON, User, tied_command, wait_until};
pub use raw_tap::RawTap;
pub use testpmd::Testpmd;
pub use tramad::Tramad;
pub use uboot::UBoot;
