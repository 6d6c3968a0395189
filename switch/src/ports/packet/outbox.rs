//! Outgoing frames: gathered while a burst is delivered, sent with one system call.

use std::io;
use std::os::raw::c_int;

use trama_frame::ethernet::TAG_LEN;
use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD, VnetHeader};
use trama_virtqueue::{MAX_BURST, Segment};

use crate::drop_reason::DropReason;
use crate::ports::Unsent;

/// Most iovecs of all frames of one call, and of one frame (`UIO_MAXIOV`).
const MAX_IOVECS: usize = 1024;

/// A copy of the beginning of a frame, whose original may be gone before the frame is sent.
#[derive(Clone, Copy)]
struct Start {
    header: [u8; HEADER],
    head: [u8; PRIVATE_HEAD + TAG_LEN],
}

/// A waiting frame.
#[derive(Clone, Copy)]
struct Waiting {
    len: usize,
    is_large: bool,
}

/// Frames waiting to be sent.
pub(super) struct Outbox {
    starts: Box<[Start]>,
    iovecs: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    frames: Vec<Waiting>,
    /// Bytes of a virtio-net header as the kernel reads it.
    header: usize,
    /// Frames that could not be sent so far.
    unsent: Unsent,
    /// Frames that could not be read since they were last taken.
    holes: u64,
    gone: bool,
}

// SAFETY: its addresses are of its own memory or, until `send`, of frames that its thread delivers.
unsafe impl Send for Outbox {}

impl Outbox {
    pub(super) fn new(header: usize) -> Outbox {
        let start = Start { header: [0; HEADER], head: [0; PRIVATE_HEAD + TAG_LEN] };
        Outbox {
            starts: vec![start; MAX_BURST].into_boxed_slice(),
            iovecs: Vec::with_capacity(MAX_IOVECS),
            messages: Vec::with_capacity(MAX_BURST),
            frames: Vec::with_capacity(MAX_BURST),
            header,
            unsent: Unsent::default(),
            holes: 0,
            gone: false,
        }
    }

    /// Returns whether a send found the interface down or deleted.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn take_holes(&mut self) -> u64 {
        std::mem::take(&mut self.holes)
    }

    /// Adds a frame; sends the waiting ones first if there is no room. The bytes of `body` must
    /// stay in place until [`Outbox::send`].
    pub(super) fn put(
        &mut self,
        socket: c_int,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let needed = body.len() + 2;
        if needed > MAX_IOVECS {
            return Err(DropReason::EgressTooLarge);
        }
        if self.frames.len() == MAX_BURST || self.iovecs.len() + needed > MAX_IOVECS {
            self.send_some(socket);
        }
        let start = &mut self.starts[self.frames.len()];
        start.header = *header;
        let first = self.iovecs.len();
        self.iovecs.push(iovec(start.header.as_ptr(), self.header));
        let is_short = head.len() <= start.head.len();
        if is_short {
            start.head[..head.len()].copy_from_slice(head);
            self.iovecs.push(iovec(start.head.as_ptr(), head.len()));
        } else {
            // It was completed in software, in memory that the next frame reuses.
            self.iovecs.push(iovec(head.as_ptr(), head.len()));
        }
        self.iovecs.extend(body.iter().map(|segment| iovec(segment.as_ptr(), segment.len())));
        let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
        let is_large = VnetHeader::from_bytes(header).is_gso();
        self.frames.push(Waiting { len, is_large });
        // SAFETY: all zeroes is a valid empty message.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        // Room was made above: the iovecs never move.
        message.msg_hdr.msg_iov = self.iovecs[first..].as_mut_ptr();
        message.msg_hdr.msg_iovlen = needed;
        self.messages.push(message);
        if !is_short {
            self.send_some(socket);
        }
        Ok(())
    }

    /// Sends the waiting frames; returns those that could not be sent since the last call.
    pub(super) fn send(&mut self, socket: c_int) -> Unsent {
        self.send_some(socket);
        std::mem::take(&mut self.unsent)
    }

    fn send_some(&mut self, socket: c_int) {
        let (mut done, mut touched) = (0, None);
        // Each iteration sends a frame, touches one that was not touched yet, or gives one up.
        while done < self.messages.len() {
            let rest = &mut self.messages[done..];
            // SAFETY: each message names iovecs in this value, and each of them readable bytes:
            // copies held here, and segments that outlive the delivery of their burst.
            let sent = unsafe {
                libc::sendmmsg(socket, rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT)
            };
            if sent > 0 {
                done += sent as usize;
                continue;
            }
            let error = io::Error::last_os_error().raw_os_error().unwrap_or_default();
            if error == libc::EFAULT && touched != Some(done) {
                touch(&rest[0].msg_hdr);
                touched = Some(done);
                continue;
            }
            let (reason, given_up) = match error {
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => (DropReason::EgressFull, rest.len()),
                libc::ENETDOWN | libc::ENXIO | libc::ENODEV => {
                    self.gone = true;
                    (DropReason::DeviceError, rest.len())
                }
                libc::EMSGSIZE => (DropReason::EgressTooLarge, 1),
                libc::EFAULT => {
                    self.holes += 1;
                    (DropReason::MemoryHole, 1)
                }
                _ => (DropReason::DeviceError, 1),
            };
            for frame in &self.frames[done..done + given_up] {
                self.unsent.add(reason, frame.len, frame.is_large);
            }
            done += given_up;
        }
        self.messages.clear();
        self.frames.clear();
        self.iovecs.clear();
    }
}

/// Touches the pages of a waiting frame, which the kernel does not read if a guest's memory lacks
/// them: it fails with EFAULT. The pages are then there, or the memory is lost.
#[cold]
fn touch(message: &libc::msghdr) {
    // SAFETY: a waiting message names its iovecs, which stay in place, and they readable bytes. An
    // iovec and a segment have the same layout.
    let segments = unsafe {
        std::slice::from_raw_parts(message.msg_iov.cast::<Segment<'_>>(), message.msg_iovlen as _)
    };
    segments.iter().for_each(Segment::touch);
}

fn iovec(at: *const u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: at.cast_mut().cast(), iov_len: len }
}
