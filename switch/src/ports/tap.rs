//! A Linux TAP device as a port.
//!
//! One system call moves one frame; that is the kernel's interface. Large frames make up for it:
//! the device uses the same virtio-net header as a guest (`IFF_VNET_HDR`, 12 bytes), so a 64 KiB
//! segment passes whole. A frame is written with one `writev` from its private header and head and
//! the sender's own memory, without another copy.
//!
//! The kernel does not read pages that a guest's memory lacks: it fails with EFAULT. The frame's
//! segments are then touched, which adds the pages or loses the memory, and the frame is written
//! again.
//!
//! A device that is down or full refuses frames one by one (counted); a deleted device is a fault
//! of this port alone.
#![expect(unsafe_code, reason = "an ioctl, and vectored I/O on raw segments")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use trama_frame::Offloads;
use trama_frame::vnet::LEN as HEADER;
use trama_tap::{NamespaceId, TapError, TapOptions, TapParts};
use trama_virtqueue::Segment;

use super::pool::PoolBurst;
use super::{Sink, Watched, Watcher};
use crate::drop_reason::DropReason;

/// Most iovecs of one `writev` (`UIO_MAXIOV`).
const MAX_IOVECS: usize = 1024;

/// An open TAP device. It is deleted when this is dropped, unless it existed before.
pub struct Tap {
    fd: OwnedFd,
    /// Offloads that the kernel takes; none without the header.
    offloads: Offloads,
    vnet_header: bool,
    gone: bool,
    /// Frames that could not be read since they were last taken.
    holes: u64,
    pub(super) watched: Option<Watched>,
    /// The named namespace that it was created in.
    namespace: Option<NamespaceId>,
}

impl Tap {
    /// Creates the device, or attaches to a persistent one of that name, and sets it up.
    ///
    /// # Errors
    /// The device cannot be created or set up; the error names the step and the remedy.
    pub fn open(options: &TapOptions) -> Result<Tap, TapError> {
        trama_tap::open(options).map(Tap::from_parts)
    }

    /// Takes over a device that another process has opened, even if that was killed. Addresses,
    /// routes, offloads and frames that wait to be read stay with the device.
    pub fn from_parts(parts: TapParts) -> Tap {
        let TapParts { fd, offloads, vnet_header, namespace } = parts;
        Tap { fd, offloads, vnet_header, gone: false, holes: 0, watched: None, namespace }
    }

    /// Returns the device for another process, where [`Tap::from_parts`] takes it over.
    pub fn into_parts(self) -> TapParts {
        let Tap { fd, offloads, vnet_header, namespace, .. } = self;
        TapParts { fd, offloads, vnet_header, namespace }
    }

    /// Wraps a stand-in for a TAP: any non-blocking descriptor that moves one frame behind its
    /// virtio-net header at a time, such as a SOCK_SEQPACKET socket. Measures the switch without
    /// the kernel.
    #[doc(hidden)]
    pub fn over(fd: OwnedFd) -> Tap {
        let (offloads, vnet_header, gone) = (Offloads::ALL, true, false);
        Tap { fd, offloads, vnet_header, gone, holes: 0, watched: None, namespace: None }
    }

    /// Returns the named namespace that it was created in, if one was requested. The device stays
    /// there when the name is deleted or passes to another namespace.
    pub fn namespace(&self) -> Option<NamespaceId> {
        self.namespace
    }

    /// Sets the link state that the interface shows (`TUNSETCARRIER`).
    ///
    /// # Errors
    /// The kernel refuses the request, or is older than 5.0 and does not know it.
    pub fn set_carrier(&self, up: bool) -> io::Result<()> {
        let up = libc::c_int::from(up);
        // SAFETY: the request reads one int at the address, which lives until it returns.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETCARRIER, &raw const up) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn take_holes(&mut self) -> u64 {
        std::mem::take(&mut self.holes)
    }

    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watched = Some(watcher.watch(self.fd.try_clone()?)?);
        Ok(())
    }

    /// Fills `burst` with frames.
    pub(crate) fn fetch(&mut self, burst: &mut PoolBurst) {
        let prefix = if self.vnet_header { 0 } else { HEADER };
        while !burst.is_full() {
            let buffer = burst.buffer();
            buffer[..prefix].fill(0);
            match rustix::io::read(&self.fd, &mut buffer[prefix..]) {
                // A frame that ends within the header counts as a runt.
                Ok(len) => burst.commit((prefix + len).saturating_sub(HEADER)),
                Err(Errno::BADFD) => {
                    self.gone = true;
                    break;
                }
                // AGAIN: empty. IO: the interface is down. Either way the next frame is an edge.
                Err(_) => break,
            }
        }
    }
}

impl Sink for Tap {
    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let mut iovecs = IoVecs::new();
        if self.vnet_header {
            iovecs.add(Segment::from(&header[..]))?;
        }
        iovecs.add(Segment::from(head))?;
        body.iter().try_for_each(|segment| iovecs.add(*segment))?;
        // SAFETY: the first `len` iovecs are initialised, and each is readable as long as the
        // segment it came from, which outlives this call. The kernel copies out of them. A guest
        // may write them meanwhile, but Rust holds no reference to them.
        let written = unsafe {
            libc::writev(self.fd.as_fd().as_raw_fd(), iovecs.as_ptr(), iovecs.len as libc::c_int)
        };
        if written >= 0 { Ok(()) } else { self.refused(&iovecs, body) }
    }
}

impl Tap {
    /// Finds the reason of a write that failed. If the kernel could not read the frame, its
    /// segments are touched and it is written once more.
    #[cold]
    #[inline(never)]
    fn refused(&mut self, iovecs: &IoVecs<'_>, body: &[Segment<'_>]) -> Result<(), DropReason> {
        let mut error = io::Error::last_os_error().raw_os_error();
        if error == Some(libc::EFAULT) {
            body.iter().for_each(Segment::touch);
            // SAFETY: as for the first write.
            let written = unsafe {
                libc::writev(self.fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len as libc::c_int)
            };
            if written >= 0 {
                return Ok(());
            }
            error = io::Error::last_os_error().raw_os_error();
        }
        match error {
            Some(libc::EFAULT) => {
                self.holes += 1;
                Err(DropReason::MemoryHole)
            }
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Err(DropReason::EgressFull),
            Some(libc::EBADFD) => {
                self.gone = true;
                Err(DropReason::DeviceError)
            }
            _ => Err(DropReason::DeviceError),
        }
    }
}

/// The iovecs of one frame for `writev`. Only iovecs that were added are initialised.
struct IoVecs<'a> {
    list: [MaybeUninit<libc::iovec>; MAX_IOVECS],
    len: usize,
    segments: std::marker::PhantomData<Segment<'a>>,
}

impl<'a> IoVecs<'a> {
    fn new() -> Self {
        let list = [const { MaybeUninit::uninit() }; MAX_IOVECS];
        IoVecs { list, len: 0, segments: std::marker::PhantomData }
    }

    fn add(&mut self, segment: Segment<'a>) -> Result<(), DropReason> {
        let place = self.list.get_mut(self.len).ok_or(DropReason::EgressTooLarge)?;
        place.write(libc::iovec {
            iov_base: segment.as_ptr().cast_mut().cast(),
            iov_len: segment.len(),
        });
        self.len += 1;
        Ok(())
    }

    fn as_ptr(&self) -> *const libc::iovec {
        self.list.as_ptr().cast()
    }
}
