//! A guest's memory built by hand: three regions, two of them adjacent in guest-physical space but
//! neither in the file nor in frontend-virtual space.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use trama_virtqueue::{GuestMemory, RegionSpec, RingFeatures, RingSetup};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A region: guest-physical address, frontend-virtual address, size, offset in the file.
const REGIONS: [(u64, u64, u64, u64); 3] = [
    (A, 0x7000_0020_0000, 0x8000, 0x8000),
    (B, 0x7000_0000_0000, 0x8000, 0),
    (C, 0x7000_0040_0000, 0x4000, 0x1_0000),
];
/// The first region, which begins with the rings.
pub(crate) const A: u64 = 0x10_0000;
/// The adjacent region.
pub(crate) const B: u64 = A + 0x8000;
/// The third region, separate.
pub(crate) const C: u64 = 0x20_0000;
/// End of the third region.
pub(crate) const C_END: u64 = C + 0x4000;

const DESC: u64 = 0;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// A place for indirect tables, in the first region.
pub(crate) const TABLES: u64 = A + 0x3000;
/// From here on memory is for buffers.
pub(crate) const BUFFERS: u64 = A + 0x4000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

pub(crate) struct Image {
    file: Arc<File>,
    pub size: u16,
}

impl Image {
    /// Makes memory whose every byte is a function of its address, with a zeroed ring of `size` (at
    /// most 256) at its beginning.
    pub(crate) fn new(size: u16) -> Image {
        assert!(size <= 256);
        let image = Image { file: Arc::new(tempfile::tempfile_in("/dev/shm").unwrap()), size };
        for (start, _, len, _) in REGIONS {
            let bytes: Vec<u8> = (start..start + len).map(|at| (at % 251) as u8).collect();
            image.write(start, &bytes);
        }
        image.write(A, &vec![0; (BUFFERS - A) as usize]);
        image
    }

    /// Returns the file offset of a guest address, and the bytes from there to its region's end.
    fn locate(addr: u64) -> Option<(u64, usize)> {
        REGIONS.iter().find_map(|&(start, _, len, offset)| {
            let at = addr.checked_sub(start).filter(|at| *at < len)?;
            Some((offset + at, (len - at) as usize))
        })
    }

    /// Returns whether all of the range is memory.
    pub(crate) fn mapped(addr: u64, len: u32) -> bool {
        let end = u128::from(addr) + u128::from(len);
        let mut at = addr;
        while u128::from(at) < end {
            match Self::locate(at) {
                Some((_, room)) => at += room as u64,
                None => return false,
            }
        }
        true
    }

    pub(crate) fn write(&self, mut addr: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (offset, room) = Self::locate(addr).unwrap();
            let n = room.min(bytes.len());
            self.file.write_all_at(&bytes[..n], offset).unwrap();
            (addr, bytes) = (addr + n as u64, &bytes[n..]);
        }
    }

    pub(crate) fn read(&self, mut addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let (offset, room) = Self::locate(addr).unwrap();
            let n = room.min(rest.len());
            self.file.read_exact_at(&mut rest[..n], offset).unwrap();
            (addr, rest) = (addr + n as u64, &mut rest[n..]);
        }
        bytes
    }

    fn read_u16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.read(addr, 2).try_into().unwrap())
    }

    pub(crate) fn set_desc(&self, index: u16, desc: Desc) {
        self.write(A + DESC + 16 * u64::from(index), &desc.bytes());
    }

    /// Makes `heads` available from the free-running index `next` on.
    pub(crate) fn set_avail(&self, next: u16, heads: &[u16]) {
        for (i, head) in heads.iter().enumerate() {
            let slot = next.wrapping_add(i as u16) % self.size;
            self.write(A + AVAIL + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        }
        self.set_avail_idx(next.wrapping_add(heads.len() as u16));
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.write(A + AVAIL, &flags.to_le_bytes());
    }

    pub(crate) fn set_avail_idx(&self, index: u16) {
        self.write(A + AVAIL + 2, &index.to_le_bytes());
    }

    pub(crate) fn set_used_event(&self, index: u16) {
        self.write(A + AVAIL + 4 + 2 * u64::from(self.size), &index.to_le_bytes());
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.read_u16(A + USED + 2)
    }

    pub(crate) fn used_flags(&self) -> u16 {
        self.read_u16(A + USED)
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.read_u16(A + USED + 4 + 8 * u64::from(self.size))
    }

    /// Returns the used element at a free-running index: id and length.
    pub(crate) fn used(&self, index: u16) -> (u32, u32) {
        let slot = u64::from(index % self.size);
        let bytes = self.read(A + USED + 4 + 8 * slot, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// Returns the contents of all regions, in order of guest address.
    pub(crate) fn dump(&self) -> Vec<u8> {
        REGIONS.iter().flat_map(|&(start, _, len, _)| self.read(start, len as usize)).collect()
    }

    /// Returns the position in `dump` of a guest address.
    pub(crate) fn dump_index(addr: u64) -> usize {
        let at = if addr < C { addr - A } else { addr - C + (B + 0x8000 - A) };
        at as usize
    }

    pub(crate) fn map(&self) -> Arc<GuestMemory> {
        let spec = |&(guest_phys, user_addr, size, file_offset): &(u64, u64, u64, u64)| {
            RegionSpec { guest_phys, user_addr, size, file_offset, file: self.file.clone() }
        };
        // Unsorted in both spaces.
        GuestMemory::map(REGIONS.iter().rev().map(spec).collect()).unwrap()
    }

    pub(crate) fn setup(&self, next: u16, features: RingFeatures) -> RingSetup {
        let user = REGIONS[0].1;
        RingSetup {
            size: self.size,
            desc: user + DESC,
            avail: user + AVAIL,
            used: user + USED,
            next,
            features,
            memory: self.map(),
            log: None,
        }
    }

    /// Returns a copy of the memory for the oracle.
    pub(crate) fn oracle_memory(&self) -> GuestMemoryMmap {
        let ranges = REGIONS.map(|(start, _, len, _)| (GuestAddress(start), len as usize));
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        for (start, len) in ranges {
            memory.write_slice(&self.read(start.0, len), start).unwrap();
        }
        memory
    }

    /// Returns another mapping of the same memory.
    pub(crate) fn shared_oracle_memory(&self) -> GuestMemoryMmap {
        let ranges = REGIONS.map(|(start, _, len, offset)| {
            let file = FileOffset::from_arc(self.file.clone(), offset);
            (GuestAddress(start), len as usize, Some(file))
        });
        GuestMemoryMmap::from_ranges_with_files(ranges).unwrap()
    }

    /// Returns the contents of the oracle's memory, as `dump` does.
    pub(crate) fn oracle_dump(memory: &GuestMemoryMmap) -> Vec<u8> {
        let region = |&(start, _, len, _): &(u64, u64, u64, u64)| {
            let mut bytes = vec![0; len as usize];
            memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
            bytes
        };
        REGIONS.iter().flat_map(region).collect()
    }

    /// Returns the oracle's queue over the same ring.
    pub(crate) fn oracle_queue(&self, next: u16, event_idx: bool) -> virtio_queue::Queue {
        use virtio_queue::QueueT;
        let mut queue = virtio_queue::Queue::new(256).unwrap();
        queue.set_size(self.size);
        queue.set_desc_table_address(Some((A + DESC) as u32), Some(0));
        queue.set_avail_ring_address(Some((A + AVAIL) as u32), Some(0));
        queue.set_used_ring_address(Some((A + USED) as u32), Some(0));
        queue.set_event_idx(event_idx);
        queue.set_next_avail(next);
        queue.set_next_used(next);
        queue.set_ready(true);
        queue
    }
}
