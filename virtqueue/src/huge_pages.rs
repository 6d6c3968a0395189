//! Huge pages for large tables of our own.
//!
//! A table of tens of MiB that is read at random costs a walk of the page table a read; with pages
//! of 2 MiB its translations stay in the processor.

use std::mem::MaybeUninit;

const HUGE_PAGE: usize = 2 << 20;

/// `count` copies of `value`, in huge pages as far as they fill such and the system has them
/// (`transparent_hugepage` of `always` or `madvise`); where it has none, in ordinary ones.
pub fn in_huge_pages<T: Clone>(value: T, count: usize) -> Box<[T]> {
    let mut values = Vec::with_capacity(count);
    advise(values.spare_capacity_mut());
    values.resize(count, value);
    values.into_boxed_slice()
}

/// Before the memory is first touched: a page that is there stays as it is.
fn advise<T>(memory: &[MaybeUninit<T>]) {
    let start = memory.as_ptr().addr().next_multiple_of(HUGE_PAGE);
    let end = (memory.as_ptr().addr() + size_of_val(memory)) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        // SAFETY: the range lies within memory that we own; how large its pages are changes nothing
        // that a program can see. A refusal leaves them as they were.
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
