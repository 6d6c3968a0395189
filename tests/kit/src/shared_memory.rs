//! Memory that a frontend shares with the session.

use std::fs::File;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::requests::words;

/// One region of shared memory. Its addresses in the guest and in the frontend may differ.
pub struct SharedMemory {
    /// The file that backs it, from offset 0.
    pub file: File,
    /// The guest-physical address.
    pub guest: u64,
    /// The address in the frontend.
    pub user: u64,
    /// The size in bytes.
    pub size: u64,
}

impl SharedMemory {
    /// Makes a region of zeros.
    pub fn new(guest: u64, user: u64, size: u64) -> SharedMemory {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, size).unwrap();
        SharedMemory { file, guest, user, size }
    }

    fn region(&self) -> [u64; 4] {
        [self.guest, self.size, self.user, 0]
    }

    /// Returns the body of SET_MEM_TABLE with this one region.
    pub fn table(&self) -> Vec<u8> {
        words(&[&[1], &self.region()[..]].concat())
    }

    /// Returns the body of ADD_MEM_REG and REM_MEM_REG.
    pub fn single(&self) -> Vec<u8> {
        words(&[&[0], &self.region()[..]].concat())
    }

    /// Returns the body of SET_VRING_ADDR for a ring of at most 256 entries, one per 16 KiB.
    pub fn ring(&self, index: u32) -> Vec<u8> {
        let at = self.user + u64::from(index) * 0x4000;
        words(&[u64::from(index), at, at + 0x2000, at + 0x1000, 0])
    }
}
