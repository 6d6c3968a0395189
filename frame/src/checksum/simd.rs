//! The sum with the widest vectors that the processor has.
//!
//! [`sum_words`] is a plain loop that the compiler vectorises: with SSE2, which is part of x86-64,
//! and with AVX2 in the copy below, which runs if the processor has AVX2. On a Zen 4 that takes
//! 19 ns instead of 31 ns for 1448 bytes and 0.64 µs instead of 1.30 µs for 64 KiB; loops of
//! intrinsics were not faster.
#![expect(unsafe_code, reason = "one call of code that needs AVX2")]

use super::sum_words;

/// Sum of the words of `data` in the machine's byte order.
#[inline]
pub(super) fn sum_wide(data: &[u8]) -> u64 {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, the one feature that the function needs.
        unsafe { sum_avx2(data) }
    } else {
        sum_words(data)
    }
}

#[target_feature(enable = "avx2")]
fn sum_avx2(data: &[u8]) -> u64 {
    sum_words(data)
}
