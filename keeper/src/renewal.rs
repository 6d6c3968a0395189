//! A new keeper in the place of one that has ended.
//!
//! The switch has copies of its entries, so that a keeper that is killed costs it nothing but the
//! connections of frontends, which their VMMs make again. From then on it can be replaced as
//! before.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::channel::Channel;
use crate::{Attached, Keeper};

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
