#![doc = include_str!("../README.md")]

mod calls;
mod files;
mod kernel;
mod lists;
mod mode;
mod mounts;
mod privileges;

pub use calls::restrict_calls;
pub use files::{Files, Place, restrict_files};
pub use lists::Process;
pub use mode::{Missing, Mode, TRAP_VARIABLE, UnknownMode};
pub use mounts::restrict_mounts;
pub use privileges::{become_user, drop_privileges, keep_only};
pub use rustix::thread::CapabilitySet;
