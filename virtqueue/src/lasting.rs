//! Values that outlive their process: structures of counters in a memfd.
//!
//! Another process that holds the descriptor maps the same words and goes on with their values.
//! Several processes may map them at a time, so they are only ever accessed atomically. The memory
//! has one size for its whole life, which seals guarantee: no access can fault.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::mapping::{Pages, sealed_memfd};

const NAME: &CStr = c"trama-lasting";
/// Seals of a file whose size cannot change.
const FIXED_SIZE: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// Alignment of a structure: a pair of cache lines.
const ALIGN: usize = 128;

/// One counter. Only its one writer may call [`Counter::add`].
#[derive(Default, Debug)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, with a relaxed load and a relaxed store. A second writer would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Returns the current value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets the value to zero.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Types that consist of atomic words.
///
/// # Safety
/// Any bytes are a value of the type, it is accessed atomically only, and it is aligned to at most
/// 128 bytes. [`atomic_words`](crate::atomic_words) implements it for structures.
pub unsafe trait Words: Send + Sync + 'static {}

// SAFETY: an atomic integer takes any bytes, and has no other access without `&mut`.
unsafe impl Words for AtomicU64 {}
// SAFETY: as for the one word that it wraps.
unsafe impl Words for Counter {}
// SAFETY: as for each of its elements.
unsafe impl<T: Words, const N: usize> Words for [T; N] {}

/// Declares a structure of atomic words, aligned to 128 bytes, that a [`LastingMemory`] can hold.
///
/// ```
/// trama_virtqueue::atomic_words! {
///     /// What a worker counts.
///     #[derive(Default)]
///     pub struct Counts {
///         /// Frames.
///         pub frames: trama_virtqueue::Counter,
///     }
/// }
/// let counts = trama_virtqueue::Lasting::new(Counts::default());
/// counts.frames.add(2);
/// assert_eq!(counts.frames.get(), 2);
/// ```
#[macro_export]
macro_rules! atomic_words {
    ($(#[$doc:meta])* $vis:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field_vis:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[repr(C, align(128))]
        $vis struct $name {
            $($(#[$field_doc])* $field_vis $field: $type,)*
        }

        const _: () = {
            const fn consists_of<T: $crate::Words>() {}
            $(consists_of::<$type>();)*
        };

        // SAFETY: the line above checks each field, and the alignment is 128.
        unsafe impl $crate::Words for $name {}
    };
}

/// A memfd of atomic words, all zero at first.
pub struct LastingMemory {
    pages: Pages,
}

impl LastingMemory {
    /// Makes memory of at least `size` bytes; also returns its file, for another process. Parts
    /// that are never touched take no memory.
    ///
    /// # Errors
    /// The memory cannot be made or mapped.
    pub fn create(size: usize) -> io::Result<(Arc<LastingMemory>, File)> {
        let file = sealed_memfd(NAME, size as u64)?;
        Ok((Self::open(&file)?, file))
    }

    /// Maps the memory that another process has made.
    ///
    /// # Errors
    /// It cannot be mapped, or its size could change.
    pub fn open(file: &File) -> io::Result<Arc<LastingMemory>> {
        // SAFETY: fcntl on a descriptor that is open, without an argument.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & FIXED_SIZE != FIXED_SIZE {
            let error = "it is not a memfd of a fixed size";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Arc::new(LastingMemory { pages: Pages::map(file, 0, len)? }))
    }

    /// Returns its size in bytes.
    pub fn size(&self) -> usize {
        self.pages.len()
    }

    /// Returns the value at `offset` bytes, a multiple of 128, as it is there; `None` if it does
    /// not lie within the memory. It keeps `owner` until it is dropped.
    pub fn at<T: Words>(
        self: &Arc<Self>,
        offset: usize,
        owner: Arc<dyn Send + Sync>,
    ) -> Option<Lasting<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.pages.len() || !offset.is_multiple_of(ALIGN) {
            return None;
        }
        let memory = Some(Arc::clone(self));
        // SAFETY: the range lies within the mapping, which starts at a page.
        let at = unsafe { self.pages.base().add(offset) }.cast();
        Some(Lasting { at: NonNull::new(at)?, owner, memory })
    }
}

impl fmt::Debug for LastingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastingMemory").field("size", &self.size()).finish()
    }
}

/// A shared value: on the heap, or in memory that outlives the process.
pub struct Lasting<T> {
    at: NonNull<T>,
    owner: Arc<dyn Send + Sync>,
    /// The memory that it is in; `None` on the heap, where `owner` has it.
    memory: Option<Arc<LastingMemory>>,
}

// SAFETY: it is a shared reference to a value that is kept by what it owns.
unsafe impl<T: Send + Sync> Send for Lasting<T> {}
// SAFETY: as for Send.
unsafe impl<T: Send + Sync> Sync for Lasting<T> {}

impl<T: Send + Sync + 'static> Lasting<T> {
    /// Puts a value on the heap, where it ends with the process.
    pub fn new(value: T) -> Lasting<T> {
        let owner = Arc::new(value);
        let at = NonNull::from(&*owner);
        Lasting { at, owner, memory: None }
    }
}

impl<T> Lasting<T> {
    /// Returns whether the value outlives the process.
    pub fn is_kept(&self) -> bool {
        self.memory.is_some()
    }
}

impl<T> Deref for Lasting<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it is a valid value: on the heap, of the one that `owner` has; in a memory that
        // this holds, as `Words` says of any bytes.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Clone for Lasting<T> {
    fn clone(&self) -> Self {
        Lasting { at: self.at, owner: Arc::clone(&self.owner), memory: self.memory.clone() }
    }
}

impl<T: Default + Send + Sync + 'static> Default for Lasting<T> {
    fn default() -> Self {
        Lasting::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Lasting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    atomic_words! {
        #[derive(Default)]
        struct Pair {
            first: Counter,
            second: [Counter; 2],
        }
    }

    #[test]
    fn a_second_mapping_has_the_same_words() {
        let (memory, file) = LastingMemory::create(1000).unwrap();
        assert_eq!(memory.size(), 4096);
        let one = memory.at::<Pair>(256, Arc::new(())).unwrap();
        drop(memory);
        one.first.add(3);
        one.second[1].add(4);
        let other = LastingMemory::open(&file).unwrap().at::<Pair>(256, Arc::new(())).unwrap();
        assert_eq!((other.first.get(), other.second[1].get()), (3, 4));
        other.first.add(1);
        assert_eq!((one.first.get(), one.is_kept()), (4, true));
        one.second[1].reset();
        assert_eq!(other.second[1].get(), 0);
    }

    #[test]
    fn only_places_within_the_memory_exist() {
        let (memory, _file) = LastingMemory::create(4096).unwrap();
        let exists = |offset| memory.at::<Pair>(offset, Arc::new(())).is_some();
        assert!(exists(0) && exists(4096 - 128));
        assert!(!exists(4096) && !exists(64) && !exists(4096 - 64) && !exists(usize::MAX - 127));
    }

    #[test]
    fn the_size_is_fixed() {
        let (_memory, file) = LastingMemory::create(4096).unwrap();
        assert!(file.set_len(0).is_err() && file.set_len(8192).is_err());
        let unsealed = tempfile::tempfile().unwrap();
        unsealed.set_len(4096).unwrap();
        assert!(LastingMemory::open(&unsealed).is_err());
    }

    #[test]
    fn a_value_on_the_heap_is_shared_and_freed() {
        let dropped = Arc::new(());
        let one = Lasting::new((Arc::clone(&dropped), Counter::default()));
        let two = one.clone();
        two.1.add(5);
        assert_eq!((one.1.get(), one.is_kept()), (5, false));
        drop((one, two));
        assert_eq!(Arc::strong_count(&dropped), 1);
    }
}
