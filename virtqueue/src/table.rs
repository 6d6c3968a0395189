//! Large tables that are read at random, in huge pages; optionally in a memfd that a later process
//! can read.
//!
//! Only the process that makes a table writes it: a seal forbids all others to, and itself further
//! mappings. So a table in a memfd is owned memory like one on the heap.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::huge_pages::{self, HUGE_PAGE, in_huge_pages};
use crate::mapping::{Pages, add_seals, memfd};

const NAME: &CStr = c"trama-table";
/// Where the table starts in its file: at a huge page, behind the head.
pub const TABLE_AT: usize = HUGE_PAGE;

/// A table of a fixed number of rows.
pub struct Table<T> {
    at: NonNull<T>,
    len: usize,
    memory: Memory,
}

/// Where a table is.
enum Memory {
    Heap,
    File { _pages: Pages },
}

// SAFETY: it owns its rows, as a boxed slice does.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as for Send.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T: Copy> Table<T> {
    /// Makes a table of `len` copies of `row` on the heap.
    pub fn on_heap(row: T, len: usize) -> Table<T> {
        let rows = Box::into_raw(in_huge_pages(row, len));
        let at = NonNull::new(rows.cast()).unwrap_or(NonNull::dangling());
        Table { at, len, memory: Memory::Heap }
    }
}

/// Makes a table of `len` copies of `row` in a memfd, behind a head of `head_len` zeros, which must
/// fit before [`TABLE_AT`]. Also returns the file, which can be read and no longer written.
///
/// # Errors
/// The memory cannot be made, or the kernel is older than 5.1 and lacks the seal.
pub fn in_memfd<T: Copy>(
    row: T,
    len: usize,
    head_len: usize,
) -> io::Result<(Table<u64>, Table<T>, File)> {
    let head_bytes = head_len * size_of::<u64>();
    if head_bytes > TABLE_AT || align_of::<T>() > TABLE_AT || len == 0 || head_len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = len * size_of::<T>();
    let file = memfd(NAME, (TABLE_AT + bytes) as u64)?;
    let head = Pages::map(&file, 0, head_bytes)?;
    let pages = Pages::map_aligned(&file, TABLE_AT as u64, bytes, HUGE_PAGE)?;
    add_seals(&file, libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)?;
    huge_pages::advise(pages.base(), bytes);
    // SAFETY: the mapping has room for `len` rows, at a page or better, and nothing else uses it.
    let at = unsafe {
        let at = NonNull::new_unchecked(pages.base().cast::<T>());
        (0..len).for_each(|i| at.add(i).write(row));
        at
    };
    huge_pages::collapse(pages.base(), bytes);
    // SAFETY: zeros are numbers, and the mapping has room for them.
    let head_at = unsafe { NonNull::new_unchecked(head.base().cast::<u64>()) };
    let head = Table { at: head_at, len: head_len, memory: Memory::File { _pages: head } };
    Ok((head, Table { at, len, memory: Memory::File { _pages: pages } }, file))
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` rows are there and initialised, and nothing but this value writes them.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        if let Memory::Heap = self.memory {
            let rows = std::ptr::slice_from_raw_parts_mut(self.at.as_ptr(), self.len);
            // SAFETY: it was a boxed slice of this length.
            drop(unsafe { Box::from_raw(rows) });
        }
    }
}
