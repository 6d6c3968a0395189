//! A socket for each question on its way: the system picks its port, at random, and connected as
//! it is it takes datagrams from the server asked and from nobody else.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::forwarder::Upstream;

/// Longest datagram that can come.
const MAX_DATAGRAM: usize = 65_535;

/// The sockets by slot. Slot n has token `first` + n.
pub(crate) struct Sockets {
    first: usize,
    sockets: Vec<Option<UdpSocket>>,
    room: Vec<u8>,
}

impl Sockets {
    pub fn new(first: usize) -> Sockets {
        Sockets { first, sockets: Vec::new(), room: vec![0; MAX_DATAGRAM] }
    }

    /// The slot that an event is about.
    pub fn slot(&self, token: Token) -> Option<usize> {
        token.0.checked_sub(self.first)
    }

    /// Does what the forwarder wants done. An error is about the slot's server.
    pub fn carry_out(&mut self, registry: &Registry, wanted: Upstream) -> Result<(), usize> {
        match wanted {
            Upstream::Close { slot } => {
                self.close(slot);
                Ok(())
            }
            Upstream::Ask { slot, server, message } => {
                self.close(slot);
                let socket = self.ask(registry, slot, server, &message).map_err(|_| slot)?;
                if self.sockets.len() <= slot {
                    self.sockets.resize_with(slot + 1, || None);
                }
                self.sockets[slot] = Some(socket);
                Ok(())
            }
        }
    }

    fn ask(
        &self,
        registry: &Registry,
        slot: usize,
        server: SocketAddr,
        message: &[u8],
    ) -> io::Result<UdpSocket> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        registry.register(&mut socket, Token(self.first + slot), Interest::READABLE)?;
        socket.send(message)?;
        Ok(socket)
    }

    /// Closes a socket, which also ends its registration.
    fn close(&mut self, slot: usize) {
        if let Some(socket) = self.sockets.get_mut(slot) {
            *socket = None;
        }
    }

    /// The next datagram for a slot; `Err`: its server cannot be reached.
    pub fn receive(&mut self, slot: usize) -> Result<Option<&[u8]>, ()> {
        let Some(Some(socket)) = self.sockets.get(slot) else { return Ok(None) };
        match socket.recv(&mut self.room) {
            Ok(length) => Ok(Some(&self.room[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(()),
        }
    }
}
