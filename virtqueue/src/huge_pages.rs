//! Huge pages for large tables of the host process.
//!
//! A table of tens of MiB that is read at random costs a page walk for each read. With pages of 2
//! MiB its translations stay in the TLB.

use std::mem::MaybeUninit;

pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Allocates `count` copies of `value`. Parts that fill a huge page use one if the system has it
/// (`transparent_hugepage` of `always` or `madvise`); the rest uses ordinary pages.
pub(crate) fn in_huge_pages<T: Clone>(value: T, count: usize) -> Box<[T]> {
    let mut values = Vec::with_capacity(count);
    let spare: &mut [MaybeUninit<T>] = values.spare_capacity_mut();
    let len = size_of_val(spare);
    advise(spare.as_mut_ptr().cast(), len);
    values.resize(count, value);
    values.into_boxed_slice()
}

/// Asks for huge pages in `len` bytes of the caller's memory. Must run before they are first
/// touched: a page that is present keeps its size.
pub(crate) fn advise(memory: *mut u8, len: usize) {
    advise_whole_pages(memory, len, libc::MADV_HUGEPAGE);
}

/// Replaces the pages of `len` bytes of the caller's shared memory by huge ones. Linux does so from
/// 6.1 on, whatever `shmem_enabled` says but `deny`; asking for them ahead, as [`advise`] does, had
/// no effect. Without huge pages a frame among a million addresses takes 14 % more cycles.
pub(crate) fn collapse(memory: *mut u8, len: usize) {
    advise_whole_pages(memory, len, libc::MADV_COLLAPSE);
}

fn advise_whole_pages(memory: *mut u8, len: usize, advice: libc::c_int) {
    let start = memory.addr().next_multiple_of(HUGE_PAGE);
    let end = (memory.addr() + len) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        // SAFETY: the range lies within memory that the caller owns. The size of its pages changes
        // nothing that a program can see, and a refusal leaves them as they were.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_filled() {
        for count in [0, 1, 1000, 5 << 17] {
            let values = in_huge_pages(7u64, count);
            assert_eq!((values.len(), values.iter().sum::<u64>()), (count, 7 * count as u64));
        }
    }
}
