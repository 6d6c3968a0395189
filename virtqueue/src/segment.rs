//! A range of bytes that may change while it is read.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Pointer and length of bytes that a guest may write at any time. They are only copied from, never
/// borrowed as a slice. The layout is that of `struct iovec`, so a slice of segments can be passed
/// to `writev`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Segment<'a> {
    ptr: *const u8,
    len: usize,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: a segment is a read-only view that stays valid for 'a on any thread. Other threads and
// processes may write the bytes at any time; all access is by copying.
unsafe impl Send for Segment<'_> {}
// SAFETY: as for Send: shared use only copies out.
unsafe impl Sync for Segment<'_> {}

impl<'a> From<&'a [u8]> for Segment<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Segment { ptr: bytes.as_ptr(), len: bytes.len(), memory: PhantomData }
    }
}

impl<'a> Segment<'a> {
    /// # Safety
    /// `len` bytes at `ptr` are mapped and readable for 'a.
    pub(crate) const unsafe fn new(ptr: *const u8, len: usize) -> Self {
        Segment { ptr, len, memory: PhantomData }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the segment is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns a pointer to the bytes, for a system call that reads them.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// Reads a byte of each page. A system call that read the segment and failed with EFAULT, as
    /// its file lacks a page, then succeeds: the page is there, or the mapping is lost and reads as
    /// zeros.
    pub fn touch(&self) {
        const PAGE: usize = crate::room::PAGE as usize;
        let Some(last) = self.len.checked_sub(1) else { return };
        let first_page = PAGE - self.ptr.addr() % PAGE;
        let at_pages = (first_page..last).step_by(PAGE);
        for at in [0, last].into_iter().chain(at_pages) {
            // SAFETY: `at` is below `len`, so the byte lies within the segment.
            unsafe { self.ptr.add(at).read_volatile() };
        }
    }

    /// Returns the segment without its first `n` bytes; empty if it is shorter.
    pub fn skip(self, n: usize) -> Self {
        self.split_at(n).1
    }

    /// Splits after the first `n` bytes, or at the end if it is shorter.
    pub fn split_at(self, n: usize) -> (Self, Self) {
        let n = n.min(self.len);
        // SAFETY: n <= len, so both halves lie within the segment.
        unsafe { (Segment::new(self.ptr, n), Segment::new(self.ptr.add(n), self.len - n)) }
    }

    /// Copies bytes until one side is exhausted, and returns their number.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let n = self.len.min(to.len());
        // SAFETY: n bytes are readable at ptr and writable in `to`; a guest's memory never overlaps
        // a Rust slice, and a segment made from a slice cannot overlap a `&mut` one.
        unsafe { crate::copy::copy(self.ptr, to.as_mut_ptr(), n) };
        n
    }

    /// Does the same as [`Segment::copy_to`] into memory that holds nothing yet.
    #[inline]
    pub fn copy_to_uninit(&self, to: &mut [MaybeUninit<u8>]) -> usize {
        let n = self.len.min(to.len());
        // SAFETY: as in `copy_to`; bytes are only written.
        unsafe { crate::copy::copy(self.ptr, to.as_mut_ptr().cast(), n) };
        n
    }
}
