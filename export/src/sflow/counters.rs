//! Counter samples: the generic counters of interfaces.

use super::put_structure;
use crate::Put;

const COUNTER_SAMPLE: u32 = 2;
const GENERIC_INTERFACE: u32 = 1;
/// ifType ethernetCsmacd (6).
const ETHERNET: u32 = 6;
const FULL_DUPLEX: u32 = 1;
/// A counter that the switch does not have.
const UNKNOWN: u32 = u32::MAX;

/// The counters of a port. In is what enters the switch from it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InterfaceCounters {
    /// The port's number.
    pub port: u32,
    /// Whether the configuration lets frames pass.
    pub admin_up: bool,
    /// Whether something is plugged in.
    pub oper_up: bool,
    /// Bytes received.
    pub in_octets: u64,
    /// Frames received.
    pub in_frames: u64,
    /// Frames received and dropped that were in order.
    pub in_discards: u64,
    /// Frames received that were not in order.
    pub in_errors: u64,
    /// Bytes sent.
    pub out_octets: u64,
    /// Frames sent.
    pub out_frames: u64,
    /// Frames that were to be sent, and were dropped.
    pub out_discards: u64,
    /// Frames that its device refused.
    pub out_errors: u64,
}

/// Returns the sample with its format and its length; `sequence` counts those of the port.
pub(super) fn encode(counters: &InterfaceCounters, sequence: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32(sequence);
    body.put_u32(counters.port);
    let records = 1;
    body.put_u32(records);
    put_structure(&mut body, GENERIC_INTERFACE, &generic(counters));
    let mut encoded = Vec::new();
    put_structure(&mut encoded, COUNTER_SAMPLE, &body);
    encoded
}

fn generic(counters: &InterfaceCounters) -> Vec<u8> {
    let mut record = Vec::new();
    record.put_u32(counters.port);
    record.put_u32(ETHERNET);
    // A virtual port has no speed.
    record.put_u64(0);
    record.put_u32(FULL_DUPLEX);
    record.put_u32(u32::from(counters.admin_up) | u32::from(counters.oper_up) << 1);
    record.put_u64(counters.in_octets);
    // Kinds of destinations are not counted apart. Counters of 32 bits wrap.
    for count in [counters.in_frames as u32, UNKNOWN, UNKNOWN] {
        record.put_u32(count);
    }
    for count in [counters.in_discards as u32, counters.in_errors as u32, UNKNOWN] {
        record.put_u32(count);
    }
    record.put_u64(counters.out_octets);
    for count in [counters.out_frames as u32, UNKNOWN, UNKNOWN] {
        record.put_u32(count);
    }
    for count in [counters.out_discards as u32, counters.out_errors as u32] {
        record.put_u32(count);
    }
    let promiscuous = 0;
    record.put_u32(promiscuous);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_length_of_its_structure() {
        let counters = InterfaceCounters {
            port: 7,
            admin_up: true,
            oper_up: true,
            in_frames: (1 << 32) + 5,
            ..InterfaceCounters::default()
        };
        let encoded = encode(&counters, 3);
        let words: Vec<u32> =
            encoded.chunks(4).map(|it| u32::from_be_bytes(it.try_into().unwrap())).collect();
        assert_eq!(words[..8], [2, 108, 3, 7, 1, 1, 88, 7]);
        // Status, then the octets, then frames, which wrap.
        assert_eq!((words[12], words[15], words[16]), (3, 5, UNKNOWN));
        assert_eq!(encoded.len(), 8 + 108);
    }
}
