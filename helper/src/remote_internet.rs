//! Has the helper make TCP and UDP sockets.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::kept::{Asked, Entry};
use crate::request::{Internet, Reply, Request, TunnelSockets, unexpected};
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

    /// Makes a socket that sends UDP datagrams to an address.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn connect_udp(&self, address: SocketAddr) -> Result<OwnedFd, String> {
        let request = Request::Internet { kind: Internet::Send, address };
        self.ask_for_one(request).map(|(_, socket)| socket)
    }

    /// Receives datagrams of tunnels at an address, one of which leads to `remote`, or goes on with
    /// the socket of an earlier switch.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn tunnel_receiver(
        &self,
        local: SocketAddr,
        remote: IpAddr,
    ) -> Result<OpenedSocket, String> {
        let request = Request::Tunnel { end: TunnelSockets::Receive, local, remote };
        let Asked { opened, entry, .. } =
            self.ask_kept(&format!("tunnels/{local}"), request, |_, fds| first(fds))?;
        Ok(OpenedSocket { socket: opened, entry })
    }

    /// Makes the sockets by which a tunnel sends from an address to another one, at least one.
    ///
    /// # Errors
    /// The helper refuses or the kernel does; the text has the remedy.
    pub fn tunnel_senders(
        &self,
        local: SocketAddr,
        remote: IpAddr,
    ) -> Result<Vec<OwnedFd>, String> {
        let request = Request::Tunnel { end: TunnelSockets::Send, local, remote };
        let (reply, fds) = self.ask(request, &[])?;
        if fds.is_empty() { Err(unexpected(&reply)) } else { Ok(fds) }
    }

    /// Returns an address of an interface of the host.
    ///
    /// # Errors
    /// It has none; the text has the remedy.
    pub fn address_of(&self, ifname: &str) -> Result<IpAddr, String> {
        match self.ask(Request::AddressOf { ifname: ifname.to_owned() }, &[])? {
            (Reply::Address(address), _) => Ok(address),
            (reply, _) => Err(unexpected(&reply)),
        }
    }

    fn internet(&self, kind: Internet, address: SocketAddr) -> Result<OpenedSocket, String> {
        let key = format!("internet/{kind:?}/{address}");
        let request = Request::Internet { kind, address };
        let Asked { opened, entry, refused } = self.ask_kept(&key, request, |_, fds| first(fds))?;
        debug_assert!(refused.is_none(), "any socket will do");
        Ok(OpenedSocket { socket: opened, entry })
    }
}

fn first(fds: Vec<OwnedFd>) -> Result<OwnedFd, String> {
    fds.into_iter().next().ok_or_else(|| "there is no socket".to_owned())
}
