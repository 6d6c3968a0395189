//! Slots of the receive ring.
//!
//! Inserting a VLAN tag changes a frame in place. What it overwrites is saved in the slot first, so
//! that a reader whose predecessor was killed can restore the frame.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

use trama_frame::ethernet::TAG_LEN;

use crate::forward::MAX_FRAME;

/// Bytes of a slot: the kernel's header, a virtio-net header, the largest frame.
pub(super) const SLOT: usize = (MAX_FRAME + 256).next_multiple_of(64);
/// Bytes of a block: contiguous memory that is divided into slots.
pub(super) const BLOCK: usize = 1 << 20;
/// Slots of a block.
pub(super) const PER_BLOCK: usize = BLOCK / SLOT;
/// Blocks of a ring: 480 slots, a millisecond of small frames.
pub(super) const BLOCKS: usize = 32;
pub(super) const SLOTS: usize = BLOCKS * PER_BLOCK;
/// Bytes of the virtio-net header before each frame: without `num_buffers`, whatever header size
/// the socket was given.
pub(super) const RING_HEADER: usize = 10;
/// Two addresses before a tag.
pub(super) const ADDRESSES: usize = 12;
/// Bytes that the insertion of a tag may overwrite: the virtio-net header and two addresses.
const SAVED: usize = RING_HEADER + ADDRESSES;
/// Where they are saved: over the kernel's `sockaddr_ll`, which the switch does not read.
const SAVED_AT: usize = size_of::<libc::tpacket2_hdr>();
/// Where a slot says that they are saved: in padding that the kernel clears with each frame.
const MARK_AT: usize = std::mem::offset_of!(libc::tpacket2_hdr, tp_padding);
/// Least distance of a frame from the start of its slot: saved bytes, tag and header before it.
pub(super) const LEAST_START: usize = SAVED_AT + SAVED + TAG_LEN + RING_HEADER;

/// Returns the mark of a slot.
///
/// # Safety
/// The slot is mapped and belongs to this process.
unsafe fn mark<'a>(slot: NonNull<u8>) -> &'a AtomicU8 {
    // SAFETY: it lies within the slot's header and is only accessed atomically here.
    unsafe { AtomicU8::from_ptr(slot.add(MARK_AT).as_ptr()) }
}

/// Saves what the insertion of a tag into the frame at `at` overwrites.
///
/// # Safety
/// The slot belongs to this process, and `at` is [`LEAST_START`] bytes or more behind its start
/// with a whole Ethernet header.
pub(super) unsafe fn save(slot: NonNull<u8>, at: NonNull<u8>) {
    // SAFETY: both ranges lie within the slot, and at LEAST_START they do not overlap.
    unsafe {
        slot.add(SAVED_AT).copy_from_nonoverlapping(at.sub(RING_HEADER), SAVED);
        mark(slot).store(1, Ordering::Release);
    }
    // A killed process has done all stores up to an instruction, so the compiler's order suffices.
    compiler_fence(Ordering::SeqCst);
}

/// Puts back what was saved in a slot, if a tag was inserted there.
///
/// # Safety
/// The slot holds a frame, and belongs to this process.
pub(super) unsafe fn restore(slot: NonNull<u8>) {
    // SAFETY: the same ranges as in `save`, which has set the mark.
    unsafe {
        if mark(slot).load(Ordering::Acquire) == 0 {
            return;
        }
        let start = usize::from(slot.cast::<libc::tpacket2_hdr>().read().tp_mac);
        slot.add(start - RING_HEADER).copy_from_nonoverlapping(slot.add(SAVED_AT), SAVED);
        mark(slot).store(0, Ordering::Release);
    }
}
