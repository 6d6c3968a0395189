//! One connection, from accept to end.
//!
//! The thread waits for the socket, the session's stop event, the port's fault event, at first for
//! a ring's kicks, and for other frontends that connect. It reads a message to its end once it has
//! begun. A frontend that stops in the middle of a message blocks only this thread; another thread
//! frees it by shutting the socket down.

mod direct;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::descriptors;
use crate::handler::Handler;
use crate::memory_table::REMEDY;
use crate::peer::Peer;
use crate::rings::Rings;
use crate::waiting::Waiting;
use crate::wire::{self, Header, Message};

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The frontend closed it.
    Closed,
    /// The session stops.
    Stopped,
    /// An error; a whole sentence.
    Failed(String),
}

/// A report to the session while the connection goes on.
pub(crate) enum Report {
    /// A request was served.
    Progress,
    /// A problem for the operator to look at, although the connection goes on; a whole sentence.
    Warning(String),
    /// A line for the log only.
    Note(String),
    /// Another frontend has connected, or a waiting one has disconnected.
    Waiting {
        /// The one that has connected.
        newcomer: Option<Peer>,
        /// All that wait now, the next one first.
        all: Vec<Peer>,
    },
}

type Shared<R> = Arc<Mutex<Handler<R>>>;

fn lock<R>(handler: &Shared<R>) -> MutexGuard<'_, Handler<R>> {
    handler.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to its end and releases the frontend's memory and descriptors. `replayed`
/// is the number of requests that come first because an earlier process has served them; `None` for
/// a new connection. Calls `report` for each event. Frontends that connect meanwhile are accepted
/// and wait.
pub(crate) fn serve<R: Rings>(
    stream: UnixStream,
    replayed: Option<usize>,
    handler: &Shared<R>,
    stop: BorrowedFd<'_>,
    waiting: &mut Waiting<'_>,
    mut report: impl FnMut(&mut Handler<R>, Report),
) -> End {
    lock(handler).resumed = replayed.is_some();
    let end = match Connection::new(stream, replayed, handler) {
        Ok(mut connection) => connection.run(stop, waiting, &mut report),
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
    /// Pending reports.
    reports: Vec<Report>,
    /// Bit set of the requests whose refusal was reported, by number; those above 63 share a bit.
    refused: u64,
    /// Requests still to come that an earlier process has served.
    to_replay: usize,
    /// Whether the `vhost` crate acknowledges requests if the frontend wants it.
    crate_acknowledges: bool,
}

impl<'a, R: Rings> Connection<'a, R> {
    fn new(
        stream: UnixStream,
        replayed: Option<usize>,
        handler: &'a Shared<R>,
    ) -> io::Result<Connection<'a, R>> {
        let requests = BackendReqHandler::from_stream(stream.try_clone()?, handler.clone());
        let fault = lock(handler).rings.fault_event().map(|event| event.try_clone_to_owned());
        let (fault, reports) = (fault.transpose()?, Vec::new());
        Ok(Connection {
            stream,
            handler,
            requests,
            fault,
            reports,
            refused: 0,
            to_replay: replayed.unwrap_or(0),
            crate_acknowledges: replayed.is_none(),
        })
    }

    fn run(
        &mut self,
        stop: BorrowedFd<'_>,
        waiting: &mut Waiting<'_>,
        report: &mut impl FnMut(&mut Handler<R>, Report),
    ) -> End {
        loop {
            let event = match self.wait(stop, waiting) {
                Ok(event) => event,
                Err(error) => return End::Failed(format!("cannot wait for the frontend: {error}")),
            };
            if event == Event::Request {
                self.wait_for_pace();
            }
            lock(self.handler).rings.working(true);
            let end = self.handle(event, waiting);
            lock(self.handler).rings.working(false);
            if let Some(end) = end {
                return end;
            }
            for event in self.reports.drain(..) {
                report(&mut lock(self.handler), event);
            }
        }
    }

    /// Waits for the next event.
    fn wait(&self, stop: BorrowedFd<'_>, waiting: &Waiting<'_>) -> io::Result<Event> {
        let handler = lock(self.handler);
        let mut events = vec![Event::Stop, Event::Request];
        let mut fds = vec![
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::IN),
        ];
        let others = [
            (self.fault.as_ref().map(AsFd::as_fd), Event::Fault),
            (handler.first_kick(), Event::Kick),
        ];
        for (fd, event) in others {
            if let Some(fd) = fd {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                events.push(event);
            }
        }
        waiting.watch(&mut fds);
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ready = |event: Event| {
            let at = events.iter().position(|other| *other == event);
            at.is_some_and(|at| !fds[at].revents().is_empty())
        };
        // A request may close the connection, so the other events come first.
        let order = [Event::Stop, Event::Fault, Event::Kick, Event::Request];
        Ok(order.into_iter().find(|event| ready(*event)).unwrap_or(Event::Waiting))
    }

    /// Waits until the frontend may have another request served. What an earlier process has
    /// served is not counted again.
    fn wait_for_pace(&self) {
        if self.to_replay == 0 {
            let wait = lock(self.handler).pace.take(Instant::now());
            std::thread::sleep(wait);
        }
    }

    /// Returns `Some` if the connection has ended.
    fn handle(&mut self, event: Event, waiting: &mut Waiting<'_>) -> Option<End> {
        match event {
            Event::Stop => return Some(End::Stopped),
            Event::Fault => {
                if let Some(event) = &self.fault {
                    // Fails if it was read already.
                    let _ = rustix::io::read(event, &mut [0; 8]);
                }
                return lock(self.handler).broken().map(End::Failed);
            }
            Event::Kick => {
                let warning = lock(self.handler).kicked().err();
                self.reports.extend(warning.map(Report::Warning));
            }
            Event::Request => {
                let end = self.request();
                self.reports.push(Report::Progress);
                return end;
            }
            Event::Waiting => self.accept_waiting(waiting),
        }
        None
    }

    fn accept_waiting(&mut self, waiting: &mut Waiting<'_>) {
        let newcomer = waiting.accept().unwrap_or_else(|error| {
            waiting.pause();
            self.reports.push(Report::Note(format!("cannot let another frontend wait: {error}")));
            None
        });
        waiting.keep();
        self.reports.push(Report::Waiting { newcomer, all: waiting.peers() });
    }

    /// Serves the pending request; returns `Some` if it was the last.
    fn request(&mut self) -> Option<End> {
        let header = match wire::peek(&self.stream) {
            Ok(Message::Whole(header)) => Some(header),
            Ok(Message::Part) => None,
            Ok(Message::End) => return Some(End::Closed),
            Err(error) => return Some(lost(&error)),
        };
        let served = header.and_then(|header| self.serve_directly(header));
        match served.unwrap_or_else(|| self.serve_by_crate(header)) {
            Ok(()) => {
                if let Some(header) = header {
                    tracing::trace!(request = header.describe(), "served");
                }
                self.count_replayed().err().map(|reason| End::Failed(reason.to_owned()))
            }
            Err(error) => Some(explain(header, error)),
        }
    }

    /// Lets the `vhost` crate serve a request. It acknowledges none before it was asked for the
    /// features, but here an earlier process may have been asked.
    fn serve_by_crate(&mut self, header: Option<Header>) -> Result<(), Error> {
        let result = self.requests.handle_request();
        let Some(header) = header.filter(|_| !self.crate_acknowledges) else { return result };
        match header.request() {
            Ok(FrontendReq::GET_FEATURES) => self.crate_acknowledges = true,
            Ok(
                FrontendReq::GET_PROTOCOL_FEATURES
                | FrontendReq::GET_VRING_BASE
                | FrontendReq::SET_LOG_BASE,
            ) => {}
            _ => self.acknowledge(header, result.is_ok())?,
        }
        result
    }

    fn count_replayed(&mut self) -> Result<(), &'static str> {
        if self.to_replay > 0 {
            self.to_replay -= 1;
            if self.to_replay == 0 {
                return lock(self.handler).replayed();
            }
        }
        Ok(())
    }
}

const PARTIAL: &str = "the frontend stopped in the middle of the message";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Stop,
    Fault,
    Kick,
    Request,
    Waiting,
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
    // The kernel leaves out the descriptors of a message for which it has no numbers.
    let is_malformed = matches!(
        error,
        Error::InvalidMessage | Error::InvalidParam | Error::PartialMessage | Error::SocketRetry(_)
    );
    if is_malformed && let Err(refused) = descriptors::check_next() {
        return End::Failed(format!("{what}: {refused}"));
    }
    let why = match error {
        Error::Disconnected => return End::Closed,
        Error::SocketBroken(error) | Error::SocketError(error) => match lost(&error) {
            End::Failed(reason) => reason,
            end => return end,
        },
        Error::ReqHandlerError(error) => error.to_string(),
        Error::PartialMessage => PARTIAL.into(),
        Error::SocketRetry(_) => "it has too many descriptors, or misplaced ones".into(),
        // The crate's error for regions without their descriptors.
        Error::InvalidMessage | Error::InvalidParam
            if header.is_some_and(|h| h.brings_memory()) =>
        {
            format!("it is malformed, or a memory region has no descriptor; {REMEDY}")
        }
        Error::InvalidMessage => "it is malformed or out of order".into(),
        Error::InactiveOperation(feature) => {
            format!("the VMM has not acknowledged its protocol feature, {feature:?}")
        }
        other => other.to_string(),
    };
    End::Failed(format!("{what}: {why}"))
}
