//! The Internet checksum (RFC 1071) and its completion in software.
//!
//! The sum is computed in the machine's byte order over words as wide as the machine's and
//! swapped at the end, which one's complement arithmetic allows. From `SIMD_FROM` bytes on
//! AVX2 is used if the processor has it; see the module `simd`.
//!
//! A *partial sum* is a `u32` that holds a 16-bit one's complement sum of big-endian
//! words with its carries not yet folded in. All functions take any value and return one below
//! 2^17, so a few more words may be added to it by hand.

#[cfg(target_arch = "x86_64")]
mod simd;

use crate::vnet::{NEEDS_CSUM, VnetHeader};

/// Shorter data is summed inline: below this length the test for AVX2 and the call cost more than
/// the wider vectors save (measured: equal at 128 bytes, slower at 64).
const SIMD_FROM: usize = 128;

/// `csum_offset` of UDP, where a sum of zero is sent as 0xffff because zero means "none"
/// (RFC 768).
const UDP_CHECKSUM_OFFSET: u16 = 6;

/// One's complement sum of `data` as big-endian 16-bit words, an odd last byte padded with
/// zero.
#[inline]
pub fn sum(data: &[u8]) -> u32 {
    let native = if data.len() < SIMD_FROM { sum_words(data) } else { sum_wide(data) };
    u32::from(u16::from_be(fold64(native)))
}

#[cfg(target_arch = "x86_64")]
use simd::sum_wide;
#[cfg(not(target_arch = "x86_64"))]
use sum_words as sum_wide;

/// Sum of the words of `data` in the machine's byte order. The tail takes one step of each
/// width: a copy into a padded word costs more than the rest of a header's sum.
#[inline(always)]
fn sum_words(data: &[u8]) -> u64 {
    let (eights, rest) = data.as_chunks::<8>();
    let (fours, rest) = rest.as_chunks::<4>();
    let (twos, rest) = rest.as_chunks::<2>();
    let mut total = 0;
    for word in eights {
        // Two 32-bit words, each congruent to the sum of its own two 16-bit words.
        let word = u64::from_ne_bytes(*word);
        total += (word & 0xffff_ffff) + (word >> 32);
    }
    for word in fours {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    for word in twos {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    for byte in rest {
        total += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    total
}

/// Continues the sum `partial` over `data`, which begins an even number of bytes after the start
/// of the bytes that `partial` covers.
#[inline]
pub fn add(partial: u32, data: &[u8]) -> u32 {
    u32::from(fold(partial)) + sum(data)
}

/// Adds the sums of two byte ranges, the second beginning `offset` bytes after the first: at
/// an odd offset its bytes change places (RFC 1071, 2 B).
#[inline]
pub fn combine(first: u32, second: u32, offset: usize) -> u32 {
    let second = fold(second);
    let second = if offset % 2 == 1 { second.swap_bytes() } else { second };
    u32::from(fold(first)) + u32::from(second)
}

/// Folds the carries of a partial sum in. The checksum is the complement of the result.
#[inline]
pub const fn fold(partial: u32) -> u16 {
    fold64(partial as u64)
}

#[inline]
const fn fold64(total: u64) -> u16 {
    // Each step leaves the value congruent modulo 65535 and at most 33, 18, 17 and 16 bits.
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// The checksum of `data`: the complement of its sum. Zero over data that includes its own
/// correct checksum.
#[inline]
pub fn internet(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// Fills in the checksum that `header` (validated against `frame`) requests and clears the
/// flag. The sender has put the pseudo-header's sum in its place (virtio 1.2, 5.1.6.2), so
/// the sum runs from `csum_start` to the end, whatever the protocol.
///
/// Not for a large frame, whose segments [`crate::gso::segment`] completes. A header that lies
/// outside the frame, which [`crate::vnet::validate()`] refuses, changes nothing.
pub fn complete(frame: &mut [u8], header: &mut VnetHeader) {
    if !header.needs_csum() {
        return;
    }
    let Some(covered) = frame.get_mut(usize::from(header.csum_start)..) else { return };
    let checksum = internet(covered);
    let at = usize::from(header.csum_offset);
    let Some(field) = covered.get_mut(at..at + 2) else { return };
    let checksum =
        if header.csum_offset == UDP_CHECKSUM_OFFSET { never_zero(checksum) } else { checksum };
    field.copy_from_slice(&checksum.to_be_bytes());
    header.flags &= !NEEDS_CSUM;
    (header.csum_start, header.csum_offset) = (0, 0);
}

/// A checksum in the form of UDP, which sends zero as its other representation.
#[inline]
pub(crate) const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests;
