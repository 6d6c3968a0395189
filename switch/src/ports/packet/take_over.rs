//! Takes over a ring whose last reader was killed.
//!
//! All of it happens with the first look for frames, when the last reader is gone for certain:
//! until a switch that is replaced stands still, it goes on reading.
//!
//! **Read position.** The kernel fills the slots in turn and knows where it is; a reader that was
//! killed took its own position with it. Its unreleased slots show it: they are one run, which
//! begins behind a released slot. Of a ring without such a slot, the slots' times show it: the
//! oldest frame follows the newest. Of an empty ring nothing shows it until the next frame.
//!
//! **Frames.** A burst that was fetched but not released is read again, so its frames may be
//! delivered twice, but none is left out. Those that had a tag inserted are restored first.

use std::sync::atomic::{AtomicU32, Ordering};

use super::burst::Ring;
use super::slot::{SLOTS, restore};

/// Looks at the ring until two agree. The kernel may be filling slots out of order, each for less
/// than a microsecond.
const MAX_LOOKS: usize = 100;

impl Ring {
    /// Restores the frames that the last reader had begun to change.
    pub(super) fn restore_frames(&self) {
        for index in 0..SLOTS {
            if self.is_filled(index) {
                // SAFETY: the kernel does not touch a slot that it has filled.
                unsafe { restore(self.slot(index)) };
            }
        }
    }

    /// Returns the slot of the oldest frame; `None` if there is no frame.
    pub(super) fn oldest(&self) -> Option<usize> {
        let mut last = self.look();
        for _ in 0..MAX_LOOKS {
            let now = self.look();
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    fn look(&self) -> Option<usize> {
        let filled: Vec<bool> = (0..SLOTS).map(|index| self.is_filled(index)).collect();
        if filled.iter().all(|filled| *filled) {
            return Some(self.seam());
        }
        (0..SLOTS).find(|index| filled[*index] && !filled[before(*index)])
    }

    /// Returns the slot of a full ring whose frame is oldest: where the time goes back furthest.
    /// Frames that several processors received together can be slightly out of order.
    fn seam(&self) -> usize {
        let times: Vec<u64> = (0..SLOTS).map(|index| self.time(index)).collect();
        let step_back = |index: &usize| times[before(*index)].saturating_sub(times[*index]);
        (0..SLOTS).max_by_key(step_back).unwrap_or(0)
    }

    fn is_filled(&self, index: usize) -> bool {
        self.owner(index).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Returns the time of the frame in a filled slot, in nanoseconds of the system's clock.
    fn time(&self, index: usize) -> u64 {
        let word = |at: usize| {
            // SAFETY: both words lie within the slot's header, and the kernel does not touch a
            // slot that it has filled.
            let word = unsafe { AtomicU32::from_ptr(self.slot(index).add(at).as_ptr().cast()) };
            u64::from(word.load(Ordering::Relaxed))
        };
        let seconds = word(std::mem::offset_of!(libc::tpacket2_hdr, tp_sec));
        seconds * 1_000_000_000 + word(std::mem::offset_of!(libc::tpacket2_hdr, tp_nsec))
    }
}

fn before(index: usize) -> usize {
    (index + SLOTS - 1) % SLOTS
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::super::burst::{Mapping, SlotBurst};
    use super::super::slot::{BLOCK, BLOCKS, LEAST_START, RING_HEADER};
    use super::*;
    use crate::forward::Source;

    /// A ring that the test fills in the kernel's place.
    fn ring() -> Ring {
        // SAFETY: a new mapping of the ring's size, which the ring unmaps.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), BLOCK * BLOCKS, access, kind, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            Ring::take_over(Mapping::new(NonNull::new(at.cast()).unwrap()))
        }
    }

    /// Fills the slot at `index` with a tagged frame whose bytes are `number`, received then.
    fn fill(ring: &Ring, index: usize, number: u8) {
        let slot = ring.slot(index);
        let start = LEAST_START + 2;
        let tag = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        let about = libc::tpacket2_hdr {
            tp_status: libc::TP_STATUS_KERNEL,
            tp_len: 60,
            tp_snaplen: 60,
            tp_mac: start as u16,
            tp_net: 0,
            tp_sec: 7,
            tp_nsec: u32::from(number),
            tp_vlan_tci: 5,
            tp_vlan_tpid: 0x8100,
            tp_padding: [0; 4],
        };
        // SAFETY: the slot is this test's.
        unsafe {
            slot.cast().write(about);
            slot.add(start - RING_HEADER).write_bytes(0, RING_HEADER);
            slot.add(start).write_bytes(number, 60);
        }
        ring.owner(index).store(libc::TP_STATUS_USER | tag, Ordering::Release);
    }

    fn numbers(ring: &mut Ring, release: bool) -> Vec<u8> {
        let mut burst = SlotBurst::new();
        ring.fetch(&mut burst);
        let numbers = (0..burst.len())
            .map(|i| {
                burst.with_frame(i, |head, _| {
                    assert_eq!((head.len(), &head[12..16]), (64, &[0x81, 0, 0, 5][..]));
                    assert!(head[..12].iter().chain(&head[16..]).all(|byte| *byte == head[0]));
                    head[0]
                })
            })
            .collect();
        if release {
            ring.release(&mut burst);
        }
        numbers
    }

    #[test]
    fn a_run_is_read_from_its_first_slot() {
        for first in [0, 1, 200, SLOTS - 3] {
            let ring = ring();
            (0..5u8).for_each(|i| fill(&ring, first + usize::from(i), i));
            let mut next = ring.successor();
            assert_eq!(numbers(&mut next, true), [0, 1, 2, 3, 4], "from {first}");
            assert_eq!(numbers(&mut next, true), [0; 0]);
        }
    }

    #[test]
    fn a_tag_is_inserted_once_even_if_its_reader_was_killed() {
        let mut ring = ring();
        (0..3).for_each(|i| fill(&ring, usize::from(i), i));
        for _ in 0..3 {
            assert_eq!(numbers(&mut ring, false), [0, 1, 2], "killed before the release");
            ring = ring.successor();
        }
        assert_eq!(numbers(&mut ring, true), [0, 1, 2]);
    }

    #[test]
    fn a_full_ring_is_read_from_its_oldest_frame() {
        for head in [0, 1, 100, SLOTS - 1] {
            let ring = ring();
            for i in 0..SLOTS {
                fill(&ring, head + i, (i / 2) as u8);
            }
            assert_eq!(ring.successor().oldest(), Some(head));
        }
    }

    #[test]
    fn what_the_last_reader_took_after_the_next_one_was_made_is_not_read_again() {
        let mut old = ring();
        (0..6).for_each(|i| fill(&old, usize::from(i), i));
        let mut next = old.successor();
        assert_eq!(numbers(&mut old, true), [0, 1, 2, 3, 4, 5]);
        (6..9).for_each(|i| fill(&old, usize::from(i), i));
        assert_eq!(numbers(&mut old, false), [6, 7, 8], "killed before the release");
        assert_eq!(numbers(&mut next, true), [6, 7, 8]);
    }

    #[test]
    fn an_empty_ring_is_read_from_where_the_next_frame_comes() {
        let ring = ring();
        let mut next = ring.successor();
        assert_eq!(numbers(&mut next, true), [0; 0]);
        // By the time of the next look it has gone past the end.
        (0..5).for_each(|i| fill(&ring, SLOTS - 2 + usize::from(i), i));
        assert_eq!(numbers(&mut next, true), [0, 1, 2, 3, 4]);
        fill(&ring, 3, 9);
        assert_eq!(numbers(&mut next, true), [9]);
    }
}
