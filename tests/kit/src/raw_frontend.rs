//! A frontend that sends any bytes.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::card::connect;
use trama_vhost_net_backend::features::LOG_ALL;

use crate::requests::*;
use crate::shared_memory::SharedMemory;
use crate::wait::PATIENCE;

/// The header's flags of a request: version 1 of the protocol.
const VERSION: u32 = 1;
/// The header's flag by which a frontend asks for an acknowledgement.
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// Sends bytes with descriptors. Returns `false` if the other side has closed the connection.
pub(crate) fn send_message(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let iov = [IoSlice::new(bytes)];
    sendmsg(stream, &iov, &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// A frontend that sends any bytes.
pub struct RawFrontend {
    /// The connection to the session.
    pub stream: UnixStream,
}

impl RawFrontend {
    /// Connects to a session that may not listen yet.
    pub fn connect(path: &Path) -> RawFrontend {
        RawFrontend::new(connect(path))
    }

    /// Returns a frontend on a connection, whose reads end after [`PATIENCE`].
    pub fn new(stream: UnixStream) -> RawFrontend {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        RawFrontend { stream }
    }

    /// Sends bytes with descriptors. Returns `false` if the session has closed the connection.
    pub fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        send_message(&self.stream, bytes, fds)
    }

    /// Sends a request as one message. Returns `false` if the session has closed the connection.
    pub fn send(&self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send_raw(&message(request, flags, body), fds)
    }

    /// Reads a reply and returns its body, or `None` if the connection is closed.
    pub fn reply(&self) -> Option<Vec<u8>> {
        let mut header = [0; 12];
        (&self.stream).read_exact(&mut header).ok()?;
        let size = u32::from_ne_bytes(header[8..].try_into().unwrap());
        let mut body = vec![0; size as usize];
        (&self.stream).read_exact(&mut body).ok()?;
        Some(body)
    }

    /// Sends a request that has a reply of its own; returns the first 8 bytes of its body.
    pub fn get(&self, request: u32, body: &[u8]) -> u64 {
        assert!(self.send(request, VERSION, body, &[]));
        let body = self.reply().expect("a reply");
        u64::from_ne_bytes(body[..8].try_into().unwrap())
    }

    /// Sends a request and asks for an acknowledgement; returns whether the session accepts it.
    pub fn accepts(&self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send(request, VERSION | NEED_REPLY, body, fds)
            && self.reply().is_some_and(|body| body == 0u64.to_ne_bytes())
    }

    /// Sends a request that the session must accept.
    pub fn send_acknowledged(&self, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(self.accepts(request, body, fds), "request {request} refused");
    }

    /// Sends a request whose body is a ring and a value.
    pub fn vring(&self, request: u32, index: u32, value: u32) {
        self.send_acknowledged(request, &vring_state(index, value), &[]);
    }

    /// Sends a request whose body is a ring, with a descriptor.
    pub fn vring_fd(&self, request: u32, index: u64, fd: &OwnedFd) {
        self.send_acknowledged(request, &index.to_ne_bytes(), &[fd.as_fd()]);
    }

    /// Stops a ring; returns the index at which it has stopped.
    pub fn base(&self, index: u32) -> u32 {
        (self.get(GET_VRING_BASE, &vring_state(index, 0)) >> 32) as u32
    }

    /// Takes all protocol features, so that requests can be acknowledged; returns the features that
    /// a frontend takes whose guest does not migrate: those offered without LOG_ALL.
    pub fn negotiate(&self) -> u64 {
        let features = self.get(GET_FEATURES, &[]);
        let protocol = self.get(GET_PROTOCOL_FEATURES, &[]);
        assert!(self.send(SET_PROTOCOL_FEATURES, VERSION, &protocol.to_ne_bytes(), &[]));
        self.send_acknowledged(SET_OWNER, &[], &[]);
        features & !LOG_ALL
    }

    /// Negotiates, takes all features and shares `memory`.
    pub fn share_memory(&self, memory: &SharedMemory) {
        let features = self.negotiate();
        self.send_acknowledged(SET_FEATURES, &features.to_ne_bytes(), &[]);
        self.send_acknowledged(SET_MEM_TABLE, &memory.table(), &[memory.file.as_fd()]);
    }

    /// Shares a log of the pages written. The answer is a reply of its own.
    pub fn share_log(&self, log: &SharedMemory) {
        let body = words(&[log.size, 0]);
        assert!(self.send(SET_LOG_BASE, VERSION, &body, &[log.file.as_fd()]));
        assert_eq!(self.reply(), Some(body));
    }

    /// Sets all of a ring except whether it is enabled.
    pub fn describe_ring(&self, index: u32, memory: &SharedMemory, kick: &OwnedFd) {
        self.vring(SET_VRING_NUM, index, 256);
        self.vring(SET_VRING_BASE, index, 0);
        self.send_acknowledged(SET_VRING_ADDR, &memory.ring(index), &[]);
        self.vring_fd(SET_VRING_KICK, u64::from(index), kick);
    }

    /// Waits until the session sends something or closes the connection; returns whether it closes.
    pub fn is_closed(&self) -> bool {
        // The kernel resets a connection that is closed before all of it was read.
        match (&self.stream).read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
