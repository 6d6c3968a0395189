//! Captures of frames, as values: which frames are wanted ([`filter`]), the file that holds them
//! ([`pcapng`]), and the line that shows one ([`text`]).
//!
//! ```text
//!  tramad    Seen frames ─▶ filter ─▶ pcapng::Writer ──┐
//!                                                      │ the body of an answer
//!  tramactl  text::line ◀─ pcapng::Reader ◀────────────┤
//!            or a file  ◀──────────────────────────────┘
//! ```
//!
//! Nothing here opens a file or a socket; what is read or written is the caller's.
//!
//! ```
//! use trama_capture::filter::{Filter, Glimpse};
//!
//! let filter = Filter::parse("arp or vlan 10", &[])?;
//! let mut frame = [0; 60];
//! frame[12..14].copy_from_slice(&[0x08, 0x06]);
//! assert!(filter.matches(&Glimpse { head: &frame, len: 60, drop: None }));
//! # Ok::<(), trama_capture::filter::Mistake>(())
//! ```
#![forbid(unsafe_code)]

pub mod filter;
mod head;
pub mod pcapng;
pub mod text;
