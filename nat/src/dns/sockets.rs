//! A socket for each question on its way: the system picks its port, at random, and connected as
//! it is it takes what the server asked sends and nothing else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use super::forwarder::Upstream;
use super::stream::{framed, take_message};

/// Longest message that can come.
const MAX_MESSAGE: usize = 65_535;

/// The sockets by slot. Slot n has token `first` + n.
pub(crate) struct Sockets {
    first: usize,
    sockets: Vec<Option<Socket>>,
    room: Vec<u8>,
}

enum Socket {
    Datagrams(UdpSocket),
    Stream(Exchange),
}

/// A question and its answer over TCP (RFC 1035, 4.2.2).
struct Exchange {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Sockets {
    pub fn new(first: usize) -> Sockets {
        Sockets { first, sockets: Vec::new(), room: vec![0; MAX_MESSAGE] }
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
            Upstream::Ask { slot, server, message, by_stream } => {
                self.close(slot);
                let token = Token(self.first + slot);
                let socket = match by_stream {
                    true => Exchange::begin(registry, token, server, &message).map(Socket::Stream),
                    false => datagrams(registry, token, server, &message).map(Socket::Datagrams),
                };
                if self.sockets.len() <= slot {
                    self.sockets.resize_with(slot + 1, || None);
                }
                self.sockets[slot] = Some(socket.map_err(|_| slot)?);
                Ok(())
            }
        }
    }

    /// Closes a socket, which also ends its registration.
    fn close(&mut self, slot: usize) {
        if let Some(socket) = self.sockets.get_mut(slot) {
            *socket = None;
        }
    }

    /// The next message for a slot; `Err`: its server cannot be reached.
    pub fn receive(&mut self, slot: usize) -> Result<Option<&[u8]>, ()> {
        let Some(Some(socket)) = self.sockets.get_mut(slot) else { return Ok(None) };
        let result = match socket {
            Socket::Datagrams(socket) => socket.recv(&mut self.room),
            Socket::Stream(exchange) => exchange.go_on(&mut self.room),
        };
        match result {
            Ok(length) => Ok(Some(&self.room[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(()),
        }
    }
}

fn datagrams(
    registry: &Registry,
    token: Token,
    server: SocketAddr,
    message: &[u8],
) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let mut socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    socket.send(message)?;
    Ok(socket)
}

impl Exchange {
    fn begin(
        registry: &Registry,
        token: Token,
        server: SocketAddr,
        message: &[u8],
    ) -> io::Result<Exchange> {
        let mut stream = TcpStream::connect(server)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Exchange { stream, output: framed(message), input: Vec::new() })
    }

    /// Sends what is left of the question, and reads a message into `room`; its length. Until there
    /// is one it would block.
    fn go_on(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while !self.output.is_empty() {
            let sent = self.stream.write(&self.output)?;
            self.output.drain(..sent);
        }
        loop {
            if let Some(message) = take_message(&mut self.input) {
                room[..message.len()].copy_from_slice(&message);
                return Ok(message.len());
            }
            match self.stream.read(room)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => self.input.extend_from_slice(&room[..length]),
            }
        }
    }
}
