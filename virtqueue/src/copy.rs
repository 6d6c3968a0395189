//! Copies between guest memory and the host's, or between two guests.
//!
//! Frames are small or large, seldom in between: up to 64 bytes go through four 16-byte registers
//! whose ends overlap (60 bytes, the commonest frame, cost as much as 64), and large ones through a
//! loop of 64-byte registers, which was 5 to 7 % ahead of the C library's `memcpy` at 1500 bytes.

use std::ptr;

use crate::ring::HEADER_LEN;

/// 16 bytes that travel in one register.
#[cfg(target_arch = "x86_64")]
type Wide = std::arch::x86_64::__m128i;
#[cfg(not(target_arch = "x86_64"))]
type Wide = u128;

/// Copies `len` bytes.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`. If the ranges overlap, what `to` gets
/// is unspecified.
#[inline(always)]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        if len <= 64 {
            copy_small(from, to, len);
        } else {
            copy_large(from, to, len);
        }
    }
}

/// Copies at most 64 bytes.
///
/// # Safety
/// As for [`copy`], and `len` is at most 64.
#[inline(always)]
pub(crate) unsafe fn copy_small(from: *const u8, to: *mut u8, len: usize) {
    debug_assert!(len <= 64);
    // SAFETY: each word read and written starts at or after 0 and ends at or before len. All words
    // are read before the first is written, so that their overlap is no matter.
    unsafe {
        let load = |at: usize| ptr::read_unaligned(from.add(at).cast::<Wide>());
        let store = |at: usize, word: Wide| ptr::write_unaligned(to.add(at).cast::<Wide>(), word);
        if len >= 32 {
            let words = (load(0), load(16), load(len - 32), load(len - 16));
            store(0, words.0);
            store(16, words.1);
            store(len - 32, words.2);
            store(len - 16, words.3);
        } else if len >= 16 {
            let words = (load(0), load(len - 16));
            store(0, words.0);
            store(len - 16, words.1);
        } else {
            copy_tiny(from, to, len);
        }
    }
}

/// Copies fewer than 16 bytes.
///
/// # Safety
/// As for [`copy`], and `len` is below 16.
#[inline]
unsafe fn copy_tiny(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as for copy_small.
    unsafe {
        if len >= 8 {
            let words = (
                ptr::read_unaligned(from.cast::<u64>()),
                ptr::read_unaligned(from.add(len - 8).cast::<u64>()),
            );
            ptr::write_unaligned(to.cast::<u64>(), words.0);
            ptr::write_unaligned(to.add(len - 8).cast::<u64>(), words.1);
        } else {
            for at in 0..len {
                to.add(at).write(from.add(at).read());
            }
        }
    }
}

/// Copies more than 64 bytes.
///
/// # Safety
/// As for [`copy`], and `len` is above 64.
#[inline]
unsafe fn copy_large(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the feature; the rest as the caller promises.
        return unsafe { copy_avx512(from, to, len) };
    }
    // A guest can name one buffer as source and target. The result is then unspecified, but
    // `ptr::copy` is defined for it. SAFETY: as the caller promises.
    unsafe { ptr::copy(from, to, len) };
}

/// # Safety
/// As for [`copy_large`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn copy_avx512(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512};
    // SAFETY: each register covers 64 bytes that end at or before len, which is above 64.
    unsafe {
        let last = _mm512_loadu_si512(from.add(len - 64).cast());
        let mut at = 0;
        while at < len - 64 {
            _mm512_storeu_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast()));
            at += 64;
        }
        _mm512_storeu_si512(to.add(len - 64).cast(), last);
    }
}

/// Splits a virtio-net header into two little-endian words, the best way to move it: a load wider
/// than the stores that have just written its bytes waits until they have left for the cache.
#[inline(always)]
pub(crate) fn header_words(header: &[u8; HEADER_LEN]) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, tail @ ..] = *header;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes(tail))
}

/// Writes a virtio-net header only where it differs. Drivers reuse buffers and nearly all headers
/// are alike; a line that is not written stays shared.
///
/// # Safety
/// 12 bytes are readable and writable at `to`.
#[inline(always)]
pub(crate) unsafe fn copy_header((low, high): (u64, u32), to: *mut u8) {
    let (low, high) = (low.to_le(), high.to_le());
    // SAFETY: as the caller promises.
    unsafe {
        let (low_at, high_at) = (to.cast::<u64>(), to.add(8).cast::<u32>());
        if low_at.read_unaligned() != low {
            low_at.write_unaligned(low);
        }
        if high_at.read_unaligned() != high {
            high_at.write_unaligned(high);
        }
    }
}

/// Prefetches the cache line at `address`, which need not be mapped.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory that a program can observe, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(address.cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches the cache line at `address`, which need not be mapped, for writing: no other core
/// keeps a copy. `_mm_prefetch` with `_MM_HINT_ET0` would prefetch for reading, as not every x86-64
/// processor knows `prefetchw`. On those that do not, it is a no-op.
#[inline(always)]
pub(crate) fn prefetch_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches no memory that a program can observe, whatever the address.
    unsafe {
        std::arch::asm!(
            "prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_copies_exactly_its_bytes() {
        let source: Vec<u8> = (0..2100u32).map(|i| (i * 7 + i / 256) as u8 | 1).collect();
        for len in 0..2000 {
            let mut target = vec![0u8; len + 64];
            // SAFETY: source has len + 3 bytes, target len + 32.
            unsafe { copy(source.as_ptr().add(3), target.as_mut_ptr().add(32), len) };
            assert_eq!(&target[32..32 + len], &source[3..3 + len]);
            assert!(target[..32].iter().chain(&target[32 + len..]).all(|&b| b == 0), "{len}");
        }
    }
}
