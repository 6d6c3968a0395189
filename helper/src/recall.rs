//! Asks the keeper before the helper.
//!
//! A switch asks the keeper for a device or a socket before it asks the helper, and gives the
//! keeper a copy of what the helper has opened. The next switch thus goes on with the same device,
//! if it wants it in the same way: the request that led to it is kept with it. What turns out to be
//! something else is not used, and opened anew.

use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kept::{self, Asked, Entry};
use crate::request::{Reply, Request};
use crate::rights::Rights;

impl Rights {
    /// Asks the keeper for what an earlier switch had by the same request, and the helper if it has
    /// nothing that `open` takes.
    pub(crate) fn ask_kept<T>(
        &self,
        key: &str,
        request: Request,
        open: impl Fn(Reply, Vec<OwnedFd>) -> Result<T, String>,
    ) -> Result<Asked<T>, String> {
        let kept = self.inheritance().and_then(|keeper| kept::get::<(Request, Reply)>(keeper, key));
        let mut refused = None;
        if let Some(((first, reply), fds, entry)) = kept
            && first == request
        {
            match open(reply, fds) {
                Ok(opened) => return Ok(Asked { opened, entry: Some(entry), refused }),
                Err(reason) => refused = Some(reason),
            }
        }
        let (reply, fds) = self.ask(request.clone(), &[])?;
        let value = (request, reply);
        let copies: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let entry = self.keeper().and_then(|keeper| kept::put(keeper, key, &value, &copies));
        Ok(Asked { opened: open(value.1, fds)?, entry, refused })
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
        let (value, fds, entry) = kept::get(self.inheritance()?, key)?;
        Some((value, fds.into_iter().next()?, entry))
    }

    /// Puts an entry of one descriptor.
    pub(crate) fn put<T: Serialize>(&self, key: &str, value: &T, fd: &OwnedFd) -> Option<Entry> {
        kept::put(self.keeper()?, key, value, &[fd.as_fd()])
    }
}
