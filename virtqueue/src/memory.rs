//! The frontend's memory, mapped.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::error::MemoryError;

/// One region of the frontend's memory table (vhost-user SET_MEM_TABLE, ADD_MEM_REG).
#[derive(Clone, Debug)]
pub struct RegionSpec {
    /// Guest-physical address: what descriptors name.
    pub guest_phys: u64,
    /// The frontend's own virtual address: what ring addresses name.
    pub user_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where the region starts in its file.
    pub file_offset: u64,
    /// The shared file.
    pub file: Arc<File>,
}

/// The mapped regions of one frontend. Immutable: a change of the table makes a new map.
#[derive(Debug)]
pub struct GuestMemory {
    specs: Vec<RegionSpec>,
}

impl GuestMemory {
    /// Maps the regions, in any order.
    pub fn map(_regions: Vec<RegionSpec>) -> Result<Arc<GuestMemory>, MemoryError> {
        todo!()
    }

    /// Maps a changed table; regions that `old` has already are shared with it, not mapped again.
    pub fn map_from(
        _old: &GuestMemory,
        _regions: Vec<RegionSpec>,
    ) -> Result<Arc<GuestMemory>, MemoryError> {
        todo!()
    }

    /// The table that was mapped.
    pub fn specs(&self) -> &[RegionSpec] {
        &self.specs
    }

    /// Whether pages vanished under the map: the frontend truncated its file. The region then reads
    /// as zeros; its user must close the port.
    pub fn is_lost(&self) -> bool {
        todo!()
    }
}

/// Installs the handler that survives a frontend that truncates its memory. Idempotent; mapping
/// memory does it too.
pub fn install_sigbus_guard() -> io::Result<()> {
    todo!()
}
