//! Peeks at messages on the socket before the `vhost` crate reads them.
//!
//! Peeking gives the log the name of a request that fails, and allows to serve requests that the
//! crate does not serve, or only in some states.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::FrontendReq;

const HEADER: usize = 12;
/// Longest body of a message in bytes, the limit of the crate.
const MAX_BODY: u32 = 4096;
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The header of the next message on the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

/// What the socket holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// A message, or its first part.
    Whole(Header),
    /// Less than a header.
    Part,
    /// The frontend has closed the connection.
    End,
}

/// Peeks at a readable socket.
pub(crate) fn peek(stream: &UnixStream) -> io::Result<Message> {
    let mut bytes = [0; HEADER];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    Ok(match recv(stream, &mut bytes[..], flags)?.0 {
        0 => Message::End,
        HEADER => Message::Whole(Header::from_bytes(bytes)),
        _ => Message::Part,
    })
}

impl Header {
    fn from_bytes(bytes: [u8; HEADER]) -> Header {
        let field = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header { request: field(0), flags: field(4), size: field(8) }
    }

    /// Whether the message is one that a frontend may send, whatever its request.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.flags & (VERSION_MASK | REPLY) == VERSION && self.size <= MAX_BODY
    }

    /// The request's name; `Err` holds the number of one that the protocol does not know.
    pub(crate) fn request(&self) -> Result<FrontendReq, u32> {
        FrontendReq::try_from(self.request).map_err(|()| self.request)
    }

    /// The request's number.
    pub(crate) fn number(&self) -> u32 {
        self.request
    }

    /// Bytes of its body.
    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// Whether the frontend waits for an answer.
    pub(crate) fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Whether the request brings guest memory.
    pub(crate) fn brings_memory(&self) -> bool {
        let brings = [FrontendReq::SET_MEM_TABLE, FrontendReq::ADD_MEM_REG];
        brings.into_iter().any(|request| self.request == u32::from(request))
    }

    /// For the log: the request's name in the protocol, and its size.
    pub(crate) fn describe(&self) -> String {
        match FrontendReq::try_from(self.request) {
            Ok(request) => format!("{request:?} ({} bytes)", self.size),
            Err(()) => format!("unknown request {} ({} bytes)", self.request, self.size),
        }
    }
}

/// Reads a message for which [`Header::is_well_formed`] holds, and returns its body. The kernel
/// closes descriptors that came with it.
pub(crate) fn take(mut stream: &UnixStream, header: Header) -> io::Result<Vec<u8>> {
    stream.read_exact(&mut [0; HEADER])?;
    let mut body = vec![0; header.size.min(MAX_BODY) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Answers a request with a body of its own.
pub(crate) fn reply(mut stream: &UnixStream, header: Header, body: &[u8]) -> io::Result<()> {
    let fields = [header.request, VERSION | REPLY, body.len() as u32];
    let mut message: Vec<u8> = fields.into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend(body);
    stream.write_all(&message)
}

/// Acknowledges a request or not: 0 for success, as REPLY_ACK has it.
pub(crate) fn acknowledge(stream: &UnixStream, header: Header, ok: bool) -> io::Result<()> {
    reply(stream, header, &u64::from(!ok).to_ne_bytes())
}
