//! Validation of a header against the frame that follows it.

use super::{DATA_VALID, GSO_ECN, GSO_TCPV4, GSO_TCPV6, HeaderError, NEEDS_CSUM, VnetHeader};
use crate::ethernet::{self, TAG_LEN};
use crate::layout::Layout;
use crate::offload::Offloads;

/// Checks a received header against the frame that it describes and normalises it: unknown flags
/// and unused fields become zero, `hdr_len` of a large frame is derived from the frame.
///
/// `head` is the first bytes of the frame, [`PRIVATE_HEAD`](super::PRIVATE_HEAD) of them or the
/// whole frame if it is shorter; `len` is the length of the whole frame. Returns the offloads that
/// a receiver must have to accept the frame unchanged. [`DATA_VALID`] needs none, but the caller
/// clears it for a receiver without [`Offloads::CSUM`].
///
/// The caller checks the number of segments of a large frame ([`VnetHeader::segments`]) and whether
/// they fit the MTU.
///
/// # Errors
/// The header does not fit the frame.
#[inline]
pub fn validate(header: &mut VnetHeader, head: &[u8], len: usize) -> Result<Offloads, HeaderError> {
    if header.is_plain() {
        *header = VnetHeader::default();
        return Ok(Offloads::NONE);
    }
    validate_offloads(header, head, len)
}

fn validate_offloads(
    header: &mut VnetHeader,
    head: &[u8],
    len: usize,
) -> Result<Offloads, HeaderError> {
    if header.is_gso() {
        return validate_gso(header, head, len);
    }
    if !header.needs_csum() {
        *header = VnetHeader { flags: header.flags & DATA_VALID, ..VnetHeader::default() };
        return Ok(Offloads::NONE);
    }
    check_checksum_bounds(header, head, len)?;
    *header = VnetHeader {
        flags: NEEDS_CSUM,
        csum_start: header.csum_start,
        csum_offset: header.csum_offset,
        ..VnetHeader::default()
    };
    Ok(Offloads::CSUM)
}

/// The checksummed bytes start after the Ethernet header, so that no rewrite of a tag changes them,
/// and the checksum field lies in the frame. Its protocol is not checked.
fn check_checksum_bounds(header: &VnetHeader, head: &[u8], len: usize) -> Result<(), HeaderError> {
    let ethernet = ethernet::parse(head).ok_or(HeaderError::HeadersTruncated)?;
    let start = usize::from(header.csum_start);
    let end = start + usize::from(header.csum_offset) + 2;
    // Room for a tag, so that a shift stays exact.
    let fits = start >= ethernet.header_len() && start <= usize::from(u16::MAX) - TAG_LEN;
    if fits && end <= len { Ok(()) } else { Err(HeaderError::ChecksumOutOfFrame) }
}

fn validate_gso(header: &mut VnetHeader, head: &[u8], len: usize) -> Result<Offloads, HeaderError> {
    let layout = Layout::of(header, head, len)?;
    let transport = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => Offloads::TSO4,
        GSO_TCPV6 => Offloads::TSO6,
        _ => Offloads::USO,
    };
    let ecn = if header.gso_type & GSO_ECN != 0 { Offloads::ECN } else { Offloads::NONE };
    *header =
        VnetHeader { flags: NEEDS_CSUM, hdr_len: layout.payload as u16, num_buffers: 0, ..*header };
    Ok(transport | ecn | Offloads::CSUM)
}
