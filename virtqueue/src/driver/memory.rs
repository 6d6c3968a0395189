//! Shared memory of a driver: a sealed memfd that holds rings and buffers.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::DriverError;
use crate::error::MemoryError;
use crate::mapping::{RegionSpec, sealed_memfd};
use crate::memory::GuestMemory;

const PAGE: usize = 4096;
const NAME: &CStr = c"trama-driver";

/// Base addresses of the memory in the two address spaces told to the device. Any addresses work;
/// they differ so that a device that confuses them finds nothing there.
const GUEST_BASE: u64 = 0x1_0000_0000;
const USER_BASE: u64 = 0x7e00_0000_0000;

/// Shared memory (a memfd, sealed against shrinking) that holds driver queues and their buffers.
pub struct DriverMemory {
    spec: RegionSpec,
    map: Arc<GuestMemory>,
    size: usize,
    allocated: AtomicUsize,
}

/// A part of the memory, with all its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocation {
    pub(super) ptr: *mut u8,
    pub(super) guest: u64,
    pub(super) user: u64,
}

impl DriverMemory {
    /// Allocates at least `size` bytes, zeroed.
    ///
    /// # Errors
    /// The memory cannot be made or mapped.
    pub fn new(size: usize) -> Result<Arc<DriverMemory>, DriverError> {
        let size = size.max(1).next_multiple_of(PAGE);
        Self::from_file(sealed_memfd(NAME, size as u64)?, size)
    }

    fn from_file(file: File, size: usize) -> Result<Arc<DriverMemory>, DriverError> {
        let spec = RegionSpec {
            guest_phys: GUEST_BASE,
            user_addr: USER_BASE,
            size: size as u64,
            file_offset: 0,
            file: Arc::new(file),
        };
        let map = GuestMemory::map(vec![spec.clone()])?;
        Ok(Arc::new(DriverMemory { spec, map, size, allocated: AtomicUsize::new(0) }))
    }

    /// Maps memory that another process made with [`DriverMemory::new`] and shared. Queues laid out
    /// in the same order have the same addresses in both.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn open(file: File) -> Result<Arc<DriverMemory>, DriverError> {
        let size = file.metadata()?.len();
        let size = usize::try_from(size).map_err(|_| DriverError::Options("it is too large"))?;
        Self::from_file(file, size)
    }

    /// Returns the region to announce to the device.
    pub fn spec(&self) -> RegionSpec {
        self.spec.clone()
    }

    /// Returns the memory as a map for a device in this process.
    pub fn map(&self) -> Arc<GuestMemory> {
        self.map.clone()
    }

    /// Takes `size` bytes, aligned to a page. They are never returned.
    pub(super) fn allocate(&self, size: usize) -> Result<Allocation, DriverError> {
        let needed = size.next_multiple_of(PAGE);
        let offset = self
            .allocated
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |allocated| {
                allocated.checked_add(needed).filter(|end| *end <= self.size)
            })
            .map_err(|allocated| DriverError::OutOfMemory {
                free: self.size - allocated,
                needed,
            })?;
        let user = USER_BASE + offset as u64;
        let ptr = self.map.user_range(user, 1).ok_or(DriverError::Options("it is empty"))?;
        Ok(Allocation { ptr, guest: GUEST_BASE + offset as u64, user })
    }
}

impl From<MemoryError> for DriverError {
    fn from(error: MemoryError) -> Self {
        DriverError::System(io::Error::other(error))
    }
}
