//! The host's socket as the far end of a flow.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::Interest;
use mio::event::Event;
use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use super::connection::Connection;
use super::read_pause::ReadPause;
use super::turn::{Limits, Moved};
use crate::context::{Context, TokenKind};

/// Reads from the host's socket in one turn.
const READS: usize = 4;
/// Shorter reads are copied out of the read buffer.
const MIN_OWN_BUFFER: usize = 16 << 10;
/// Events reported for a flow's socket, edge-triggered.
const EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The host's socket of a flow.
pub(super) struct HostEnd {
    /// `None` until the flow's first turn, and from TIME-WAIT on.
    pub stream: Option<TcpStream>,
    pub readable: bool,
    writable: bool,
    pause: ReadPause,
    /// Whether the poll reports that the socket is readable.
    read_interest: bool,
    /// The host was told that the guest has closed.
    is_shut_down: bool,
}

impl HostEnd {
    pub(super) fn new(stream: Option<TcpStream>) -> HostEnd {
        HostEnd {
            stream,
            readable: false,
            writable: false,
            pause: ReadPause::default(),
            read_interest: true,
            is_shut_down: false,
        }
    }

    /// Registers the events of the socket.
    pub(super) fn register(&mut self, number: u32, context: &Context<'_>) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        context.registry.register(stream, TokenKind::Tcp.token(number), EVENTS)
    }

    /// Asks for events of a readable socket, except while reading is paused.
    pub(super) fn update_read_interest(&mut self, number: u32, context: &Context<'_>) {
        let wanted = self.paused_until().is_none();
        let Some(stream) = self.stream.as_mut().filter(|_| self.read_interest != wanted) else {
            return;
        };
        let interest = if wanted { EVENTS } else { Interest::WRITABLE };
        // On failure, events come as before and the next turn tries again.
        if context.registry.reregister(stream, TokenKind::Tcp.token(number), interest).is_ok() {
            self.read_interest = wanted;
        }
    }

    /// Notes an event. The next read or write returns an error that it reports.
    pub(super) fn ready(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// The guest has sent data, which the host may answer.
    pub(super) fn guest_sent(&mut self) {
        self.pause.cancel();
    }

    /// Until when reading is paused.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        self.pause.paused_until()
    }

    /// Writes to the host what the guest has sent, then reads what the host has.
    pub(super) fn exchange(
        &mut self,
        now: Duration,
        connection: &mut Connection,
        limits: &Limits,
        read_buffer: &mut Vec<u8>,
    ) -> Moved {
        let sent = self.write_all(connection);
        if limits.may_buffer_more {
            connection.autotune();
        }
        // Looked up now: data that is still charged to the port may have been acknowledged since
        // the last turn, and then no other event would bring the next one.
        let may_read = limits.may_buffer_more || connection.buffered() == 0;
        // While reading is paused, no event reports that the socket is readable.
        let pause_is_over =
            !self.read_interest && self.paused_until().is_none_or(|until| until <= now);
        self.readable = pause_is_over || (self.read_interest && self.readable);
        let mut received = 0;
        let has_more = may_read && self.read(connection, limits.large, read_buffer, &mut received);
        if received > 0 || pause_is_over {
            self.pause.record_read(now, received);
        }
        Moved { sent, received: received as u64, has_more }
    }

    /// Passes buffered data to the host, and the guest's FIN after it. Returns the bytes taken.
    fn write_all(&mut self, connection: &mut Connection) -> u64 {
        let (mut sent, mut failed) = (0, false);
        if self.writable {
            connection.drain(&mut |bytes| {
                let count = self.write(bytes).unwrap_or_else(|_| {
                    failed = true;
                    0
                });
                sent += count as u64;
                count
            });
        }
        let has_ended = connection.is_eof_delivered() && !connection.state().is_over();
        if has_ended && !self.is_shut_down {
            self.is_shut_down = true;
            let stream = self.stream.as_ref();
            failed |= stream.is_some_and(|stream| stream.shutdown(Shutdown::Write).is_err());
        }
        if failed {
            connection.abort();
        }
        sent
    }

    /// Writes to the socket. Returns how many bytes it took.
    ///
    /// # Errors
    ///
    /// The socket failed, and the flow cannot go on.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Ok(bytes.len()) };
        if !self.writable {
            return Ok(0);
        }
        stream.write(bytes).or_else(|error| {
            self.writable = false;
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            }
        })
    }

    /// Reads from the socket, and adds the bytes to `received`. Returns whether there may be more.
    fn read(
        &mut self,
        connection: &mut Connection,
        large: usize,
        read_buffer: &mut Vec<u8>,
        received: &mut usize,
    ) -> bool {
        let Some(stream) = &self.stream else { return false };
        for _ in 0..READS {
            // A connection that we have closed has no room.
            if !self.readable || connection.room() < large {
                return false;
            }
            read_buffer.clear();
            read_buffer.reserve_exact(large);
            match recv(stream, spare_capacity(read_buffer), RecvFlags::empty()) {
                Ok((0, _)) => {
                    connection.close();
                    return false;
                }
                Ok((count, _)) => {
                    *received += count;
                    let is_large = count >= MIN_OWN_BUFFER;
                    connection.push(if is_large {
                        std::mem::take(read_buffer)
                    } else {
                        read_buffer.clone()
                    });
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                // spec: rfc9293 SHLD-3
                Err(_) => {
                    connection.abort();
                    return false;
                }
            }
        }
        self.readable
    }

    /// Closes the socket with a reset.
    pub(super) fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            // spec: rfc9293 MUST-12
            // On failure, the socket is closed in order.
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}
