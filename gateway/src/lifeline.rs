//! The lifeline of a gateway process: a pair of SOCK_SEQPACKET sockets.
//!
//! The gateway's end is its standard input. The process runs as long as any other process has the
//! daemon's end: the daemon, and the keeper from which the next daemon gets it. Each datagram is
//! one byte that says what its descriptors are:
//!
//! ```text
//!  first    CABLE      channel, memory, kick, call, journal
//!  later    CHANNEL    channel
//! ```
//!
//! A daemon makes a channel ([`crate::control`]) of its own and passes the gateway's end. So what
//! an earlier daemon has sent or read in part ends with its channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};

use crate::link::GuestEnd;

const CABLE: u8 = 1;
const CHANNEL: u8 = 2;
/// Descriptors of the longest message.
const MOST: usize = 5;

/// The daemon's end.
#[derive(Debug)]
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// Makes a lifeline. Also returns the gateway's end.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub fn new() -> io::Result<(Lifeline, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Lifeline(ours), theirs))
    }

    /// Passes what a process needs to start: its ends of the channel and of the cable, and the
    /// journal of flows, which the next process gets as well.
    ///
    /// # Errors
    ///
    /// The process has ended.
    pub fn start(
        &self,
        channel: BorrowedFd<'_>,
        cable: &GuestEnd,
        journal: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let GuestEnd { memory, kick, call } = cable;
        self.send(CABLE, &[channel, memory.as_fd(), kick.as_fd(), call.as_fd(), journal])
    }

    /// Passes the process's end of another channel, which takes the place of the one before.
    ///
    /// # Errors
    ///
    /// The process has ended, or reads nothing.
    pub fn replace_channel(&self, channel: BorrowedFd<'_>) -> io::Result<()> {
        self.send(CHANNEL, &[channel])
    }

    /// Tells the process to end, even if other processes have copies of this end.
    pub fn end(&self) {
        // Fails if the process has ended.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    fn send(&self, kind: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("no room for the descriptors"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&[kind])], &mut ancillary, flags)?;
        Ok(())
    }
}

impl From<OwnedFd> for Lifeline {
    fn from(fd: OwnedFd) -> Lifeline {
        Lifeline(fd)
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What arrives at the start: see [`Lifeline::start`].
pub(crate) struct Start {
    pub(crate) channel: UnixStream,
    pub(crate) cable: GuestEnd,
    pub(crate) journal: OwnedFd,
}

/// What a look at the lifeline has found.
pub(crate) enum Found {
    /// Nothing new.
    Nothing,
    /// Another channel.
    Channel(UnixStream),
    /// No process has the other end, or the daemon has ended it.
    End,
}

/// The gateway's end.
pub(crate) struct GatewayEnd {
    socket: OwnedFd,
    /// Leaves its place to the next channel: flows may have taken all other descriptors.
    spare: Option<OwnedFd>,
}

impl GatewayEnd {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<GatewayEnd> {
        let spare = Some(socket.try_clone()?);
        Ok(GatewayEnd { socket, spare })
    }

    /// Waits for what the process needs to start.
    ///
    /// # Errors
    ///
    /// Something else arrived.
    pub(crate) fn wait_for_start(&self) -> io::Result<Start> {
        let (CABLE, fds) = self.receive(RecvFlags::empty())? else { return Err(not_a_daemon()) };
        let [channel, memory, kick, call, journal] =
            <[OwnedFd; MOST]>::try_from(fds).map_err(|_| not_a_daemon())?;
        let cable = GuestEnd { memory, kick, call };
        Ok(Start { channel: channel.into(), cable, journal })
    }

    /// Looks whether something has arrived.
    ///
    /// # Errors
    ///
    /// It is not what a daemon sends.
    pub(crate) fn look(&mut self) -> io::Result<Found> {
        self.spare = None;
        let received = self.receive(RecvFlags::DONTWAIT);
        let found = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Found::Nothing,
            Err(error) => return Err(error),
            Ok((0, _)) => Found::End,
            Ok((CHANNEL, fds)) => {
                let channel = fds.into_iter().next().ok_or_else(not_a_daemon)?;
                Found::Channel(channel.into())
            }
            Ok(_) => return Err(not_a_daemon()),
        };
        // With none left, the next look has the place of the channel that it replaces.
        self.spare = self.socket.try_clone().ok();
        Ok(found)
    }

    /// Receives a message; its kind is 0 at the end.
    fn receive(&self, flags: RecvFlags) -> io::Result<(u8, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut kind = [0];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut kind)], &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        let fds = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<OwnedFd>>(),
            _ => Vec::new(),
        });
        Ok((kind[0], fds.collect()))
    }
}

impl AsFd for GatewayEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn not_a_daemon() -> io::Error {
    io::Error::other("the descriptors of a gateway are missing; only tramad can start one")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::link::{Layout, Link, wire};
    use crate::testing::lab;

    fn pair() -> (Lifeline, GatewayEnd) {
        let (daemon, gateway) = Lifeline::new().unwrap();
        (daemon, GatewayEnd::new(gateway).unwrap())
    }

    /// Whether what is written to one end arrives at the other.
    fn joins(mut one: &UnixStream, mut other: &UnixStream) -> bool {
        let mut heard = [0; 3];
        one.write_all(b"abc").unwrap();
        other.read_exact(&mut heard).is_ok() && heard == *b"abc"
    }

    #[test]
    fn cable_and_channels_are_passed_and_nothing_else_is_accepted_for_them() {
        let (daemon, mut gateway) = pair();
        let (_, cable) = wire(Layout::of(&lab())).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        daemon.start(theirs.as_fd(), &cable, theirs.as_fd()).unwrap();
        let start = gateway.wait_for_start().unwrap();
        assert!(joins(&ours, &start.channel));
        assert!(Link::attach(Layout::of(&lab()), start.cable).is_ok());
        assert!(matches!(gateway.look(), Ok(Found::Nothing)));

        let (ours, theirs) = UnixStream::pair().unwrap();
        daemon.replace_channel(theirs.as_fd()).unwrap();
        let Ok(Found::Channel(channel)) = gateway.look() else { panic!("no channel") };
        assert!(joins(&ours, &channel));
        daemon.replace_channel(theirs.as_fd()).unwrap();
        assert!(gateway.wait_for_start().is_err(), "it is a channel");
        daemon.start(theirs.as_fd(), &cable, theirs.as_fd()).unwrap();
        assert!(gateway.look().is_err(), "it is a second start");
        rustix::io::write(&daemon, &[CHANNEL]).unwrap();
        assert!(gateway.look().is_err(), "it lacks its descriptor");
        rustix::io::write(&daemon, b"x").unwrap();
        assert!(gateway.look().is_err());
    }

    #[test]
    fn it_ends_with_the_last_copy_or_when_it_is_told_to() {
        let (daemon, mut gateway) = pair();
        let copy = daemon.as_fd().try_clone_to_owned().unwrap();
        drop(daemon);
        assert!(matches!(gateway.look(), Ok(Found::Nothing)));
        drop(copy);
        assert!(matches!(gateway.look(), Ok(Found::End)));

        let (daemon, mut gateway) = pair();
        let _copy = daemon.as_fd().try_clone_to_owned().unwrap();
        daemon.end();
        assert!(matches!(gateway.look(), Ok(Found::End)));
    }

    #[test]
    fn a_process_that_reads_nothing_makes_no_daemon_wait() {
        let (daemon, _gateway) = pair();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let refused = (0..10_000).find_map(|_| daemon.replace_channel(theirs.as_fd()).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
