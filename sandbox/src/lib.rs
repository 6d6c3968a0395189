#![doc = include_str!("../README.md")]

mod calls;
mod files;
mod kernel;
mod lists;
mod memory_holder;
mod mode;
mod mounts;
mod privileges;
pub mod probe;
mod signals;

pub use calls::restrict_calls;
pub use files::{Files, Place, restrict_files};
pub use kernel::inherited_descriptor;
pub use lists::Process;
pub use memory_holder::hold_memory;
pub use mode::{Missing, Mode, TRAP_VARIABLE, UnknownMode};
pub use mounts::restrict_mounts;
pub use privileges::{become_user, drop_privileges, keep_only, spawn_as};
pub use rustix::thread::CapabilitySet;
pub use signals::ignore_signals;
