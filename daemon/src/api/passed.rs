//! Descriptors that clients of the control socket pass with their requests (SCM_RIGHTS).
//!
//! A plain read would drop them. [`PassedStream`] reads with recvmsg(2) and sets them aside for the
//! request that comes with them ([`Passed`]).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use trama_serve::{Accepted, Listen};

/// Most descriptors that are set aside: more than one is an error already.
const MOST: usize = 2;

/// What came with a connection's request.
#[derive(Clone, Default)]
pub(super) struct Passed(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    fds: Vec<OwnedFd>,
    /// The connection, to see whether its client is still there.
    connection: Option<OwnedFd>,
}

impl Passed {
    /// Takes the descriptors.
    pub(super) fn take(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.lock().fds)
    }

    /// Returns whether the client has closed its end, or was killed.
    pub(super) fn is_abandoned(&self) -> bool {
        let inner = self.lock();
        let Some(connection) = &inner.connection else { return false };
        let mut waiting = [PollFd::new(connection, PollFlags::RDHUP)];
        let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut waiting, Some(&no_time)).is_ok_and(|ready| ready > 0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listening control socket.
pub(super) struct Clients(pub UnixListener);

impl Listen for Clients {
    type Stream = PassedStream;
    type Told = Passed;

    async fn accept(&self) -> io::Result<Accepted<PassedStream, Passed>> {
        let (stream, _) = self.0.accept().await?;
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        let stream = PassedStream::new(stream);
        let told = stream.passed();
        Ok(Accepted { stream, user, told })
    }
}

/// A connection whose descriptors are set aside.
pub(super) struct PassedStream {
    stream: UnixStream,
    passed: Passed,
}

impl PassedStream {
    fn new(stream: UnixStream) -> PassedStream {
        let passed = Passed::default();
        // Without a copy, a client that goes away is not noticed in time, and that is all.
        passed.lock().connection = stream.as_fd().try_clone_to_owned().ok();
        PassedStream { stream, passed }
    }

    fn passed(&self) -> Passed {
        self.passed.clone()
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let buffers = &mut [IoSliceMut::new(into)];
        let received = recvmsg(&self.stream, buffers, &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                let mut inner = self.passed.lock();
                let room = MOST.saturating_sub(inner.fds.len());
                inner.fds.extend(fds.take(room));
            }
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for PassedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let into = buffer.initialize_unfilled();
            match self.stream.try_io(Interest::READABLE, || self.receive(into)) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for PassedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
