//! One socket for each query to a server. The kernel picks its port at random; since it is
//! connected, it only receives from that server.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::RandomState;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use trama_nat::dns::framing::{framed, take_message};

use crate::io::Upstream;

/// Longest message.
const MAX_MESSAGE: usize = 65_535;

/// The sockets by slot. Slot n has token `first` + n.
pub(crate) struct Sockets {
    first: usize,
    sockets: HashMap<usize, Socket, RandomState>,
    room: Vec<u8>,
}

enum Socket {
    Datagrams(UdpSocket),
    Stream(Exchange),
}

/// A query and its answer over TCP (RFC 1035, 4.2.2).
struct Exchange {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Sockets {
    pub(crate) fn new(first: usize) -> Sockets {
        Sockets { first, sockets: HashMap::default(), room: vec![0; MAX_MESSAGE] }
    }

    /// The slot of an event.
    pub(crate) fn slot(&self, token: Token) -> Option<usize> {
        token.0.checked_sub(self.first)
    }

    /// Does what the forwarder requests. An error concerns the server of a slot.
    pub(crate) fn execute(
        &mut self,
        registry: &Registry,
        wanted: Upstream,
    ) -> Result<(), (usize, io::Error)> {
        match wanted {
            // Closing also removes the registration.
            Upstream::Close { slot } => drop(self.sockets.remove(&slot)),
            Upstream::Ask { slot, server, message, over_tcp } => {
                let token = Token(self.first + slot);
                let asked = match self.sockets.get(&slot) {
                    Some(Socket::Datagrams(socket)) => socket.send(&message).map(drop),
                    Some(Socket::Stream(_)) => Ok(()),
                    None => open(registry, token, (server, over_tcp), &message)
                        .map(|socket| drop(self.sockets.insert(slot, socket))),
                };
                asked.map_err(|error| (slot, error))?;
            }
        }
        Ok(())
    }

    /// The next message for a slot; `Err` if its server cannot be reached.
    pub(crate) fn receive(&mut self, slot: usize) -> Result<Option<&[u8]>, ()> {
        let Some(socket) = self.sockets.get_mut(&slot) else { return Ok(None) };
        let result = match socket {
            Socket::Datagrams(socket) => socket.recv(&mut self.room),
            Socket::Stream(exchange) => exchange.progress(&mut self.room),
        };
        match result {
            Ok(length) => Ok(Some(&self.room[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(()),
        }
    }
}

/// Opens a socket to a server and sends a query.
fn open(
    registry: &Registry,
    token: Token,
    (server, over_tcp): (SocketAddr, bool),
    message: &[u8],
) -> io::Result<Socket> {
    Ok(match over_tcp {
        true => Socket::Stream(Exchange::begin(registry, token, server, message)?),
        false => Socket::Datagrams(datagrams(registry, token, server, message)?),
    })
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

    /// Sends the rest of the query, then reads a message into `room` and returns its length. Fails
    /// with `WouldBlock` until the message is complete.
    fn progress(&mut self, room: &mut [u8]) -> io::Result<usize> {
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
