//! Entries of the keeper: opened things that outlive `tramad`.

use std::os::fd::{AsFd, OwnedFd};

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

impl Drop for Entry {
    fn drop(&mut self) {
        // A keeper that has ended keeps nothing.
        let _ = self.keeper.remove(&self.key);
    }
}

/// Returns an entry; `None`, and no entry is left, if the keeper has none that can be read.
pub(crate) fn get<T: DeserializeOwned>(
    keeper: &Keeper,
    key: &str,
) -> Option<(T, Vec<OwnedFd>, Entry)> {
    let kept = keeper.get(key).ok()??;
    let entry = Entry { keeper: keeper.clone(), key: key.to_owned() };
    let (format, value) = postcard::take_from_bytes::<u32>(&kept.value).ok()?;
    let value = postcard::from_bytes(value).ok().filter(|_| format == FORMAT)?;
    Some((value, kept.fds, entry))
}

/// Puts an entry. A keeper that does not take it is no error: the thing ends with this process.
pub(crate) fn put<T: Serialize>(
    keeper: &Keeper,
    key: &str,
    value: &T,
    fds: &[OwnedFd],
) -> Option<Entry> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let value = postcard::to_allocvec(&(FORMAT, value)).ok()?;
    keeper.put(key, &value, &fds).ok()?;
    Some(Entry { keeper: keeper.clone(), key: key.to_owned() })
}
