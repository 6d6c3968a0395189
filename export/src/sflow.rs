//! sFlow version 5, as <https://sflow.org/sflow_version_5.txt> defines it: flow samples with raw
//! packet headers and extended switch data, and counter samples with interface counters.
//!
//! Structures are in XDR (RFC 4506): numbers in network byte order, opaque bytes padded to four.

mod counters;
mod flow;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

pub use counters::InterfaceCounters;

use crate::{MAX_DATAGRAM, Put, Sample};

const VERSION: u32 = 5;
const IP_V4: u32 = 1;
const IP_V6: u32 = 2;
/// Bytes before the samples of a datagram with the longer kind of address.
const MAX_HEAD: usize = 40;

/// The sFlow agent of one network: datagrams to its collectors.
pub struct Agent {
    address: IpAddr,
    sub_agent: u32,
    /// Frames that one sample stands for.
    sampling: u32,
    /// Datagrams so far.
    sequence: u32,
    sources: HashMap<u32, Source>,
    /// The samples of the datagram that is being filled.
    body: Vec<u8>,
    count: u32,
}

/// A data source: a port, or 0 for the gateways.
#[derive(Default)]
struct Source {
    flow_samples: u32,
    counter_samples: u32,
    /// Frames among which samples were chosen.
    pool: u32,
    /// Samples that were lost before they were encoded.
    lost: u32,
}

impl Agent {
    /// Returns the agent that is known by an address and a number; of the frames of each port, one
    /// in `sampling` is sampled.
    pub fn new(address: IpAddr, sub_agent: u32, sampling: u32) -> Agent {
        let (sources, body) = (HashMap::new(), Vec::new());
        Agent { address, sub_agent, sampling, sequence: 0, sources, body, count: 0 }
    }

    /// Adds a sampled frame; `lost` samples of its port were lost before it. `up`: since the agent
    /// was started. Returns a datagram if one is full.
    pub fn frame(&mut self, sample: &Sample<'_>, lost: u64, up: Duration) -> Option<Vec<u8>> {
        let source = self.sources.entry(sample.input.unwrap_or(0)).or_default();
        let rate = self.sampling.saturating_mul(sample.parts.max(1));
        source.flow_samples = source.flow_samples.wrapping_add(1);
        source.pool = source.pool.wrapping_add(rate);
        source.lost = source.lost.wrapping_add(lost as u32);
        let encoded = flow::encode(sample, rate, source);
        self.add(&encoded, up)
    }

    /// Adds the counters of a port. Returns a datagram if one is full.
    pub fn counters(&mut self, counters: &InterfaceCounters, up: Duration) -> Option<Vec<u8>> {
        let source = self.sources.entry(counters.port).or_default();
        source.counter_samples = source.counter_samples.wrapping_add(1);
        let encoded = counters::encode(counters, source.counter_samples);
        self.add(&encoded, up)
    }

    /// Returns the datagram with what was added since the last one, if there is any.
    pub fn flush(&mut self, up: Duration) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(MAX_HEAD + self.body.len());
        datagram.put_u32(VERSION);
        match self.address {
            IpAddr::V4(address) => {
                datagram.put_u32(IP_V4);
                datagram.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                datagram.put_u32(IP_V6);
                datagram.extend_from_slice(&address.octets());
            }
        }
        datagram.put_u32(self.sub_agent);
        datagram.put_u32(self.sequence);
        datagram.put_u32(up.as_millis() as u32);
        datagram.put_u32(self.count);
        datagram.append(&mut self.body);
        self.count = 0;
        Some(datagram)
    }

    fn add(&mut self, encoded: &[u8], up: Duration) -> Option<Vec<u8>> {
        let is_full = MAX_HEAD + self.body.len() + encoded.len() > MAX_DATAGRAM;
        let full = if is_full { self.flush(up) } else { None };
        self.body.extend_from_slice(encoded);
        self.count += 1;
        full
    }
}

/// Appends a structure after its format and its length.
fn put_structure(bytes: &mut Vec<u8>, format: u32, structure: &[u8]) {
    bytes.put_u32(format);
    bytes.put_u32(structure.len() as u32);
    bytes.extend_from_slice(structure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tests::sample;

    const UP: Duration = Duration::from_secs(2);

    fn word(datagram: &[u8], index: usize) -> u32 {
        u32::from_be_bytes(*datagram[index * 4..].first_chunk().unwrap())
    }

    #[test]
    fn a_datagram_has_its_head_and_counts_its_samples() {
        let mut agent = Agent::new([10, 0, 0, 9].into(), 1, 64);
        assert!(agent.flush(UP).is_none());
        assert!(agent.frame(&sample(&[7; 60], 60), 2, UP).is_none());
        assert!(agent.frame(&sample(&[7; 60], 60), 0, UP).is_none());
        let datagram = agent.flush(UP).unwrap();
        let head: Vec<u32> = (0..7).map(|index| word(&datagram, index)).collect();
        assert_eq!(head, [5, 1, 0x0a00_0009, 1, 1, 2000, 2]);
        // Format and length, then the sequence, the source, rate, pool and what was lost.
        let length = word(&datagram, 8) as usize;
        assert_eq!(datagram.len(), 28 + 2 * (8 + length));
        let first: Vec<u32> = (9..14).map(|index| word(&datagram, index)).collect();
        assert_eq!(first, [1, 3, 64, 64, 2]);
        let at = (28 + 8 + length) / 4;
        let second: Vec<u32> = (at + 2..at + 7).map(|index| word(&datagram, index)).collect();
        assert_eq!(second, [2, 3, 64, 128, 2]);
        assert!(agent.flush(UP).is_none(), "it is empty again");
    }

    #[test]
    fn a_full_datagram_is_returned_and_none_is_too_long() {
        let mut agent = Agent::new("2001:db8::1".parse().unwrap(), 0, 1);
        let mut datagrams = Vec::new();
        for _ in 0..100 {
            datagrams.extend(agent.frame(&sample(&[1; 128], 1514), 0, UP));
        }
        datagrams.extend(agent.flush(UP));
        let samples: u32 = datagrams.iter().map(|datagram| word(datagram, 9)).sum();
        assert_eq!(samples, 100);
        for (index, datagram) in datagrams.iter().enumerate() {
            assert!(datagram.len() <= MAX_DATAGRAM);
            assert_eq!(word(datagram, 7), index as u32 + 1, "the sequence");
        }
    }

    #[test]
    fn a_large_segment_stands_for_its_parts() {
        let mut agent = Agent::new([10, 0, 0, 9].into(), 0, 10);
        let segment = Sample { parts: 4, part_header: 54, ..sample(&[0; 54], 54 + 4000) };
        agent.frame(&segment, 0, UP);
        let datagram = agent.flush(UP).unwrap();
        assert_eq!((word(&datagram, 11), word(&datagram, 12)), (40, 40), "rate and pool");
        // The length of one part with its FCS.
        assert_eq!(word(&datagram, 20), 54 + 1000 + 4);
    }
}
