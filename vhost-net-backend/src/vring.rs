//! The state of one ring as the frontend describes it, and when that suffices to start it.
//!
//! The protocol allows any order of messages: some frontends send the kick descriptor before they
//! enable the ring, some after; some never write to it. So a ring starts with the message that
//! completes the set: size, addresses, kick descriptor seen, enabled. Its call descriptor may
//! follow while it runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, readlink};
use rustix::io::{FdFlags, fcntl_setfd};
use trama_virtqueue::{DirtyLog, GuestMemory, LogAt, RingFds, RingFeatures, RingSetup};

/// Addresses of the parts of a ring, in the frontend's own address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Addresses {
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    /// Where writes of the used ring are logged; `None` if the frontend does not say.
    pub log: Option<u64>,
}

/// One ring as the frontend described it.
#[derive(Default)]
pub(crate) struct Vring {
    pub size: Option<u16>,
    pub addresses: Option<Addresses>,
    /// Index at which it starts or resumes.
    pub next: u16,
    /// The outer option: whether SET_VRING_KICK came, which is the frontend's "start".
    pub kick: Option<Option<OwnedFd>>,
    pub call: Option<OwnedFd>,
    pub enabled: bool,
    pub running: bool,
}

impl Vring {
    /// Returns the set-up that the port needs to run the ring; `None` while a part is missing. It
    /// logs its writes if there is a `log`.
    pub(crate) fn setup(
        &self,
        features: RingFeatures,
        memory: &Arc<GuestMemory>,
        log: Option<&Arc<DirtyLog>>,
    ) -> Option<RingSetup> {
        self.kick.as_ref()?;
        let used = self.addresses?.log;
        let log = log.map(|log| LogAt { log: log.clone(), used });
        Some(RingSetup { log, ..self.described(features, memory)? })
    }

    /// Returns the same for a ring that need not have been started, without a log.
    pub(crate) fn described(
        &self,
        features: RingFeatures,
        memory: &Arc<GuestMemory>,
    ) -> Option<RingSetup> {
        let Addresses { desc, avail, used, .. } = self.addresses?;
        let (memory, next, log) = (memory.clone(), self.next, None);
        Some(RingSetup { size: self.size?, desc, avail, used, next, features, memory, log })
    }

    /// The port's own copies of the notification descriptors.
    pub(crate) fn fds(&self) -> io::Result<RingFds> {
        Ok(RingFds {
            kick: duplicate(self.kick.as_ref().and_then(Option::as_ref))?,
            call: self.own_call()?,
        })
    }

    /// Clears kicks older than the ring: QEMU's descriptors arrive with one.
    pub(crate) fn drain_kicks(&self) {
        if let Some(Some(kick)) = &self.kick {
            // Fails when there is none; the descriptor never blocks.
            let _ = rustix::io::read(kick, &mut [0; 8]);
        }
    }

    /// A copy of the call descriptor.
    pub(crate) fn own_call(&self) -> io::Result<Option<OwnedFd>> {
        duplicate(self.call.as_ref())
    }

    /// Whether each part of the ring lies in one of the regions, given as address and size (virtio
    /// 1.2, section 2.7: 16 bytes a descriptor, 2 an available entry, 8 a used one, 6 more for each
    /// of the two rings).
    pub(crate) fn lies_in(&self, regions: &[(u64, u64)]) -> bool {
        let (Some(Addresses { desc, avail, used, .. }), Some(size)) = (self.addresses, self.size)
        else {
            return false;
        };
        let size = u64::from(size);
        [(desc, 16 * size), (avail, 6 + 2 * size), (used, 6 + 8 * size)].iter().all(|&(at, len)| {
            regions.iter().any(|(start, region)| {
                at.checked_sub(*start)
                    .is_some_and(|offset| offset <= *region && len <= region - offset)
            })
        })
    }
}

fn duplicate(fd: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    fd.map(OwnedFd::try_clone).transpose()
}

/// Checks a notification descriptor of the frontend and makes it non-blocking. It must be an
/// eventfd, because the worker polls one and writes to the other, and neither may block it.
///
/// # Errors
/// The descriptor is not an eventfd.
pub fn notifier(file: File) -> io::Result<OwnedFd> {
    let fd = OwnedFd::from(file);
    // Without /proc the kind is unknown; calls through another kind then do not reach the driver.
    if let Ok(target) = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
        && target.as_bytes() != b"anon_inode:[eventfd]"
    {
        let found = target.to_string_lossy();
        return Err(io::Error::other(format!("the descriptor is {found}, not an eventfd")));
    }
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_ring_lies_in_one_region() {
        let (desc, avail, used) = (0x10_0000, 0x10_1000, 0x10_2000);
        let mut vring = Vring { size: Some(256), ..Vring::default() };
        assert!(!vring.lies_in(&[(0, u64::MAX)]), "without addresses");
        vring.addresses = Some(Addresses { desc, avail, used, log: None });
        let end = used + 6 + 8 * 256 - desc;
        assert!(vring.lies_in(&[(0, 0x1000), (desc, end)]));
        assert!(!vring.lies_in(&[(desc, end - 1)]));
        assert!(!vring.lies_in(&[(desc + 1, end)]));
        assert!(vring.lies_in(&[(used, 0x1000), (desc, 0x2000)]), "in different ones");
        assert!(!vring.lies_in(&[(desc, 0x800), (desc + 0x800, end)]), "across two");
        assert!(!vring.lies_in(&[]));
        vring.addresses = Some(Addresses { desc: u64::MAX - 15, avail, used, log: None });
        assert!(!vring.lies_in(&[(desc, end)]));
    }

    #[test]
    fn a_notifier_is_an_eventfd_and_never_blocks() {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        let fd = notifier(File::from(event)).unwrap();
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(notifier(File::from(pipe)).unwrap_err().to_string().contains("not an eventfd"));
    }
}
