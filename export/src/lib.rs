//! Exports of sampled frames and of counters: [sFlow version 5](sflow) and [IPFIX](ipfix).
//!
//! A switch copies the beginnings of some frames, one in N at random, and says of each what it knew
//! ([`Sample`]). The encoders turn samples and counters into datagrams for collectors. They do no
//! I/O, and take the time as an argument.
//!
//! ```text
//! Sample ──▶ sflow::Agent ─────────────▶ datagrams: a header and its way for each sample
//! counters ─▶      │
//! Sample ──▶ ipfix::Cache ─▶ ipfix::Exporter ─▶ messages: a record for each flow
//! ```
//!
//! A sample stands for N frames. A large segment, which a network card or the switch would cut into
//! packets, stands for N times its packets ([`Sample::parts`]).
#![forbid(unsafe_code)]

pub mod ipfix;
mod sample;
pub mod sflow;

pub use sample::{Interface, Sample};

/// Longest datagram to a collector, in bytes: with its headers it fits into an Ethernet frame, also
/// behind a tunnel's.
pub const MAX_DATAGRAM: usize = 1400;

/// Appends numbers in network byte order.
trait Put {
    fn put_u16(&mut self, number: u16);
    fn put_u32(&mut self, number: u32);
    fn put_u64(&mut self, number: u64);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, number: u16) {
        self.extend_from_slice(&number.to_be_bytes());
    }

    fn put_u32(&mut self, number: u32) {
        self.extend_from_slice(&number.to_be_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.extend_from_slice(&number.to_be_bytes());
    }
}
