//! The first bytes of a frame put on a ring: in one piece, or with a new start.
//!
//! A switch that pushes, pops or changes a VLAN tag writes a new start (the addresses and the tag)
//! and leaves the rest in place. The start stays in registers until it is written to the ring. In
//! memory it would be read back by loads wider than the stores that have just written it, and such
//! a load waits until they have left for the cache.

use crate::copy::copy;
use crate::segment::Segment;

/// The first bytes of a frame put on a ring: a slice, or a [`NewStart`].
pub trait Head: sealed::Bytes {
    /// Copies all bytes to the beginning of `room`, and returns that part of it.
    ///
    /// # Panics
    /// If `room` is too small.
    fn copy_to(self, room: &mut [u8]) -> &[u8] {
        let mut end = 0;
        self.for_each_segment(|segment| {
            let start = end;
            end += segment.len();
            segment.copy_to(&mut room[start..end]);
        });
        &room[..end]
    }
}

impl<T: sealed::Bytes> Head for T {}

pub(super) mod sealed {
    use super::Segment;

    pub trait Bytes: Copy {
        /// Returns the number of bytes.
        fn len(&self) -> usize;

        /// Writes all bytes.
        ///
        /// # Safety
        /// [`len`](Self::len) bytes are writable at `to`.
        unsafe fn write_to(self, to: *mut u8);

        /// Passes the bytes to `put`, in order.
        fn for_each_segment(self, put: impl FnMut(Segment<'_>));
    }
}

impl sealed::Bytes for &[u8] {
    #[inline(always)]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline(always)]
    unsafe fn write_to(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { copy(self.as_ptr(), to, <[u8]>::len(self)) };
    }

    fn for_each_segment(self, mut put: impl FnMut(Segment<'_>)) {
        put(self.into());
    }
}

/// The first bytes of a frame with a new start: two MAC addresses and, if it is `TAGGED`, a VLAN
/// tag. The bytes after them are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct NewStart<'a, const TAGGED: bool> {
    /// In the order of the bytes in memory. The last four are used only if there is a tag.
    start: u128,
    rest: &'a [u8],
}

impl<'a, const TAGGED: bool> NewStart<'a, TAGGED> {
    /// Length of the addresses, and of the tag if there is one (IEEE 802.1Q, section 9.3).
    pub const LEN: usize = if TAGGED { 16 } else { 12 };

    /// Makes a frame start of the first [`LEN`](Self::LEN) bytes of `start`, followed by `rest`.
    #[inline(always)]
    pub fn new(start: [u8; 16], rest: &'a [u8]) -> Self {
        NewStart { start: u128::from_ne_bytes(start), rest }
    }
}

impl<const TAGGED: bool> sealed::Bytes for NewStart<'_, TAGGED> {
    #[inline(always)]
    fn len(&self) -> usize {
        Self::LEN + self.rest.len()
    }

    #[inline(always)]
    unsafe fn write_to(self, to: *mut u8) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = self.start.to_ne_bytes();
        // SAFETY: as the caller promises: the parts follow each other and are as long as the whole.
        unsafe {
            if TAGGED {
                to.cast::<u128>().write_unaligned(self.start);
            } else {
                let (low, high) = ([a, b, c, d, e, f, g, h], [i, j, k, l]);
                to.cast::<u64>().write_unaligned(u64::from_ne_bytes(low));
                to.add(8).cast::<u32>().write_unaligned(u32::from_ne_bytes(high));
            }
            copy(self.rest.as_ptr(), to.add(Self::LEN), self.rest.len());
        }
    }

    fn for_each_segment(self, mut put: impl FnMut(Segment<'_>)) {
        put(self.start.to_ne_bytes()[..Self::LEN].into());
        put(self.rest.into());
    }
}
