//! Copies of the entries of a switch.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::channel::Channel;

/// Values and descriptors by key.
#[derive(Debug, Default)]
pub(crate) struct Copies(BTreeMap<String, (Vec<u8>, Vec<OwnedFd>)>);

impl Copies {
    pub(crate) fn insert(&mut self, key: &str, value: &[u8], fds: &[BorrowedFd<'_>]) {
        let fds = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<Vec<_>>>();
        match fds {
            Ok(fds) => drop(self.0.insert(key.to_owned(), (value.to_vec(), fds))),
            // Without descriptors left there is none for the next keeper either.
            Err(_) => self.remove(key),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Gives all to a keeper.
    pub(crate) fn put_all(&self, channel: &Channel) -> io::Result<()> {
        for (key, (value, fds)) in &self.0 {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            channel.put(key, value, &fds)?;
        }
        Ok(())
    }
}
