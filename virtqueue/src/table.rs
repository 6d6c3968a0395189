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
    let fixed_size = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    add_seals(&file, libc::F_SEAL_FUTURE_WRITE | fixed_size | libc::F_SEAL_SEAL)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn every_size_is_filled() {
        for len in [0, 1, 1000, 5 << 17] {
            let mut table = Table::on_heap(7u64, len);
            assert_eq!((table.len(), table.iter().sum::<u64>()), (len, 7 * len as u64));
            table.iter_mut().for_each(|row| *row = 1);
        }
        for len in [1, 1000, 5 << 17] {
            let (head, table, _file) = in_memfd(7u64, len, 9).unwrap();
            assert_eq!((table.len(), table.iter().sum::<u64>()), (len, 7 * len as u64));
            assert_eq!(&*head, [0; 9]);
            assert_eq!(table.as_ptr().addr() % HUGE_PAGE, 0);
        }
        assert!(in_memfd(7u64, 0, 9).is_err() && in_memfd(7u64, 1, TABLE_AT).is_err());
    }

    #[test]
    fn the_file_has_what_is_written_and_cannot_be_written() {
        let (mut head, mut table, file) = in_memfd(7u64, 100, 9).unwrap();
        (head[8], table[99]) = (3, 4);
        let word = |at: usize| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at as u64).unwrap();
            u64::from_ne_bytes(bytes)
        };
        assert_eq!((word(8 * 8), word(TABLE_AT), word(TABLE_AT + 99 * 8)), (3, 7, 4));
        assert!(file.write_all_at(&[1], 0).is_err() && file.set_len(1).is_err());
        assert!(Pages::map(&file, 0, 4096).is_err(), "no mapping that can be written");
    }
}
