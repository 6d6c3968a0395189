//! The Internet checksum (RFC 1071).
//!
//! Sums are carried as numbers below 2^16 in a `u32`.

use crate::vnet::{NEEDS_CSUM, VnetHeader};

/// One's complement sum of `data` as big-endian 16-bit words, an odd last byte padded with
/// zero; folded to 16 bits.
#[inline]
pub fn sum(data: &[u8]) -> u32 {
    let mut total = 0u64;
    for pair in data.chunks(2) {
        total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    u32::from(fold64(total))
}

/// `partial` continued over `data`, which begins at an even offset from where `partial` began.
#[inline]
pub fn add(partial: u32, data: &[u8]) -> u32 {
    u32::from(fold(partial)) + sum(data)
}

/// The sum of two stretches of bytes, `second` being the sum of what begins `offset` bytes
/// after the beginning of the first: at an odd offset its bytes change places (RFC 1071, 2 B).
#[inline]
pub fn combine(first: u32, second: u32, offset: usize) -> u32 {
    let second = fold(second);
    let second = if offset % 2 == 1 { second.swap_bytes() } else { second };
    u32::from(fold(first)) + u32::from(second)
}

/// Folds the carries of a sum back in.
#[inline]
pub const fn fold(partial: u32) -> u16 {
    fold64(partial as u64)
}

const fn fold64(mut partial: u64) -> u16 {
    while partial > 0xffff {
        partial = (partial & 0xffff) + (partial >> 16);
    }
    partial as u16
}

/// The checksum of `data`: the complement of its sum. Zero over data that includes a correct
/// checksum.
#[inline]
pub fn internet(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// Fills in the checksum that `header` (validated against `frame`) asks for and clears the
/// flag. The sender has put the pseudo-header's sum in its place (virtio 1.2, 5.1.6.2), so
/// the sum runs from `csum_start` to the end over whatever the protocol is.
///
/// A header that [`crate::vnet::validate`] would refuse for this frame is left alone.
pub fn complete(frame: &mut [u8], header: &mut VnetHeader) {
    if !header.needs_csum() {
        return;
    }
    let Some(covered) = frame.get_mut(usize::from(header.csum_start)..) else { return };
    let checksum = internet(covered);
    let at = usize::from(header.csum_offset);
    let Some(field) = covered.get_mut(at..at + 2) else { return };
    field.copy_from_slice(&checksum.to_be_bytes());
    header.flags &= !NEEDS_CSUM;
}
