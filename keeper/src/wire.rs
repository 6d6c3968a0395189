//! Messages with descriptors over a SOCK_SEQPACKET socket: one message a datagram, in postcard's
//! format (<https://postcard.jamesmunns.com/wire-format>).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most descriptors of any message.
pub const MOST_DESCRIPTORS: usize = 64;

/// A message and its descriptors.
#[derive(Debug)]
pub struct Message<T> {
    /// What it says.
    pub body: T,
    /// Its descriptors, in the order in which they were sent; at most [`MOST_DESCRIPTORS`].
    pub fds: Vec<OwnedFd>,
}

/// Sends a message of at most `longest` bytes.
///
/// # Errors
/// It is too long or has too many descriptors ([`ErrorKind::InvalidInput`]), the other end is
/// closed, or the socket does not block and has no room ([`ErrorKind::WouldBlock`]).
pub fn send<T: Serialize>(
    socket: impl AsFd,
    body: &T,
    fds: &[BorrowedFd<'_>],
    longest: usize,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(body).map_err(invalid_input)?;
    if bytes.len() > longest {
        let text = format!("{} bytes: too long for a message", bytes.len());
        return Err(invalid_input(text));
    }
    send_bytes(socket, &bytes, fds).map(drop)
}

/// Receives a message of at most `longest` bytes; `None` if the other end is closed.
///
/// # Errors
/// As for [`receive_into`].
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    longest: usize,
) -> io::Result<Option<Message<T>>> {
    receive_into(socket, &mut vec![0; longest])
}

/// Receives a message into `bytes`, which is as long as the longest one; `None` if the other end
/// is closed.
///
/// # Errors
/// It is not a message ([`ErrorKind::InvalidData`]), the socket fails, or it does not block and
/// has none ([`ErrorKind::WouldBlock`]).
pub fn receive_into<'a, T: Deserialize<'a>>(
    socket: impl AsFd,
    bytes: &'a mut [u8],
) -> io::Result<Option<Message<T>>> {
    let received = receive_bytes(socket, bytes, RecvFlags::empty())?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.is_cut || received.lacks_descriptors {
        return Err(invalid_data("a message is too long or has too many descriptors"));
    }
    match postcard::take_from_bytes(&bytes[..received.bytes]) {
        Ok((body, [])) => Ok(Some(Message { body, fds: received.fds })),
        Ok(_) => Err(invalid_data("a message has more than it should")),
        Err(error) => Err(invalid_data(error)),
    }
}

fn invalid_input(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

fn invalid_data(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// Bytes of one call, with the descriptors that came with them.
pub(crate) struct Received {
    /// How many; 0 at the end.
    pub(crate) bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the datagram was longer.
    pub(crate) is_cut: bool,
    /// Whether more descriptors came than are taken, or than this process may have.
    pub(crate) lacks_descriptors: bool,
}

/// Receives what a socket holds, at most as much as fits in `bytes`.
pub(crate) fn receive_bytes(
    socket: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(bytes)];
        match recvmsg(&socket, &mut into, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds: Vec<OwnedFd> = rights.flatten().collect();
    let mut lacks_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    // The space is rounded up, so that more may fit.
    lacks_descriptors |= fds.len() > MOST_DESCRIPTORS;
    fds.truncate(MOST_DESCRIPTORS);
    let is_cut = received.flags.contains(ReturnFlags::TRUNC);
    Ok(Received { bytes: received.bytes, fds, is_cut, lacks_descriptors })
}

/// Sends bytes with descriptors; returns how many were taken, which with a stream may be fewer.
pub(crate) fn send_bytes(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_flagged(socket, bytes, fds, SendFlags::empty())
}

/// The same, with flags.
pub(crate) fn send_flagged(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MOST_DESCRIPTORS {
        return Err(invalid_input("too many descriptors"));
    }
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        let from = [IoSlice::new(bytes)];
        match sendmsg(&socket, &from, &mut ancillary, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    const LONGEST: usize = 1000;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (ours, theirs) = pair();
        let sent = ("kill".to_owned(), 7_u32);
        send(&ours, &sent, &[ours.as_fd(), theirs.as_fd()], LONGEST).unwrap();
        let message = receive::<(String, u32)>(&theirs, LONGEST).unwrap().unwrap();
        assert_eq!((message.body, message.fds.len()), (sent, 2));
        drop(ours);
        drop(message.fds);
        assert!(receive::<u32>(&theirs, LONGEST).unwrap().is_none(), "closed");
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_sender() {
        let (ours, _theirs) = pair();
        let error = send(&ours, &"x".repeat(LONGEST), &[], LONGEST).unwrap_err();
        assert_eq!(error.to_string(), "1002 bytes: too long for a message");
        let many = vec![ours.as_fd(); MOST_DESCRIPTORS + 1];
        let error = send(&ours, &7, &many, LONGEST).unwrap_err();
        assert_eq!(error.to_string(), "too many descriptors");
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_receiver() {
        let (ours, theirs) = pair();
        send(&ours, &"x".repeat(LONGEST), &[], LONGEST + 2).unwrap();
        send(&ours, &7_u32, &[], LONGEST).unwrap();
        let error = receive::<String>(&theirs, LONGEST).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(receive::<u32>(&theirs, LONGEST).unwrap().unwrap().body, 7, "the next one");
    }
}
