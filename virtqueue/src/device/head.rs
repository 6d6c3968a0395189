//! The first bytes of a frame as they are put on a ring: in one piece, or with a new start.
//!
//! A switch that pushes, pops or changes a VLAN tag makes a new start, the addresses and the tag,
//! and leaves everything behind it where it was. The start stays in registers until it is written
//! to the ring. In memory of its own it would be read back by wider loads than the stores that have
//! just written it, and such a load waits until they have left for the cache.

use crate::copy::copy;
use crate::segment::Segment;

/// The first bytes of a frame that is put on a ring: a slice, or a [`NewStart`].
pub trait Head: sealed::Bytes {
    /// Copies all of them to the beginning of `room`; that part of it.
    ///
    /// # Panics
    /// There is no room.
    fn copy_to(self, room: &mut [u8]) -> &[u8] {
        let mut end = 0;
        self.for_each_piece(|piece| {
            let start = end;
            end += piece.len();
            piece.copy_to(&mut room[start..end]);
        });
        &room[..end]
    }
}

impl<T: sealed::Bytes> Head for T {}

pub(super) mod sealed {
    use super::Segment;

    pub trait Bytes: Copy {
        /// How many there are.
        fn len(&self) -> usize;

        /// Writes all of them.
        ///
        /// # Safety
        /// [`len`](Self::len) bytes are writable at `to`.
        unsafe fn write_to(self, to: *mut u8);

        /// Hands them to `put`, in order.
        fn for_each_piece(self, put: impl FnMut(Segment<'_>));
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

    fn for_each_piece(self, mut put: impl FnMut(Segment<'_>)) {
        put(self.into());
    }
}

/// The first bytes of a frame whose start is new: two MAC addresses and, if it is `TAGGED`, a VLAN
/// tag. What comes after them is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct NewStart<'a, const TAGGED: bool> {
    /// In the order of the bytes in memory. The last four count only if there is a tag.
    start: u128,
    rest: &'a [u8],
}

impl<'a, const TAGGED: bool> NewStart<'a, TAGGED> {
    /// Bytes of the addresses, and of the tag if there is one (IEEE 802.1Q, section 9.3).
    pub const LEN: usize = if TAGGED { 16 } else { 12 };

    /// A frame that begins with the first [`LEN`](Self::LEN) bytes of `start` and goes on with
    /// `rest`.
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

    fn for_each_piece(self, mut put: impl FnMut(Segment<'_>)) {
        put(self.start.to_ne_bytes()[..Self::LEN].into());
        put(self.rest.into());
    }
}
