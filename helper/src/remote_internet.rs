//! Has the helper make TCP and UDP sockets.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::kept::{Asked, Entry};
use crate::request::{Internet, Request};
use crate::rights::Rights;

/// A socket that was opened.
#[derive(Debug)]
pub struct OpenedSocket {
    /// The socket; non-blocking.
    pub socket: OwnedFd,
    /// Its entry with the keeper; the socket stays open until this is dropped as well.
    pub entry: Option<Entry>,
}

impl Rights {
    /// Listens for TCP connections, or goes on with the socket of an earlier switch.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn listen_tcp(&self, address: SocketAddr) -> Result<OpenedSocket, String> {
        self.internet(Internet::Listen, address)
    }

    /// Receives UDP datagrams at an address, or goes on with the socket of an earlier switch.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<OpenedSocket, String> {
        self.internet(Internet::Datagrams, address)
    }

    /// Begins to connect by TCP. The socket is writable when that has succeeded or failed.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn connect_tcp(&self, address: SocketAddr) -> Result<OwnedFd, String> {
        let request = Request::Internet { kind: Internet::Connect, address };
        self.ask_for_one(request).map(|(_, socket)| socket)
    }

    fn internet(&self, kind: Internet, address: SocketAddr) -> Result<OpenedSocket, String> {
        let key = format!("internet/{kind:?}/{address}");
        let request = Request::Internet { kind, address };
        let Asked { opened, entry, refused } = self.ask_kept(&key, request, |_, fds| {
            fds.into_iter().next().ok_or_else(|| "there is no socket".to_owned())
        })?;
        debug_assert!(refused.is_none(), "any socket will do");
        Ok(OpenedSocket { socket: opened, entry })
    }
}
