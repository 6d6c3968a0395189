//! Errors of memory maps, rings, and frames put on a ring.

use std::io;

use thiserror::Error;

/// Why guest memory cannot be mapped.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The frontend sent no region.
    #[error("the frontend's memory table is empty")]
    NoRegions,
    /// Address, size or file offset is not a multiple of 4096 bytes, or the size is zero.
    #[error(
        "memory region at guest address {guest_phys:#x}: {what} {value:#x} is not a whole number \
         of 4 KiB pages"
    )]
    Misaligned {
        /// The region's guest-physical address.
        guest_phys: u64,
        /// The field that is wrong.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Start plus size passes the end of the address space.
    #[error("memory region at guest address {guest_phys:#x} wraps around the address space")]
    Overflow {
        /// The region's guest-physical address.
        guest_phys: u64,
    },
    /// Two regions claim the same addresses.
    #[error("memory regions overlap at {space} address {address:#x}")]
    Overlap {
        /// Which address space: guest-physical or frontend-virtual.
        space: &'static str,
        /// First address claimed twice.
        address: u64,
    },
    /// All regions together are larger than a frontend's memory may be.
    #[error("the memory regions have {total} bytes together; a frontend may share {limit}")]
    TooLarge {
        /// Bytes of all regions.
        total: u64,
        /// The limit.
        limit: u64,
    },
    /// The regions of this frontend are larger than it may have mapped.
    #[error(
        "the frontend shares {} MiB of memory, but this port may have {} MiB mapped{}; raise its \
         memory-max",
        mib(*.total),
        mib(*.limit),
        if *.is_default { ", which is what the host has" } else { "" }
    )]
    OverMax {
        /// Bytes of all regions.
        total: u64,
        /// The limit.
        limit: u64,
        /// Whether the limit is the default.
        is_default: bool,
    },
    /// All frontends together would have more mapped than they may.
    #[error(
        "the frontend shares {} MiB of memory, and other ports have {} MiB mapped; all together \
         may have {} MiB, 4 times the host's memory: close some ports, or lower their memory-max",
        mib(*.total),
        mib(*.others),
        mib(*.limit)
    )]
    OverAll {
        /// Bytes of all its regions.
        total: u64,
        /// Bytes of all other frontends' regions.
        others: u64,
        /// The limit.
        limit: u64,
    },
    /// The file ends before the region does.
    #[error(
        "memory region at guest address {guest_phys:#x} needs {needed} bytes of its file, which \
         has {actual}: the frontend must size the file before it shares it"
    )]
    FileTooShort {
        /// The region's guest-physical address.
        guest_phys: u64,
        /// Bytes that the file must have.
        needed: u64,
        /// Bytes that the file has.
        actual: u64,
    },
    /// The region's descriptor does not refer to a file in tmpfs (memfds included) or hugetlbfs.
    #[error(
        "memory region at guest address {guest_phys:#x}: its descriptor is not of shared memory \
         (memfd, tmpfs, or hugetlbfs); give the guest shared memory (QEMU: -object \
         memory-backend-memfd,share=on)"
    )]
    NotSharedMemory {
        /// The region's guest-physical address.
        guest_phys: u64,
    },
    /// The process has no free guard entry for another region.
    #[error("more than {limit} memory regions are mapped at once; close some ports")]
    TooManyRegions {
        /// The limit.
        limit: usize,
    },
    /// The frontend has more regions than its share.
    #[error(
        "the frontend shares {regions} memory regions: a port may have {guaranteed}, and more only \
         up to an eighth of the {free} that are free in this process"
    )]
    OverShare {
        /// Regions of the table.
        regions: usize,
        /// Regions that any frontend may have.
        guaranteed: usize,
        /// Regions that the process can still map.
        free: usize,
    },
    /// A system call failed.
    #[error("memory region at guest address {guest_phys:#x}: {call} failed: {error}")]
    System {
        /// The region's guest-physical address.
        guest_phys: u64,
        /// The system call.
        call: &'static str,
        /// The error it returned.
        error: io::Error,
    },
}

/// Why a frontend's dirty log cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// It has no bytes, or its end passes the end of any file.
    #[error(
        "the dirty log has {size} bytes at offset {offset} of its file, which cannot be mapped"
    )]
    Range {
        /// Offset in the file.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// The file ends before the log does.
    #[error(
        "the dirty log needs {needed} bytes of its file, which has {actual}: the frontend must \
         size the file before it shares it"
    )]
    FileTooShort {
        /// Bytes that the file must have.
        needed: u64,
        /// Bytes that the file has.
        actual: u64,
    },
    /// The descriptor does not refer to a file in tmpfs (memfds included) or hugetlbfs.
    #[error("the dirty log's descriptor is not of shared memory (memfd, tmpfs, or hugetlbfs)")]
    NotSharedMemory,
    /// There are pages of guest memory without a bit.
    #[error(
        "the dirty log has {size} bytes, but the guest's memory needs {needed}, a bit for each \
         4096: the frontend must share a larger one before it adds memory"
    )]
    TooSmall {
        /// Bytes of the log.
        size: u64,
        /// Bytes that the memory needs.
        needed: u64,
    },
    /// The process has no free guard entry.
    #[error(
        "no room for the dirty log: {limit} memory regions are mapped at once; close some ports"
    )]
    NoRoom {
        /// The limit.
        limit: usize,
    },
    /// A system call failed.
    #[error("the dirty log cannot be mapped: {call} failed: {error}")]
    System {
        /// The system call.
        call: &'static str,
        /// The error it returned.
        error: io::Error,
    },
}

/// Whole MiB, rounded up, so that more than a limit is never printed as the limit.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// A violation of the ring's rules by a driver. Ring-level errors break the ring for good.
/// Chain-level errors concern one chain of a transmit ring, which goes on working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingError {
    /// The queue size is not a power of two from 2 to 32768.
    #[error("queue size {0} is not a power of two from 2 to 32768")]
    QueueSize(u16),
    /// A part of the ring is not aligned as virtio 1.2, section 2.7 requires.
    #[error("ring address {0:#x} is misaligned")]
    Misaligned(u64),
    /// A part of the ring lies outside the frontend's memory, or crosses two regions.
    #[error("ring address {0:#x} is not in the frontend's memory table")]
    RingAddress(u64),
    /// `avail.idx` is more than the queue size ahead of the last index taken.
    #[error("the available index jumped past the ring")]
    AvailJump,
    /// A head on the available ring is not below the queue size.
    #[error("an available ring entry names a descriptor outside the table")]
    HeadOutOfRange,
    /// A chain's `next` is not below the table's size.
    #[error("a descriptor's next field points outside the table")]
    DescriptorOutOfRange,
    /// A chain has more descriptors than its table, so it loops; or the chains of one burst or
    /// frame together have more than its bytes can need (empty buffers, or chains that share
    /// theirs).
    #[error("a descriptor chain is longer than its table, or than its frame can need")]
    ChainTooLong,
    /// A descriptor within an indirect table refers to another table, or an indirect descriptor
    /// has a successor.
    #[error("an indirect descriptor is nested or has a next descriptor")]
    NestedIndirect,
    /// An indirect descriptor appears though INDIRECT_DESC was not negotiated.
    #[error("an indirect descriptor, although VIRTIO_F_INDIRECT_DESC was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect table's length is zero, not a multiple of 16, or over the limit.
    #[error("an indirect table has an invalid length")]
    IndirectLength,
    /// A buffer or table is not wholly within guest memory.
    #[error("a buffer address is outside guest memory")]
    BadAddress,
    /// A buffer to transmit is device-writable, or a buffer to receive into is read-only.
    #[error("a buffer has the wrong direction")]
    WrongDirection,
    /// The chain is shorter than the header.
    #[error("a chain is shorter than the virtio-net header")]
    HeaderTooShort,
    /// The chain's bytes do not fit in 32 bits, or it has more segments than one burst may hold.
    #[error("a chain is too large")]
    ChainTooLarge,
    /// The frontend removed pages of its memory while they were mapped.
    #[error("guest memory was removed while it was mapped")]
    MemoryLost,
    /// A ring that logs its writes was set up without a log.
    #[error("the ring is to log its writes, but has no log")]
    NoLog,
    /// The dirty log has no bits for the used ring.
    #[error("the used ring's log address {0:#x} is outside the dirty log")]
    LogAddress(u64),
    /// The dirty log has no bits for parts of guest memory.
    #[error("the dirty log is too small for guest memory")]
    LogTooSmall,
    /// The frontend removed pages of its dirty log while they were mapped.
    #[error("the dirty log was removed while it was mapped")]
    LogLost,
}

/// Why a frame was not put on a receive ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    /// Not enough buffers now; a retry makes sense once the driver has run.
    #[error("the ring has too few buffers available")]
    Full,
    /// The waiting chain, or all of the ring, can never hold the frame.
    #[error("the frame is larger than the ring's buffers")]
    TooLarge,
    /// The ring is broken for good.
    #[error("ring broken: {0}")]
    Broken(RingError),
}
