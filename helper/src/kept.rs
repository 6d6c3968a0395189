//! Opened things that outlive `tramad`.
//!
//! A switch asks the keeper for a device or a socket before it asks the helper, and gives the
//! keeper a copy of what the helper has opened. The next switch thus goes on with the same device,
//! if it wants it in the same way: the request that led to it is kept with it.

use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trama_keeper::Keeper;

use crate::request::{Reply, Request};
use crate::rights::Rights;

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

/// What was asked for, and its entry if the keeper has it.
type Kept = Result<(Reply, Vec<OwnedFd>, Option<Entry>), String>;

impl Rights {
    /// Asks the keeper for what an earlier switch had by the same request, and the helper if it has
    /// nothing.
    pub(crate) fn ask_kept(&self, key: &str, request: Request) -> Kept {
        if let Some(((first, reply), fds, entry)) = self.get_all::<(Request, Reply)>(key)
            && first == request
        {
            return Ok((reply, fds, Some(entry)));
        }
        let (reply, fds) = self.ask(request.clone(), &[])?;
        let value = (request, reply);
        let entry = self.put_all(key, &value, &fds);
        Ok((value.1, fds, entry))
    }

    /// Returns memory that an earlier switch has kept under this key; `None` without a keeper.
    pub fn kept_memory(&self, key: &str) -> Option<OwnedFd> {
        let ((), memory, entry) = self.get(key)?;
        // It stays, until other memory takes its place.
        std::mem::forget(entry);
        Some(memory)
    }

    /// Keeps memory for the next switch, in place of what is kept under the key.
    pub fn keep_memory(&self, key: &str, memory: &OwnedFd) -> Option<Entry> {
        self.put(key, &(), memory)
    }

    /// Returns an entry of one descriptor.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Option<(T, OwnedFd, Entry)> {
        let (value, fds, entry) = self.get_all(key)?;
        Some((value, fds.into_iter().next()?, entry))
    }

    /// Puts an entry of one descriptor.
    pub(crate) fn put<T: Serialize>(&self, key: &str, value: &T, fd: &OwnedFd) -> Option<Entry> {
        self.put_all(key, value, std::slice::from_ref(fd))
    }

    /// Returns an entry; `None` and no entry is left if the keeper has none that can be read.
    fn get_all<T: DeserializeOwned>(&self, key: &str) -> Option<(T, Vec<OwnedFd>, Entry)> {
        let keeper = self.keeper()?;
        let kept = keeper.get(key).ok()??;
        let entry = Entry { keeper: keeper.clone(), key: key.to_owned() };
        let (format, value) = postcard::take_from_bytes::<u32>(&kept.value).ok()?;
        let value = postcard::from_bytes(value).ok().filter(|_| format == FORMAT)?;
        Some((value, kept.fds, entry))
    }

    /// Puts an entry. A keeper that does not take it is no error: the thing ends with this process.
    fn put_all<T: Serialize>(&self, key: &str, value: &T, fds: &[OwnedFd]) -> Option<Entry> {
        let keeper = self.keeper()?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let value = postcard::to_allocvec(&(FORMAT, value)).ok()?;
        keeper.put(key, &value, &fds).ok()?;
        Some(Entry { keeper: keeper.clone(), key: key.to_owned() })
    }
}
