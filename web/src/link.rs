//! The link: how the web process reaches the daemon without a socket that others could connect to.
//!
//! It is a pair of Unix sockets of type SOCK_SEQPACKET. For each request the web process makes a
//! pair of streams and passes one end over the link, with one byte that means nothing. That end is
//! then a client of the daemon's HTTP server like any other ([`trama_serve::Listen`]).
//!
//! ```text
//!  web process                                              daemon
//!   WebEnd ═══════════ link: one end of each pair ═════════▶ DaemonEnd
//!     └─ stream ◀────────────── HTTP ──────────────▶ stream ──┘ accept
//! ```
//!
//! Each end sees the link end when the other process ends, however it ends.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use trama_serve::{Accepted, Listen};

/// Makes a link: the daemon's end, and that of the web process.
///
/// # Errors
/// The process has too many open files.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// The daemon's end: a listener whose only client is the web process.
pub struct DaemonEnd {
    link: UnixStream,
    has_ended: Notify,
}

impl DaemonEnd {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// The descriptor is not a socket.
    pub fn new(link: OwnedFd) -> io::Result<DaemonEnd> {
        Ok(DaemonEnd { link: watched(link)?, has_ended: Notify::new() })
    }

    /// Returns once the web process has ended, as [`Listen::accept`] has noticed.
    pub async fn ended(&self) {
        self.has_ended.notified().await;
    }
}

impl Listen for &DaemonEnd {
    type Stream = UnixStream;
    type Told = ();

    /// Is pending for good once the web process has ended.
    async fn accept(&self) -> io::Result<Accepted<UnixStream, ()>> {
        loop {
            let receive = || receive(self.link.as_fd());
            match self.link.async_io(Interest::READABLE, receive).await? {
                Received::Stream(stream) => {
                    let stream = UnixStream::from_std(stream)?;
                    return Ok(Accepted { stream, user: None, told: () });
                }
                // Not a line for each: a web process that was broken into could fill the log.
                Received::Nothing => tracing::debug!("the web process has passed no stream"),
                Received::End => {
                    self.has_ended.notify_one();
                    std::future::pending().await
                }
            }
        }
    }
}

/// The end of the web process.
pub struct WebEnd(UnixStream);

impl WebEnd {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// The descriptor is not a socket.
    pub fn new(link: OwnedFd) -> io::Result<WebEnd> {
        Ok(WebEnd(watched(link)?))
    }

    /// Connects to the daemon's server. Waits while the daemon has not taken earlier connections
    /// and the link is full.
    ///
    /// # Errors
    /// The daemon has ended, or this process has too many open files.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let (own, passed) = socketpair(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        let send = || pass(self.0.as_fd(), passed.as_fd());
        self.0.async_io(Interest::WRITABLE, send).await?;
        UnixStream::from_std(StdStream::from(own))
    }

    /// Returns once the daemon has ended.
    pub async fn ended(&self) {
        // The daemon sends nothing; what came all the same is dropped.
        while let Ok(Received::Stream(_) | Received::Nothing) =
            self.0.async_io(Interest::READABLE, || receive(self.0.as_fd())).await
        {}
    }
}

fn watched(link: OwnedFd) -> io::Result<UnixStream> {
    // The type says streams; only descriptor and readiness are used.
    let link = StdStream::from(link);
    link.set_nonblocking(true)?;
    UnixStream::from_std(link)
}

fn pass(link: BorrowedFd<'_>, stream: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let streams = [stream];
    ancillary.push(SendAncillaryMessage::ScmRights(&streams));
    match sendmsg(link, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        // Too many passed descriptors wait to be received: those of other processes count as well.
        Err(Errno::TOOMANYREFS) => Err(ErrorKind::QuotaExceeded.into()),
        Err(error) => Err(error.into()),
    }
}

/// What a message has brought.
enum Received {
    Stream(StdStream),
    /// Not a stream.
    Nothing,
    /// The other end is closed.
    End,
}

fn receive(link: BorrowedFd<'_>) -> io::Result<Received> {
    // Room for two: the kernel closes more than fit, and one that is too many is closed here.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let buffers = &mut [IoSliceMut::new(&mut byte)];
    let length = match recvmsg(link, buffers, &mut ancillary, flags) {
        Ok(received) => received.bytes,
        Err(Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(Received::End);
    }
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match passed.filter(is_stream) {
        Some(passed) => {
            rustix::io::ioctl_fionbio(&passed, true)?;
            Ok(Received::Stream(passed.into()))
        }
        None => Ok(Received::Nothing),
    }
}

/// Whether it is a Unix stream socket: a web process that was broken into could pass anything.
fn is_stream(passed: &OwnedFd) -> bool {
    socket_domain(passed) == Ok(AddressFamily::UNIX)
        && socket_type(passed) == Ok(SocketType::STREAM)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    fn ends() -> (DaemonEnd, WebEnd) {
        let (daemon, web) = pair().unwrap();
        (DaemonEnd::new(daemon).unwrap(), WebEnd::new(web).unwrap())
    }

    #[tokio::test]
    async fn each_connection_is_a_pair_of_streams() {
        let (daemon, web) = ends();
        for text in [b"first", b"other"] {
            let mut own = web.connect().await.unwrap();
            let mut accepted = (&daemon).accept().await.unwrap().stream;
            accepted.write_all(text).await.unwrap();
            let mut read = [0; 5];
            own.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, text);
        }
    }

    #[tokio::test]
    async fn connections_wait_for_a_daemon_that_does_not_accept() {
        let (daemon, web) = ends();
        let mut streams = Vec::new();
        while let Ok(stream) = timeout(MOMENT, web.connect()).await {
            streams.push(stream.unwrap());
            assert!(streams.len() < 10_000, "the link takes everything");
        }
        for _ in 0..streams.len() {
            (&daemon).accept().await.unwrap();
        }
        web.connect().await.unwrap();
    }

    #[tokio::test]
    async fn each_end_sees_the_other_end() {
        let (daemon, web) = ends();
        assert!(timeout(MOMENT, web.ended()).await.is_err());
        drop(daemon);
        web.ended().await;
        assert!(web.connect().await.is_err());

        let (daemon, web) = ends();
        drop(web);
        assert!(timeout(MOMENT, (&daemon).accept()).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_stream_is_not_accepted() {
        let (daemon, web) = ends();
        let file = std::fs::File::open("/dev/null").unwrap();
        pass(web.0.as_fd(), file.as_fd()).unwrap();
        let (datagrams, _other) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, FLAGS, None).unwrap();
        pass(web.0.as_fd(), datagrams.as_fd()).unwrap();
        rustix::net::send(&web.0, b"no descriptor", SendFlags::empty()).unwrap();
        let _own = web.connect().await.unwrap();
        let accepted = (&daemon).accept().await.unwrap().stream;
        assert!(accepted.peer_addr().is_ok());
        assert!(timeout(MOMENT, (&daemon).accept()).await.is_err());
    }
}
