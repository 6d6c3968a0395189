//! Entries of the keeper: opened things that outlive `tramad`.

use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trama_keeper::Keeper;

/// The format of values; what another version has put counts as absent.
const FORMAT: u32 = 1;

/// An entry of the keeper, which is removed when this is dropped.
#[derive(Debug)]
pub struct Entry {
    keeper: Keeper,
    key: String,
}

impl Entry {
    /// Leaves the entry with the keeper, as another value takes care of it.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A keeper that has ended keeps nothing.
        let _ = self.keeper.remove(&self.key);
    }
}

/// What the keeper has under a key: the value, the descriptors and the entry.
pub(crate) type Found<T> = (T, Vec<OwnedFd>, Entry);

/// Looks for an entry. One that cannot be read is an error, and is removed.
pub(crate) fn find<T: DeserializeOwned>(
    keeper: &Keeper,
    key: &str,
) -> Result<Option<Found<T>>, Unreadable> {
    let Ok(Some(kept)) = keeper.get(key) else { return Ok(None) };
    let entry = Entry { keeper: keeper.clone(), key: key.to_owned() };
    let (format, value) = postcard::take_from_bytes::<u32>(&kept.value).map_err(|_| Unreadable)?;
    let value = if format == FORMAT { postcard::from_bytes(value).ok() } else { None };
    Ok(Some((value.ok_or(Unreadable)?, kept.fds, entry)))
}

/// An entry was put by another version.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Returns an entry; `None`, and no entry is left, if the keeper has none that can be read.
pub(crate) fn get<T: DeserializeOwned>(keeper: &Keeper, key: &str) -> Option<Found<T>> {
    find(keeper, key).ok()?
}

/// Puts an entry. A keeper that does not take it is no error: the thing ends with this process.
pub(crate) fn put<T: Serialize>(
    keeper: &Keeper,
    key: &str,
    value: &T,
    fds: &[BorrowedFd<'_>],
) -> Option<Entry> {
    let value = postcard::to_allocvec(&(FORMAT, value)).ok()?;
    keeper.put(key, &value, fds).ok()?;
    Some(Entry { keeper: keeper.clone(), key: key.to_owned() })
}
