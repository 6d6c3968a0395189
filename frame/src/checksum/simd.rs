//! The sum in vector registers.
//!
//! Each vector is read as 32-bit lanes; their low and high halves are added up apart, in two
//! accumulators of 32-bit lanes. A block is short enough for the sum of all its words to fit
//! in 32 bits, so neither the lanes nor their final addition overflow.
#![allow(unsafe_code)] // Vector loads, and calls of code that needs AVX2 or SSE2.

use std::arch::x86_64::*;

use super::sum_scalar;

/// 2^15 words of at most 2^16 - 1 each: their sum stays below 2^31. A multiple of every vector
/// size, so that only the last block has a rest.
const BLOCK: usize = 64 * 1024;

/// Sum of the words of `data` in the machine's byte order, by the widest vectors there are.
#[inline]
pub fn sum_wide(data: &[u8]) -> u64 {
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, the one feature that the function needs.
        unsafe { sum_avx2(data) }
    } else {
        sum_baseline(data)
    }
}

/// The same by what every x86-64 processor has.
#[inline]
pub fn sum_baseline(data: &[u8]) -> u64 {
    // SAFETY: SSE2, the one feature that the function needs, is part of x86-64.
    unsafe { sum_sse2(data) }
}

#[target_feature(enable = "avx2")]
fn sum_avx2(data: &[u8]) -> u64 {
    data.chunks(BLOCK).map(|block| block_avx2(block)).sum()
}

#[target_feature(enable = "avx2")]
fn block_avx2(block: &[u8]) -> u64 {
    let low_half = _mm256_set1_epi32(0xffff);
    let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let (vectors, rest) = block.as_chunks::<32>();
    for vector in vectors {
        // SAFETY: the reference is to 32 readable bytes, and the load needs no alignment.
        let words = unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) };
        low = _mm256_add_epi32(low, _mm256_and_si256(words, low_half));
        high = _mm256_add_epi32(high, _mm256_srli_epi32::<16>(words));
    }
    let both = _mm256_add_epi32(low, high);
    let lanes = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
    u64::from(add_lanes(lanes)) + sum_scalar(rest)
}

#[target_feature(enable = "sse2")]
fn sum_sse2(data: &[u8]) -> u64 {
    data.chunks(BLOCK).map(|block| block_sse2(block)).sum()
}

#[target_feature(enable = "sse2")]
fn block_sse2(block: &[u8]) -> u64 {
    let low_half = _mm_set1_epi32(0xffff);
    let (mut low, mut high) = (_mm_setzero_si128(), _mm_setzero_si128());
    let (vectors, rest) = block.as_chunks::<16>();
    for vector in vectors {
        // SAFETY: the reference is to 16 readable bytes, and the load needs no alignment.
        let words = unsafe { _mm_loadu_si128(vector.as_ptr().cast()) };
        low = _mm_add_epi32(low, _mm_and_si128(words, low_half));
        high = _mm_add_epi32(high, _mm_srli_epi32::<16>(words));
    }
    u64::from(add_lanes(_mm_add_epi32(low, high))) + sum_scalar(rest)
}

/// The sum of the four lanes.
#[inline]
#[target_feature(enable = "sse2")]
fn add_lanes(lanes: __m128i) -> u32 {
    let pairs = _mm_add_epi32(lanes, _mm_shuffle_epi32::<0b01_00_11_10>(lanes));
    let all = _mm_add_epi32(pairs, _mm_shuffle_epi32::<0b10_11_00_01>(pairs));
    _mm_cvtsi128_si32(all) as u32
}
