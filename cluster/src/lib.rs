#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod cache;
pub mod key;
mod name;
mod refusal;
pub mod replica;
pub mod row;
pub mod store;
#[cfg(test)]
mod testing;

pub use name::{Name, NameError};
pub use refusal::Refusal;
