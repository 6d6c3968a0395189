//! Flow samples.

use super::{Source, put_structure};
use crate::{Interface, Put, Sample};

const FLOW_SAMPLE: u32 = 1;
const RAW_PACKET_HEADER: u32 = 1;
const EXTENDED_SWITCH: u32 = 1001;
const ETHERNET: u32 = 1;
/// Bytes of the FCS, which count as part of the frame and are stripped from the header.
const FCS: u32 = 4;

/// An interface that is the switch itself.
const INTERNAL: u32 = 0x3fff_ffff;
/// The two upper bits of an output: dropped, for a reason that has no number; more than one
/// interface, whose number is not stated.
const DROPPED: u32 = 1 << 30;
const SEVERAL: u32 = 2 << 30;

/// Returns the sample with its format and its length.
pub(super) fn encode(sample: &Sample<'_>, rate: u32, source: &Source) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32(source.flow_samples);
    body.put_u32(sample.input.unwrap_or(0));
    body.put_u32(rate);
    body.put_u32(source.pool);
    body.put_u32(source.lost);
    body.put_u32(sample.input.unwrap_or(INTERNAL));
    body.put_u32(match sample.output {
        Interface::Port(number) => number,
        Interface::Internal => INTERNAL,
        Interface::Several => SEVERAL,
        Interface::Dropped => DROPPED,
        Interface::Unknown => 0,
    });
    let records = 2;
    body.put_u32(records);
    put_structure(&mut body, RAW_PACKET_HEADER, &raw_header(sample));
    put_structure(&mut body, EXTENDED_SWITCH, &switch_data(sample));
    let mut encoded = Vec::new();
    put_structure(&mut encoded, FLOW_SAMPLE, &body);
    encoded
}

fn raw_header(sample: &Sample<'_>) -> Vec<u8> {
    // Of a large segment, the mean of its packets.
    let parts = u64::from(sample.parts.max(1));
    let length = (sample.wire_bytes() + parts / 2) / parts;
    let mut header = Vec::new();
    header.put_u32(ETHERNET);
    header.put_u32(length as u32 + FCS);
    header.put_u32(FCS);
    header.put_u32(sample.header.len() as u32);
    header.extend_from_slice(sample.header);
    header.resize(header.len().next_multiple_of(4), 0);
    header
}

/// VLAN and priority at the ingress and the egress: a frame keeps its VLAN.
fn switch_data(sample: &Sample<'_>) -> Vec<u8> {
    let mut data = Vec::new();
    for number in [sample.vlan, sample.priority.into()].repeat(2) {
        data.put_u32(number.into());
    }
    data
}
