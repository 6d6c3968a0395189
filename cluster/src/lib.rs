#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod agent;
pub mod cache;
pub mod key;
mod name;
mod refusal;
pub mod replica;
pub mod row;
pub mod store;
#[cfg(test)]
mod testing;
mod time;

pub use name::{Name, NameError};
pub use refusal::Refusal;
pub use time::Time;
