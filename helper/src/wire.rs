//! Messages with descriptors over a SOCK_SEQPACKET pair: one message a datagram, in postcard's
//! format (<https://postcard.jamesmunns.com/wire-format>).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes: the longest requests have two paths.
const LONGEST: usize = 16 << 10;
/// Most descriptors of a message.
const MOST: usize = 4;

/// A message and its descriptors.
pub(crate) struct Message<T> {
    pub(crate) body: T,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends a message.
///
/// # Errors
/// It is too long, or the other end is closed.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    body: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(body).map_err(io::Error::other)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::other(format!("{} bytes: too long for the helper", bytes.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Receives a message; `None` if the other end is closed.
///
/// # Errors
/// It is not a message, or the socket fails.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<Message<T>>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = rights.flatten().collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message is too long or has too many descriptors"));
    }
    match postcard::take_from_bytes(&bytes[..received.bytes]) {
        Ok((body, [])) => Ok(Some(Message { body, fds })),
        Ok(_) => Err(io::Error::other("a message has more than it should")),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::request::{Reply, Request};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (ours, theirs) = pair();
        let sent = Request::Kill { process: 7 };
        send(&ours, &sent, &[ours.as_fd(), theirs.as_fd()]).unwrap();
        let message = receive::<Request>(&theirs).unwrap().unwrap();
        assert_eq!((message.body, message.fds.len()), (sent, 2));
        drop(ours);
        drop(message.fds);
        assert!(receive::<Request>(&theirs).unwrap().is_none(), "closed");
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_sender() {
        let (ours, _theirs) = pair();
        let long = Reply::Refused("x".repeat(LONGEST));
        assert!(send(&ours, &long, &[]).unwrap_err().to_string().contains("too long"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            let (ours, theirs) = pair();
            rustix::io::write(&ours, &bytes).unwrap();
            if let Ok(Some(message)) = receive::<Request>(&theirs) {
                // What was understood means the same when it is sent on.
                send(&ours, &message.body, &[]).unwrap();
                let again = receive::<Request>(&theirs).unwrap().unwrap();
                prop_assert_eq!(again.body, message.body);
            }
        }
    }
}
