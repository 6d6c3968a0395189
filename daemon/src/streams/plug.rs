//! One stream port: its listening socket or its tries to connect, and its connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_socket_send_buffer_size, set_tcp_keepcnt, set_tcp_keepidle,
    set_tcp_keepintvl, set_tcp_nodelay, socket_error,
};
use rustix::net::{SocketFlags, acceptfrom_with, getpeername};
use trama_helper::{Entry, Rights};
use trama_switch::{Engine, EngineError, PortId, StreamEnd, StreamLink};
use trama_vhost_net::PortPlace;
use trama_vhost_net_backend::{Access, Listening, Peer, SocketFile, Sockets, log_limit};

use super::Socket;
use super::arrival::{Arrival, Ticket};
use super::thread::Wait;
use crate::config::model::Role;
use crate::config::model::wire::{Place, Stream};
use crate::events::Events;
use crate::socket_status::SocketStatus;

/// Time from one try to connect to the next, and from an error of accept(2).
const RETRY: Duration = Duration::from_secs(1);
/// How long TCP may take to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// A TCP peer that vanished is noticed after about 25 seconds.
const KEEP_IDLE: Duration = Duration::from_secs(10);
const KEEP_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_PROBES: u32 = 3;
/// Bytes that a connection may have under way, as far as the host allows.
const SEND_BUFFER: usize = 4 << 20;
/// Most connections that are accepted in a row.
const ACCEPTS: usize = 16;

/// A stream port as the thread has it.
pub(super) struct Plug {
    location: Place,
    worker: PortPlace,
    port: PortId,
    events: Arc<Events>,
    end: End,
    connected: Option<Connected>,
    connects: u64,
    last_error: Option<String>,
    /// How many connections there may be.
    most: u16,
    /// How many further ones there are, and those that have no port yet.
    further: Arc<AtomicU16>,
    arrivals: Vec<Arrival>,
}

/// How connections come.
enum End {
    Listens {
        socket: Arc<OwnedFd>,
        /// The file of a Unix socket, and the keeper's entry of any other.
        file: Option<Arc<dyn SocketFile>>,
        /// After an error it rests until then: a connection that cannot be accepted stays ready.
        rests_until: Option<Instant>,
        _entry: Option<Entry>,
    },
    Connects {
        rights: Rights,
        attempt: Attempt,
    },
    /// It has one, given at its start, and ends with that.
    Given {
        _ticket: Option<Ticket>,
    },
}

enum Attempt {
    /// None is needed, or one is not due before this time.
    At(Instant),
    /// It is under way until this time at most.
    Runs(Arc<OwnedFd>, Instant),
}

/// A connection that the worker has.
struct Connected {
    peer: String,
    /// The same connection, to see whether the peer has hung up.
    socket: OwnedFd,
}

impl Plug {
    fn new(location: Place, socket: Socket, end: End) -> Plug {
        let Socket { worker, port, events } = socket;
        Plug {
            location,
            worker,
            port,
            events,
            end,
            connected: None,
            connects: 0,
            last_error: None,
            most: 1,
            further: Arc::default(),
            arrivals: Vec::new(),
        }
    }

    /// Makes one of a connection, a further one of a port or one that was handed over.
    ///
    /// # Errors
    /// The worker does not take it.
    pub(super) fn given(
        name: &str,
        location: Place,
        socket: Socket,
        connection: OwnedFd,
        ticket: Option<Ticket>,
    ) -> Result<Plug, String> {
        let mut plug = Plug::new(location, socket, End::Given { _ticket: ticket });
        plug.connect(name, &Arc::new(connection));
        match (&plug.connected, &plug.last_error) {
            (None, Some(error)) => Err(error.clone()),
            _ => Ok(plug),
        }
    }

    /// Returns whether it has ended with its connection.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, End::Given { .. }) && self.connected.is_none()
    }

    pub(super) fn set_connections(&mut self, most: u16) {
        self.most = most;
    }

    /// Returns the further connections that came since the last call.
    pub(super) fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }

    pub(super) fn open(
        name: &str,
        device: &Stream,
        socket: Socket,
        (access, rights): (&Access, &Rights),
    ) -> Result<Plug, String> {
        let end = match (&device.place, device.role) {
            (_, Role::Client) => {
                End::Connects { rights: rights.clone(), attempt: Attempt::At(Instant::now()) }
            }
            (Place::Path(path), Role::Server) => {
                let made = rights.listen(path, access).map_err(|error| error.to_string())?;
                let Listening { listener, file, note } = made;
                if let Some(note) = note {
                    tracing::info!("port {name}: {}: {note}", path.display());
                }
                let (socket, file) = (Arc::new(listener.into()), Some(file));
                End::Listens { socket, file, rests_until: None, _entry: None }
            }
            (Place::Address(address), Role::Server) => {
                let made = rights.listen_tcp(*address)?;
                let (socket, _entry) = (Arc::new(made.socket), made.entry);
                End::Listens { socket, file: None, rests_until: None, _entry }
            }
        };
        Ok(Plug { most: device.connections, ..Plug::new(device.place.clone(), socket, end) })
    }

    pub(super) fn set_access(&self, access: &Access) -> Result<(), String> {
        match &self.end {
            End::Listens { file: Some(file), .. } => {
                file.set_access(access).map_err(|error| format!("{}: {error}", self.location))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn status(&self) -> SocketStatus {
        let state = match (&self.connected, &self.end) {
            (Some(_), _) => "connected",
            (None, End::Listens { .. }) => "listening",
            (None, End::Connects { .. }) => "connecting",
            (None, End::Given { .. }) => "ended",
        };
        SocketStatus {
            location: self.location.to_string(),
            state,
            peer: self.connected.as_ref().map(|it| it.peer.clone()),
            connects: Some(self.connects),
            last_error: self.last_error.clone(),
        }
    }

    /// Returns the socket that it waits for.
    pub(super) fn wait(&self) -> Option<Wait> {
        match &self.end {
            End::Listens { socket, rests_until: None, .. } => {
                Some(Wait { socket: socket.clone(), flags: PollFlags::IN })
            }
            End::Connects { attempt: Attempt::Runs(socket, _), .. } => {
                Some(Wait { socket: socket.clone(), flags: PollFlags::OUT })
            }
            End::Listens { .. } | End::Connects { .. } | End::Given { .. } => None,
        }
    }

    /// Returns when its next try is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.end {
            End::Connects { attempt: Attempt::At(due), .. } => {
                self.connected.is_none().then_some(*due)
            }
            End::Connects { attempt: Attempt::Runs(_, until), .. } => Some(*until),
            End::Listens { rests_until, .. } => *rests_until,
            End::Given { .. } => None,
        }
    }

    /// Takes what is ready, and does what is due.
    pub(super) fn advance(&mut self, name: &str, is_ready: bool, now: Instant) {
        match &mut self.end {
            End::Listens { .. } if is_ready => self.accept(name, now),
            End::Listens { rests_until, .. } => {
                // What waits meanwhile makes it ready again.
                *rests_until = rests_until.filter(|until| *until > now);
            }
            End::Given { .. } => {}
            End::Connects { attempt: Attempt::Runs(socket, _), .. } if is_ready => {
                let outcome = socket_error(&**socket).and_then(|error| error);
                let socket = socket.clone();
                self.end_attempt(now);
                match outcome.and_then(|()| getpeername(&*socket)) {
                    Ok(_) => self.connect(name, &socket),
                    Err(error) => self.fail(name, format!("cannot connect: {error}")),
                }
            }
            End::Connects { attempt: Attempt::Runs(_, until), .. } if *until <= now => {
                self.end_attempt(now);
                self.fail(name, "cannot connect: no answer".to_owned());
            }
            End::Connects { rights, attempt } => {
                let is_due = matches!(attempt, Attempt::At(due) if *due <= now);
                if self.connected.is_some() || !is_due {
                    return;
                }
                let begun = match &self.location {
                    Place::Path(path) => rights.connect(path).map(OwnedFd::from),
                    Place::Address(address) => rights.connect_tcp(*address),
                };
                match (begun, &self.location) {
                    (Ok(socket), Place::Address(_)) => {
                        *attempt = Attempt::Runs(Arc::new(socket), now + PATIENCE);
                    }
                    (Ok(socket), Place::Path(_)) => {
                        self.end_attempt(now);
                        self.connect(name, &Arc::new(socket));
                    }
                    (Err(reason), _) => {
                        self.end_attempt(now);
                        self.fail(name, reason);
                    }
                }
            }
        }
    }

    fn end_attempt(&mut self, now: Instant) {
        if let End::Connects { attempt, .. } = &mut self.end {
            *attempt = Attempt::At(now + RETRY);
        }
    }

    fn accept(&mut self, name: &str, now: Instant) {
        let End::Listens { socket: listener, .. } = &self.end else { return };
        let listener = listener.clone();
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match acceptfrom_with(&*listener, flags) {
                Ok((socket, _)) => self.take(name, socket),
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    self.fail(name, format!("cannot accept: {error}"));
                    if let End::Listens { rests_until, .. } = &mut self.end {
                        *rests_until = Some(now + RETRY);
                    }
                    break;
                }
            }
        }
    }

    /// Takes a connection, unless there are enough.
    fn take(&mut self, name: &str, socket: OwnedFd) {
        if self.connected.as_ref().is_some_and(|it| has_hung_up(&it.socket)) {
            // The worker has not said so yet.
            self.disconnect(name, &StreamEnd::Closed.to_string());
        }
        let Some(Connected { peer: first, .. }) = &self.connected else {
            return self.connect(name, &Arc::new(socket));
        };
        let peer = peer_of(&socket);
        match Ticket::take(&self.further, self.most.saturating_sub(1)) {
            Some(ticket) => {
                let port = name.to_owned();
                self.arrivals.push(Arrival { port, socket, peer, ticket });
            }
            None if self.most == 1 => {
                let rest = format!("as {first} is connected; raise connections to admit more");
                self.fail(name, format!("{peer} was turned away, {rest}"));
            }
            None => {
                let rest = format!("as {} are connected; raise connections", self.most);
                self.fail(name, format!("{peer} was turned away, {rest}"));
            }
        }
    }

    /// Gives a connection to the worker.
    fn connect(&mut self, name: &str, socket: &Arc<OwnedFd>) {
        if let Place::Address(_) = self.location {
            // Without them the connection works, too.
            let _ = set_tcp_nodelay(&**socket, true);
            let _ = set_socket_keepalive(&**socket, true);
            let _ = set_tcp_keepidle(&**socket, KEEP_IDLE);
            let _ = set_tcp_keepintvl(&**socket, KEEP_INTERVAL);
            let _ = set_tcp_keepcnt(&**socket, KEEP_PROBES);
        }
        let _ = set_socket_send_buffer_size(&**socket, SEND_BUFFER);
        let peer = peer_of(socket);
        let copies = socket.try_clone().and_then(|one| Ok((one, socket.try_clone()?)));
        let (ours, theirs) = match copies {
            Ok(copies) => copies,
            Err(error) => return self.fail(name, error.to_string()),
        };
        let (port, link) = (self.port, StreamLink::new(theirs));
        match self.on_worker(move |engine| engine.connect_stream(port, link)) {
            Ok(before) => {
                drop(before);
                tracing::info!("port {name}: {peer} is connected");
                self.events.link_of(port, "connected", &peer);
                self.connects += 1;
                self.connected = Some(Connected { peer, socket: ours });
            }
            Err(reason) => self.fail(name, reason),
        }
    }

    /// Takes the connection away if it has ended.
    pub(super) fn take_end(&mut self, name: &str) {
        if self.connected.is_none() {
            return;
        }
        let port = self.port;
        match self.on_worker(move |engine| Ok(engine.stream_end(port))) {
            Ok(Some(end)) => self.disconnect(name, &end.to_string()),
            Ok(None) => {}
            Err(reason) => self.fail(name, reason),
        }
    }

    fn disconnect(&mut self, name: &str, reason: &str) {
        let Some(Connected { peer, .. }) = self.connected.take() else { return };
        self.events.link_of(self.port, "disconnected", reason);
        self.fail(name, format!("{peer}: {reason}"));
        let port = self.port;
        // A worker that has ended has closed it.
        drop(self.on_worker(move |engine| engine.disconnect_stream(port)));
        self.end_attempt(Instant::now());
    }

    fn fail(&mut self, name: &str, reason: String) {
        if let Some(left_out) = log_limit::admit(name, &reason) {
            tracing::warn!("port {name}: {}: {reason}{left_out}", self.location);
        }
        self.last_error = Some(reason);
    }

    fn on_worker<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> Result<R, EngineError> + Send + 'static,
    ) -> Result<R, String> {
        let port = self.port;
        let done = self.worker.hold().call(move |engine, _| engine.for_frontend(port, job));
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

/// The other end of a connection, in words.
pub(crate) fn peer_of(socket: &impl AsFd) -> String {
    let address = getpeername(socket).ok().flatten().and_then(|it| SocketAddr::try_from(it).ok());
    match address {
        Some(address) => address.to_string(),
        None => Peer::of(socket).map_or_else(|| "a process".to_owned(), |peer| peer.to_string()),
    }
}

fn has_hung_up(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    polled.is_ok() && !fds[0].revents().is_empty()
}
