//! What the lease store needs of a disk: one folder, a handful of operations.

use std::io;

/// A folder whose files survive a crash as POSIX says: what was synced stays; of what was not,
/// anything may be there. Written by the caller with real files, by tests with simulated ones.
pub trait Disk {
    /// The whole of a file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&mut self, file: &str) -> io::Result<Option<Vec<u8>>>;

    /// Makes a file empty, new or not, readable by its owner alone.
    ///
    /// # Errors
    /// It cannot be made.
    fn create(&mut self, file: &str) -> io::Result<()>;

    /// Writes all of `bytes` at the end of a file.
    ///
    /// # Errors
    /// Not all could be written; a part may have been.
    fn append(&mut self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the contents of a file are durable (`fdatasync`).
    ///
    /// # Errors
    /// They may not be.
    fn sync(&mut self, file: &str) -> io::Result<()>;

    /// Renames a file in one step, in place of any that has the name.
    ///
    /// # Errors
    /// Nothing was renamed.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Waits until the names of files are durable (`fsync` on the folder).
    ///
    /// # Errors
    /// They may not be.
    fn sync_folder(&mut self) -> io::Result<()>;
}
