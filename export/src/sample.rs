//! A frame that was sampled.

/// Where a frame leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// By the port of this number.
    Port(u32),
    /// To the switch itself: to or from a gateway.
    Internal,
    /// By more ports than one.
    Several,
    /// It was dropped.
    Dropped,
    /// That is not known.
    Unknown,
}

/// A frame that was sampled where it entered the switch.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its first bytes, from the destination address on.
    pub header: &'a [u8],
    /// Length of the frame in bytes, without FCS; of a large segment, as it was handed over.
    pub len: usize,
    /// The packets that a large segment is cut into; 1 for any other frame.
    pub parts: u32,
    /// Bytes of headers that each of them has; the first has those of the segment.
    pub part_header: usize,
    /// The number of the port that it came from; `None` from a gateway.
    pub input: Option<u32>,
    /// Where it leaves.
    pub output: Interface,
    /// Its VLAN; 0 if it has none.
    pub vlan: u16,
    /// Its priority (PCP).
    pub priority: u8,
}

impl Sample<'_> {
    /// Returns the bytes of all packets on the wire, without FCS.
    pub fn wire_bytes(&self) -> u64 {
        let more = u64::from(self.parts.saturating_sub(1)) * self.part_header as u64;
        self.len as u64 + more
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame from port 3 to port 4.
    pub(crate) fn sample(header: &[u8], len: usize) -> Sample<'_> {
        Sample {
            header,
            len,
            parts: 1,
            part_header: 0,
            input: Some(3),
            output: Interface::Port(4),
            vlan: 10,
            priority: 5,
        }
    }

    #[test]
    fn each_part_of_a_large_segment_has_its_headers() {
        let segment = Sample { parts: 3, part_header: 54, ..sample(&[], 54 + 3000) };
        assert_eq!(segment.wire_bytes(), 3 * (54 + 1000));
        assert_eq!(sample(&[], 60).wire_bytes(), 60);
    }
}
