//! Messages on the socket, looked at before the `vhost` crate takes them.
//!
//! Peeking gives the log the name of a request that fails, and lets two requests be served that
//! the crate does not serve: NET_SET_MTU, and SET_VRING_ENABLE before SET_FEATURES, which QEMU
//! sends for every ring pair when it starts.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::FrontendReq;

const HEADER: usize = 12;
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The header of a message that waits on the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

/// What waits on the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// A message, or its first part.
    Message(Header),
    /// Less than a header.
    Part,
    /// The frontend has closed the connection.
    End,
}

/// Looks at a readable socket without taking anything from it.
pub(crate) fn peek(stream: &UnixStream) -> io::Result<Waiting> {
    let mut bytes = [0; HEADER];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    Ok(match recv(stream, &mut bytes[..], flags)?.0 {
        0 => Waiting::End,
        HEADER => Waiting::Message(Header::from_bytes(bytes)),
        _ => Waiting::Part,
    })
}

impl Header {
    fn from_bytes(bytes: [u8; HEADER]) -> Header {
        let field = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header { request: field(0), flags: field(4), size: field(8) }
    }

    /// Whether this is a well-formed `request` with a body of eight bytes.
    pub fn is_word(&self, request: FrontendReq) -> bool {
        self.request == u32::from(request)
            && self.flags & (VERSION_MASK | REPLY) == VERSION
            && self.size == 8
    }

    /// Whether the frontend waits for an answer.
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Whether the request brings guest memory.
    pub fn brings_memory(&self) -> bool {
        let brings = [FrontendReq::SET_MEM_TABLE, FrontendReq::ADD_MEM_REG];
        brings.into_iter().any(|request| self.request == u32::from(request))
    }

    /// For the log: the request's name in the protocol, and its size.
    pub fn describe(&self) -> String {
        match FrontendReq::try_from(self.request) {
            Ok(request) => format!("{request:?} ({} bytes)", self.size),
            Err(()) => format!("unknown request {} ({} bytes)", self.request, self.size),
        }
    }
}

/// Takes a message of eight bytes body, for which [`Header::is_word`] holds, off the socket.
/// Descriptors that came with it are closed by the kernel.
pub(crate) fn take_word(mut stream: &UnixStream) -> io::Result<[u8; 8]> {
    let mut message = [0; HEADER + 8];
    stream.read_exact(&mut message)?;
    let mut body = [0; 8];
    body.copy_from_slice(&message[HEADER..]);
    Ok(body)
}

/// Answers a request: 0 for success, as REPLY_ACK has it.
pub(crate) fn answer(mut stream: &UnixStream, request: FrontendReq, ok: bool) -> io::Result<()> {
    let mut message = [0; HEADER + 8];
    message[..4].copy_from_slice(&u32::from(request).to_ne_bytes());
    message[4..8].copy_from_slice(&(VERSION | REPLY).to_ne_bytes());
    message[8..12].copy_from_slice(&8u32.to_ne_bytes());
    message[HEADER..].copy_from_slice(&u64::from(!ok).to_ne_bytes());
    stream.write_all(&message)
}
