//! Huge pages for large tables of the host process.
//!
//! A table of tens of MiB that is read at random costs a page walk for each read. With pages of 2
//! MiB its translations stay in the TLB.

use std::mem::MaybeUninit;

const HUGE_PAGE: usize = 2 << 20;

/// Allocates `count` copies of `value`. Parts that fill a huge page use one if the system has it
/// (`transparent_hugepage` of `always` or `madvise`); the rest uses ordinary pages.
pub fn in_huge_pages<T: Clone>(value: T, count: usize) -> Box<[T]> {
    let mut values = Vec::with_capacity(count);
    advise(values.spare_capacity_mut());
    values.resize(count, value);
    values.into_boxed_slice()
}

/// Asks for huge pages. Must run before the memory is first touched: a page that is present keeps
/// its size.
fn advise<T>(memory: &[MaybeUninit<T>]) {
    let start = memory.as_ptr().addr().next_multiple_of(HUGE_PAGE);
    let end = (memory.as_ptr().addr() + size_of_val(memory)) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        // SAFETY: the range lies within memory that the caller owns. The size of its pages changes
        // nothing that a program can see, and a refusal leaves them as they were.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
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
