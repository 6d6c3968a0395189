//! The listening socket that browsers connect to.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use trama_serve::{Accepted, Listen};

/// The listening socket, as the process was given it.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Listener {
    /// Must be called within a runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Listener> {
        if !socket_acceptconn(&socket)? {
            return Err(io::Error::other("the socket does not listen"));
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        match socket_domain(&socket)? {
            AddressFamily::UNIX => {
                Ok(Listener::Unix(UnixSocket(UnixListener::from_std(socket.into())?)))
            }
            _ => Ok(Listener::Tcp(TcpListener::from_std(socket.into())?)),
        }
    }
}

/// A Unix socket. Its clients are not told apart by user: one that forwards connections stands for
/// several browsers.
pub(crate) struct UnixSocket(UnixListener);

impl Listen for UnixSocket {
    type Stream = UnixStream;
    type Told = ();

    async fn accept(&self) -> io::Result<Accepted<UnixStream, ()>> {
        let (stream, _) = self.0.accept().await?;
        Ok(Accepted { stream, user: None, told: () })
    }
}
