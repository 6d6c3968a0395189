//! One connection, from accept to end.
//!
//! The thread waits on three descriptors: the socket, the session's stop event and the port's
//! fault event. A message that has begun is read to its end; a frontend that stops in the middle
//! holds up nothing but this thread, and shutting the socket down from another thread frees it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut};

use crate::handler::Handler;
use crate::memory_table::REMEDY;
use crate::rings::Rings;
use crate::wire::{self, Header, Waiting};

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The frontend closed it.
    Closed,
    /// The session is to stop.
    Stopped,
    /// Something was wrong; a whole sentence.
    Failed(String),
}

type Shared<R> = Arc<Mutex<Handler<R>>>;

fn lock<R>(handler: &Shared<R>) -> MutexGuard<'_, Handler<R>> {
    handler.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to its end and drops what the frontend brought. `progress` is called
/// after each request.
pub(crate) fn serve<R: Rings>(
    stream: UnixStream,
    handler: &Shared<R>,
    stop: BorrowedFd<'_>,
    mut progress: impl FnMut(&mut Handler<R>),
) -> End {
    let end = match Connection::new(stream, handler) {
        Ok(mut connection) => connection.run(stop, &mut progress),
        Err(error) => End::Failed(format!("no descriptors left for the connection: {error}")),
    };
    lock(handler).forget();
    end
}

struct Connection<'a, R: Rings> {
    stream: UnixStream,
    handler: &'a Shared<R>,
    requests: BackendReqHandler<Mutex<Handler<R>>>,
    /// The port's fault event.
    fault: Option<OwnedFd>,
}

impl<'a, R: Rings> Connection<'a, R> {
    fn new(stream: UnixStream, handler: &'a Shared<R>) -> io::Result<Connection<'a, R>> {
        let requests = BackendReqHandler::from_stream(stream.try_clone()?, handler.clone());
        let fault = lock(handler).rings.fault_event().map(|event| event.try_clone_to_owned());
        Ok(Connection { stream, handler, requests, fault: fault.transpose()? })
    }

    fn run(&mut self, stop: BorrowedFd<'_>, progress: &mut impl FnMut(&mut Handler<R>)) -> End {
        loop {
            match self.wait(stop) {
                Ok(Event::Stop) => return End::Stopped,
                Ok(Event::Fault) => {
                    if let Some(reason) = lock(self.handler).rings.broken() {
                        return End::Failed(reason);
                    }
                }
                Ok(Event::Request) => {
                    if let Some(end) = self.request() {
                        return end;
                    }
                    progress(&mut lock(self.handler));
                }
                Err(error) => return End::Failed(format!("cannot wait for the frontend: {error}")),
            }
        }
    }

    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<Event> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::IN),
        ];
        fds.extend(self.fault.as_ref().map(|event| PollFd::new(event, PollFlags::IN)));
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !fds[0].revents().is_empty() {
            return Ok(Event::Stop);
        }
        if let Some(event) = &self.fault
            && !fds[2].revents().is_empty()
        {
            rustix::io::read(event, &mut [0; 8])?;
            return Ok(Event::Fault);
        }
        Ok(Event::Request)
    }

    /// Serves the request that waits; `Some`: it was the last.
    fn request(&mut self) -> Option<End> {
        let header = match wire::peek(&self.stream) {
            Ok(Waiting::Message(header)) => Some(header),
            Ok(Waiting::Part) => None,
            Ok(Waiting::End) => return Some(End::Closed),
            Err(error) => return Some(lost(&error)),
        };
        let served = header.and_then(|header| self.serve_here(header));
        match served.unwrap_or_else(|| self.requests.handle_request()) {
            Ok(()) => {
                if let Some(header) = header {
                    tracing::trace!(request = header.describe(), "served");
                }
                None
            }
            Err(error) => Some(explain(header, error)),
        }
    }

    /// Serves the two requests that the crate does not; `None`: it is another.
    fn serve_here(&mut self, header: Header) -> Option<Result<(), Error>> {
        let enable = FrontendReq::SET_VRING_ENABLE;
        let mtu = FrontendReq::NET_SET_MTU;
        if header.is_word(enable) && lock(self.handler).acknowledged.is_none() {
            Some(self.enable_early(header))
        } else if header.is_word(mtu) {
            Some(self.set_mtu(header))
        } else {
            None
        }
    }

    fn enable_early(&mut self, header: Header) -> Result<(), Error> {
        let body = wire::take_word(&self.stream).map_err(Error::SocketError)?;
        let [i0, i1, i2, i3, n0, n1, n2, n3] = body;
        let index = u32::from_ne_bytes([i0, i1, i2, i3]);
        let enable = match u32::from_ne_bytes([n0, n1, n2, n3]) {
            0 => false,
            1 => true,
            _ => return Err(Error::InvalidParam),
        };
        let result = lock(self.handler).set_vring_enable(index, enable);
        self.answer(header, FrontendReq::SET_VRING_ENABLE, result.is_ok())?;
        result
    }

    fn set_mtu(&mut self, header: Header) -> Result<(), Error> {
        let body = wire::take_word(&self.stream).map_err(Error::SocketError)?;
        let accepted = lock(self.handler).accept_mtu(u64::from_ne_bytes(body))?;
        self.answer(header, FrontendReq::NET_SET_MTU, accepted)
    }

    fn answer(&self, header: Header, request: FrontendReq, ok: bool) -> Result<(), Error> {
        if header.needs_reply() && lock(self.handler).answers() {
            wire::answer(&self.stream, request, ok).map_err(Error::SocketError)?;
        }
        Ok(())
    }
}

const PARTIAL: &str = "the frontend stopped in the middle of it";

enum Event {
    Stop,
    Fault,
    Request,
}

fn lost(error: &io::Error) -> End {
    match error.kind() {
        // The frontend went away without reading our last answer.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Closed,
        io::ErrorKind::UnexpectedEof => End::Failed(PARTIAL.into()),
        _ => End::Failed(format!("the connection broke: {error}")),
    }
}

fn explain(header: Option<Header>, error: Error) -> End {
    let what = header.map_or_else(|| "a message".to_owned(), |header| header.describe());
    let why = match error {
        Error::Disconnected => return End::Closed,
        Error::SocketBroken(error) | Error::SocketError(error) => match lost(&error) {
            End::Failed(reason) => reason,
            end => return end,
        },
        Error::ReqHandlerError(error) => error.to_string(),
        Error::PartialMessage => PARTIAL.into(),
        Error::SocketRetry(_) => "it came with too many descriptors, or at the wrong place".into(),
        // What the crate says when regions came without their descriptors.
        Error::InvalidMessage | Error::InvalidParam
            if header.is_some_and(|h| h.brings_memory()) =>
        {
            format!("it is malformed, or some memory came without a descriptor; {REMEDY}")
        }
        Error::InvalidMessage => "it is malformed or out of order".into(),
        other => other.to_string(),
    };
    End::Failed(format!("{what}: {why}"))
}
