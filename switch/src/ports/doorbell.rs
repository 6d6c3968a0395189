//! What wakes a worker: a registry, the descriptors in it, and eventfds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::engine::PortId;

/// Where the descriptors that wake a worker are registered; nowhere by default.
#[derive(Clone, Default)]
pub struct Doorbell(Option<Arc<Registry>>);

impl Doorbell {
    pub(crate) fn new(registry: Registry) -> Doorbell {
        Doorbell(Some(Arc::new(registry)))
    }

    /// Returns whether it can wake a worker.
    pub(crate) fn can_wake(&self) -> bool {
        self.0.is_some()
    }

    fn is_same(&self, other: &Doorbell) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    fn register(&self, fd: &OwnedFd, token: Token, interest: Interest) -> io::Result<()> {
        match &self.0 {
            Some(registry) => registry.register(&mut SourceFd(&fd.as_raw_fd()), token, interest),
            None => Ok(()),
        }
    }

    fn reregister(&self, fd: &OwnedFd, token: Token, interest: Interest) {
        if let Some(registry) = &self.0 {
            // Fails only if the descriptor is not registered; then it wakes no worker either way.
            let _ = registry.reregister(&mut SourceFd(&fd.as_raw_fd()), token, interest);
        }
    }

    fn deregister(&self, fd: &OwnedFd) {
        if let Some(registry) = &self.0 {
            // Fails only if the descriptor is not registered, which is the aim.
            let _ = registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }
}

/// Registers the descriptors of one port at its worker's doorbell.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub doorbell: Doorbell,
    pub port: PortId,
}

impl Watcher {
    /// Reports each new readiness of `fd` (edge-triggered) until the result is dropped.
    pub(crate) fn watch(&self, fd: OwnedFd) -> io::Result<Watched> {
        let token = Token(self.port.0 as usize);
        let interest = Interest::READABLE;
        self.doorbell.register(&fd, token, interest)?;
        Ok(Watched { fd, token, interest, doorbell: self.doorbell.clone() })
    }
}

/// A descriptor that epoll reports. Closing it is not enough to end that: the other side holds the
/// same open file description, which epoll keeps reporting.
pub(crate) struct Watched {
    fd: OwnedFd,
    token: Token,
    interest: Interest,
    doorbell: Doorbell,
}

impl Watched {
    /// Reports also when the descriptor takes more, or no longer. If it takes more already, that
    /// is reported.
    pub(crate) fn set_writable(&mut self, is_wanted: bool) {
        self.interest =
            if is_wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.doorbell.reregister(&self.fd, self.token, self.interest);
    }

    /// Moves descriptors to another doorbell. On an error all stay with the one they had.
    pub(crate) fn move_all(mut watched: Vec<&mut Watched>, to: &Doorbell) -> io::Result<()> {
        watched.retain(|each| !each.doorbell.is_same(to));
        for (done, each) in watched.iter().enumerate() {
            if let Err(error) = to.register(&each.fd, each.token, each.interest) {
                watched[..done].iter().for_each(|each| to.deregister(&each.fd));
                return Err(error);
            }
        }
        for each in watched {
            let old = std::mem::replace(&mut each.doorbell, to.clone());
            old.deregister(&each.fd);
        }
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.doorbell.deregister(&self.fd);
    }
}

/// Adds one to an eventfd created here. A full counter (EAGAIN) means that a notification is
/// pending already.
pub(crate) fn signal(event: BorrowedFd<'_>) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}
