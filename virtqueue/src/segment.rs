//! A run of bytes that may change while it is looked at.

use std::marker::PhantomData;

/// Pointer and length of bytes that another process, a guest, may write at any time. They are only
/// ever copied from, never borrowed as a slice. Its layout is that of `struct iovec`, so that a
/// slice of segments can be handed to `writev`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Segment<'a> {
    ptr: *const u8,
    len: usize,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: a segment is a read-only view that stays valid for 'a wherever it is used; the bytes may
// be written by others at any time, and all access is by copying.
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

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are, for a system call that reads them.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// The segment without its first `n` bytes; empty if it has fewer.
    pub fn skip(self, n: usize) -> Self {
        self.split_at(n).1
    }

    /// The first `n` bytes (all, if it has fewer) and the rest.
    pub fn split_at(self, n: usize) -> (Self, Self) {
        let n = n.min(self.len);
        // SAFETY: n <= len, so both halves lie within the segment.
        unsafe { (Segment::new(self.ptr, n), Segment::new(self.ptr.add(n), self.len - n)) }
    }

    /// Copies as many bytes as both have, and returns their number.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let n = self.len.min(to.len());
        // SAFETY: n bytes are readable at ptr and writable in `to`; a guest's memory never overlaps
        // a Rust slice, and a segment made from a slice cannot overlap a `&mut` one.
        unsafe { crate::copy::copy(self.ptr, to.as_mut_ptr(), n) };
        n
    }
}
