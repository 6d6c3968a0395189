//! A new keeper in the place of one that has ended.
//!
//! The switch has copies of its entries, so that a keeper that is killed costs it nothing but the
//! connections of frontends, which their VMMs make again. From then on it can be replaced as before.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::channel::Channel;
use crate::{Attached, Keeper};

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

    fn put_all(&self, channel: &Channel) -> io::Result<()> {
        for (key, (value, fds)) in &self.0 {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            channel.put(key, value, &fds)?;
        }
        Ok(())
    }
}

impl Keeper {
    /// Replaces the keeper, which has ended: `start` starts a new one, with its end of a channel to
    /// this switch, which then attaches and gives it all entries.
    ///
    /// # Errors
    /// Another switch still serves and does this, the new keeper cannot be started, or does not
    /// take the entries. The channel stays closed.
    pub fn renew(&self, start: impl FnOnce(OwnedFd) -> io::Result<()>) -> io::Result<Attached> {
        let claim = self.0.claim.get().filter(|_| !self.0.is_successor.load(Ordering::Relaxed));
        let claim = claim.ok_or_else(|| io::Error::other("this is not the switch that serves"))?;
        if let Some(mut process) = self.process().take() {
            process.wait()?;
        }
        let (channel, theirs) = Channel::pair()?;
        start(theirs)?;
        let attached = channel.attach(*claim).map_err(io::Error::other)?;
        // Locked to the end, so that nothing is put meanwhile.
        let copies = self.copies();
        copies.put_all(&channel)?;
        channel.settle()?;
        *self.current() = Arc::new(channel);
        Ok(attached)
    }
}
