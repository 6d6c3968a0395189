//! The receive ring, and a burst of frames in its slots.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use trama_frame::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, TAG_LEN, behind_tags};
use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD, VnetHeader};
use trama_virtqueue::{MAX_BURST, RingError, Segment};

use super::slot::{
    ADDRESSES, BLOCK, BLOCKS, LEAST_START, PER_BLOCK, RING_HEADER, SLOT, SLOTS, save,
};
use crate::forward::{MAX_FRAME, Source};

/// The memory of a ring, written by the kernel.
pub(super) struct Mapping(NonNull<u8>);

// SAFETY: it is only an address; the kernel and this process agree slot by slot on the owner.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// # Safety
    /// The `BLOCKS * BLOCK` bytes of a packet socket's ring are mapped at `at`, and the result may
    /// unmap them.
    pub(super) unsafe fn new(at: NonNull<u8>) -> Mapping {
        Mapping(at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: every reader of slots holds the mapping, so there is none left.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BLOCKS * BLOCK) };
    }
}

/// The receive ring and the read position.
pub(super) struct Ring {
    mapping: Arc<Mapping>,
    next: usize,
    /// Whether `next` is unknown: nothing was read yet, or there was no frame.
    is_sought: bool,
}

impl Ring {
    /// Makes the reader of a ring that is new or had another reader, which is gone before the first
    /// frame is fetched. Until then nothing of the ring is touched: the other one may still read.
    pub(super) fn take_over(mapping: Mapping) -> Ring {
        Ring::of(Arc::new(mapping))
    }

    fn of(mapping: Arc<Mapping>) -> Ring {
        Ring { mapping, next: 0, is_sought: true }
    }

    /// Makes another reader of the same ring, as if this one had been killed.
    #[cfg(test)]
    pub(super) fn successor(&self) -> Ring {
        Ring::of(Arc::clone(&self.mapping))
    }

    /// Finds the read position if there is a frame.
    #[cold]
    #[inline(never)]
    fn seek(&mut self) {
        self.restore_frames();
        if let Some(oldest) = self.oldest() {
            (self.next, self.is_sought) = (oldest, false);
        }
    }

    pub(super) fn slot(&self, index: usize) -> NonNull<u8> {
        let index = index % SLOTS;
        let offset = index / PER_BLOCK * BLOCK + index % PER_BLOCK * SLOT;
        // SAFETY: index < SLOTS, so the slot lies within the mapping.
        unsafe { self.mapping.0.add(offset) }
    }

    /// Returns the first word of a slot, which names its owner.
    pub(super) fn owner(&self, index: usize) -> &AtomicU32 {
        // SAFETY: it is mapped, aligned to 64, and only ever accessed atomically by both sides.
        unsafe { AtomicU32::from_ptr(self.slot(index).as_ptr().cast()) }
    }

    pub(super) fn fetch(&mut self, burst: &mut SlotBurst) {
        if self.is_sought {
            self.seek();
            if self.is_sought {
                return;
            }
        }
        while burst.len < MAX_BURST {
            let index = self.next + burst.len;
            let status = self.owner(index).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            // SAFETY: the kernel has filled the slot and does not touch it until it is released.
            let entry = unsafe { Entry::read(self.slot(index)) };
            burst.entries[burst.len] = entry;
            burst.len += 1;
        }
        if burst.len > 0 {
            burst.mapping = Some(Arc::clone(&self.mapping));
        }
    }

    pub(super) fn release(&mut self, burst: &mut SlotBurst) {
        for index in self.next..self.next + burst.len {
            self.owner(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.next = (self.next + burst.len) % SLOTS;
        burst.len = 0;
    }
}

/// A frame in its slot.
#[derive(Clone, Copy)]
struct Entry {
    header: [u8; HEADER],
    at: *const u8,
    /// Captured bytes.
    len: usize,
    /// Whether the frame was longer.
    is_cut: bool,
}

impl Entry {
    const NONE: Entry = Entry { header: [0; HEADER], at: std::ptr::null(), len: 0, is_cut: false };

    /// # Safety
    /// The slot belongs to this process.
    unsafe fn read(slot: NonNull<u8>) -> Entry {
        // SAFETY: each slot begins with this structure, which the kernel has filled in.
        let about = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let (start, len) = (usize::from(about.tp_mac), about.tp_snaplen as usize);
        if start < LEAST_START || start + len > SLOT {
            return Entry::NONE;
        }
        let mut header = [0; HEADER];
        // SAFETY: the kernel puts the header right before the frame; both lie within the slot, as
        // was checked.
        let at = unsafe {
            let at = slot.add(start);
            at.sub(RING_HEADER)
                .copy_to_nonoverlapping(NonNull::from(&mut header).cast(), RING_HEADER);
            at
        };
        let is_cut = about.tp_snaplen < about.tp_len;
        let entry = Entry { header, at: at.as_ptr(), len, is_cut };
        let has_tag = about.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        if !has_tag || len < ADDRESSES {
            return entry;
        }
        let tpid = match about.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
            0 => ETHERTYPE_VLAN,
            _ => about.tp_vlan_tpid,
        };
        // SAFETY: the slot belongs to this process.
        unsafe {
            save(slot, at);
            entry.with_tag(at, tpid, about.tp_vlan_tci)
        }
    }

    /// Inserts the tag that the kernel has removed from the frame. The virtio-net header, which was
    /// read, makes room for it.
    ///
    /// # Safety
    /// `at` is where the frame is, in a slot that belongs to this process.
    unsafe fn with_tag(self, at: NonNull<u8>, tpid: u16, tci: u16) -> Entry {
        let [t0, t1] = tpid.to_be_bytes();
        let [v0, v1] = tci.to_be_bytes();
        let tag = [t0, t1, v0, v1];
        // SAFETY: the slot belongs to this process, and nothing writes it now.
        let frame = unsafe { std::slice::from_raw_parts(at.as_ptr(), self.len) };
        let is_counted = counts_tag(&self.header, frame);
        // SAFETY: there are HEADER + TAG_LEN bytes before the frame and ADDRESSES in it.
        let at = unsafe {
            let to = at.sub(TAG_LEN);
            to.copy_from(at, ADDRESSES);
            to.add(ADDRESSES).copy_from_nonoverlapping(NonNull::from(&tag).cast(), TAG_LEN);
            to
        };
        let mut header = VnetHeader::from_bytes(&self.header);
        if !is_counted {
            header.shift(TAG_LEN as i16);
        }
        Entry { header: header.to_bytes(), at: at.as_ptr(), len: self.len + TAG_LEN, ..self }
    }
}

/// Returns whether the header's offsets count the tag that is not in the frame: kernels differ. The
/// frame may have further tags.
fn counts_tag(header: &[u8; HEADER], frame: &[u8]) -> bool {
    let Some((packet, ethertype)) = behind_tags(frame) else { return false };
    let start = usize::from(VnetHeader::from_bytes(header).csum_start);
    let network = start.saturating_sub(packet + TAG_LEN);
    match (ethertype, frame.get(packet)) {
        (ETHERTYPE_IPV4, Some(first)) => network == usize::from(first & 0xf) * 4,
        // Its header and each extension header are multiples of 8.
        (ETHERTYPE_IPV6, Some(_)) => network >= 40 && network.is_multiple_of(8),
        _ => false,
    }
}

/// Frames in slots of a ring. They stay valid until the slots are released.
pub(crate) struct SlotBurst {
    entries: [Entry; MAX_BURST],
    len: usize,
    /// Keeps the slots mapped.
    mapping: Option<Arc<Mapping>>,
}

// SAFETY: the addresses point into the mapping that it holds.
unsafe impl Send for SlotBurst {}

impl SlotBurst {
    pub(crate) fn new() -> SlotBurst {
        SlotBurst { entries: [Entry::NONE; MAX_BURST], len: 0, mapping: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == MAX_BURST
    }

    /// Releases the ring.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.mapping = None;
    }

    fn frame(&self, i: usize) -> &[u8] {
        let entry = &self.entries[..self.len][i];
        if entry.at.is_null() {
            return &[];
        }
        // SAFETY: the slot is this process's and mapped as long as the burst has it, and nothing
        // writes it.
        unsafe { std::slice::from_raw_parts(entry.at, entry.len) }
    }
}

impl Source for SlotBurst {
    fn len(&self) -> usize {
        self.len
    }

    fn header(&self, i: usize) -> [u8; HEADER] {
        self.entries[i].header
    }

    fn head(&self, i: usize) -> &[u8] {
        let frame = self.frame(i);
        &frame[..frame.len().min(PRIVATE_HEAD)]
    }

    fn frame_len(&self, i: usize) -> usize {
        // A frame that did not fit into a slot is longer than the maximum.
        if self.entries[i].is_cut { MAX_FRAME + 1 } else { self.entries[i].len }
    }

    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        let frame = self.frame(i);
        let (head, rest) = frame.split_at(frame.len().min(PRIVATE_HEAD));
        f(head, &[Segment::from(rest)][usize::from(rest.is_empty())..])
    }

    fn error(&self, _: usize) -> Option<RingError> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `counts_tag` on the first bytes of a frame without its outermost tag, with one more tag
    /// and with none. The header points to the TCP header, at `csum_start` without either tag.
    fn counted(ethertype: u16, first: u8, csum_start: usize) -> bool {
        let [of_one, of_two] = [&[][..], &[0x88, 0xa8, 0, 7]].map(|inner| {
            let mut frame = [&[0; 12], inner, &ethertype.to_be_bytes(), &[first]].concat();
            frame.resize(64, 0);
            is_counted(&frame, csum_start + inner.len() * usize::from(csum_start != 0))
        });
        assert_eq!(of_one, of_two);
        of_one
    }

    fn is_counted(frame: &[u8], csum_start: usize) -> bool {
        let header = VnetHeader { csum_start: csum_start as u16, ..VnetHeader::default() };
        counts_tag(&header.to_bytes(), frame)
    }

    #[test]
    fn offsets_that_count_the_tag_are_recognised() {
        for words in 5..=15u8 {
            let ihl = usize::from(words) * 4;
            assert!(!counted(0x0800, 0x40 | words, 14 + ihl), "{words}");
            assert!(counted(0x0800, 0x40 | words, 18 + ihl), "{words}");
        }
        for extension in [0, 8, 16, 24] {
            assert!(!counted(0x86dd, 0x60, 54 + extension), "{extension}");
            assert!(counted(0x86dd, 0x60, 58 + extension), "{extension}");
        }
        assert!(!counted(0x0800, 0x45, 0), "no checksum");
        assert!(!counted(0x88b5, 0x45, 38), "neither IPv4 nor IPv6");
    }

    #[test]
    fn a_tag_is_put_back_before_the_type() {
        let mut slot = [0u8; 256];
        let frame: Vec<u8> = (0..60).collect();
        slot[128..188].copy_from_slice(&frame);
        let at = NonNull::new(slot.as_mut_ptr()).unwrap();
        // SAFETY: the slot has 256 bytes.
        let at = unsafe { at.add(128) };
        let header = [0; HEADER];
        let entry = Entry { header, at: at.as_ptr(), len: 60, is_cut: false };
        // SAFETY: the slot belongs to this process.
        let tagged = unsafe { entry.with_tag(at, 0x88a8, 0xe007) };
        // SAFETY: those bytes lie within the slot.
        let got = unsafe { std::slice::from_raw_parts(tagged.at, tagged.len) };
        let wanted = [&frame[..12], &[0x88, 0xa8, 0xe0, 0x07], &frame[12..]].concat();
        assert_eq!(got, wanted);
    }
}
