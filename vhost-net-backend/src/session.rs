//! A session: one thread that keeps a frontend connected.
//!
//! As server it listens and serves one frontend after the other; frontends that connect meanwhile
//! wait for their turn and are shown in the log and the status. As client it tries to connect to
//! the frontend's socket, less and less often, down to once a second. The reason for the end of
//! each connection is logged and kept in the status. Stopping wakes the thread wherever it waits:
//! the stop event ends a poll, shutting the socket down ends a read or a write.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use trama_virtqueue::{MemoryAccount, MemoryLimits};

use crate::access::Access;
use crate::connection::{End, Report, serve};
use crate::descriptors;
use crate::device::DeviceSettings;
use crate::handler::Handler;
use crate::keeper::{ConnectionKeeper, ResumedConnection};
use crate::log_limit;
use crate::options::{Role, SessionOptions};
use crate::peer::Peer;
use crate::rings::Rings;
use crate::socket::{self, Listening, SocketError, Sockets};
use crate::status::{Control, SessionStatus};
use crate::waiting::Waiting;

/// First pause of a client that finds no frontend; doubled each time.
const MIN_RETRY: Duration = Duration::from_millis(10);
/// Longest pause.
const MAX_RETRY: Duration = Duration::from_secs(1);
/// Pause of a server that cannot accept a connection, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two warnings that a frontend has to wait.
const WAITING_WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Message for a frontend that closes its connection at once, before it acknowledges features. QEMU
/// does so if it has more queues than the port, and prints why on its own standard error. A guest
/// that ends later without having used its device is no fault.
const NOT_SET_UP: &str = "the frontend disconnected before it had set up its device; see its own \
    messages (QEMU does so if it has more queues than the port)";
/// Stack size: the thread holds a request and its answer, at most 4 KiB each, and makes no deep
/// calls.
const STACK: usize = 256 * 1024;
/// The vhost-user protocol has eight bits for a ring's index where it passes descriptors.
const MAX_QUEUE_PAIRS: u16 = 128;

/// Logs what a frontend has caused: at debug level only, once there were many such lines.
macro_rules! log_limited {
    ($level:ident, $socket:expr, {$($fields:tt)*}, $text:expr) => {
        match log_limit::admit($socket, $text) {
            Some(left_out) => {
                tracing::$level!(socket = $socket, $($fields)* "{}{left_out}", $text);
            }
            None => tracing::debug!(socket = $socket, $($fields)* "{}", $text),
        }
    };
}

/// Why a session could not be started; the text has the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A number of queue pairs that the protocol cannot express.
    #[error("{0} queue pairs: a vhost-user port has 1 to {MAX_QUEUE_PAIRS}")]
    QueuePairs(u16),
    /// Out of descriptors or threads.
    #[error("cannot start a session thread: {0}")]
    System(#[from] io::Error),
}

/// A running session. Dropping it stops it.
#[derive(Debug)]
pub struct Session {
    path: PathBuf,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// Shows the status of a session and closes its connection; usable from any thread.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    control: Arc<Control>,
}

impl Session {
    /// Starts a session.
    ///
    /// # Errors
    /// The socket cannot be made, or the system is out of descriptors or threads.
    pub fn spawn(options: SessionOptions, rings: impl Rings) -> Result<Session, SessionError> {
        let SessionOptions {
            path,
            role,
            queue_pairs,
            device,
            features,
            cable,
            access,
            sockets,
            spacing,
            memory,
            keeper,
            watch,
        } = options;
        if !(1..=MAX_QUEUE_PAIRS).contains(&queue_pairs) {
            return Err(SessionError::QueuePairs(queue_pairs));
        }
        let socket = match role {
            Role::Server if cable => Some(sockets.listen(&path, &access)?),
            Role::Server | Role::Client => {
                socket::check_path(&path)?;
                None
            }
        };
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let account = MemoryAccount::new(memory, rings.received());
        let stop = Arc::new(stop);
        let control =
            Arc::new(Control::new(stop.clone(), (role, cable), device, access, (account, watch)));
        control.made(socket.as_ref().map(|made| made.file.clone()));
        let handler = Handler::new(rings, control.clone(), (features, queue_pairs), spacing);
        // Before this returns, so that the caller knows when all connections are resumed.
        let resumed = keeper.as_ref().and_then(|keeper| keeper.resume(&path));
        control.set_resuming(resumed.as_ref().is_some_and(|resumed| resumed.messages > 0));
        let worker = Worker {
            path: path.clone(),
            spacing,
            sockets,
            keeper,
            resumed,
            control: control.clone(),
            handler: Arc::new(Mutex::new(handler)),
            stop,
            last: None,
            last_newcomer: None,
        };
        let thread = std::thread::Builder::new()
            .name("vhost-user".into())
            .stack_size(STACK)
            .spawn(move || worker.run(role, socket))?;
        Ok(Session { path, control, thread: Some(thread) })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The session at this moment.
    pub fn status(&self) -> SessionStatus {
        self.control.status()
    }

    /// Returns a handle for other threads.
    pub fn handle(&self) -> SessionHandle {
        SessionHandle { control: self.control.clone() }
    }

    /// Unplugs the cable or plugs it in. A guest sees the link as its VMM shows it, and a VMM takes
    /// the link down when its backend disconnects. So without a cable the connection is closed and
    /// none is made. A server removes its socket meanwhile, as a frontend that connected without
    /// being served would hang.
    pub fn set_cable(&self, plugged: bool) {
        self.control.set_cable(plugged);
    }

    /// Changes the configuration that a frontend may read. A connected one has already passed the
    /// previous values to its guest; if the guest's MTU exceeds the new one, the log and the status
    /// have a warning.
    pub fn set_device(&self, device: DeviceSettings) {
        if let Some(warning) = self.control.set_device(device) {
            tracing::warn!(socket = %self.path.display(), "{warning}");
        }
    }

    /// Changes how much memory a frontend may share. Memory that is shared already stays.
    pub fn set_memory_limits(&self, limits: MemoryLimits) {
        self.control.account().set_limits(limits);
    }

    /// Changes owner, group and mode of the listening socket; a connected frontend stays connected.
    ///
    /// # Errors
    /// They cannot be set, which would hold for the next socket too.
    pub fn set_access(&self, access: Access) -> io::Result<()> {
        self.control.set_access(access)
    }

    /// Closes the connection, ends the thread and removes the socket file that it made. When it
    /// returns, the port's [`Rings::disconnected`] has been called.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a vhost-user session thread has panicked");
        }
    }
}

impl SessionHandle {
    /// The session at this moment.
    pub fn status(&self) -> SessionStatus {
        self.control.status()
    }

    /// Waits until the session has carried out again what an earlier process has served for its
    /// frontend, at most this long.
    pub fn wait_until_resumed(&self, limit: Duration) {
        self.control.wait_until_resumed(limit);
    }

    /// Closes the connection, if there is one; the frontend may reconnect.
    pub fn disconnect(&self, reason: &str) {
        self.control.disconnect(reason);
    }
}

/// State of the session's thread.
struct Worker<R: Rings> {
    path: PathBuf,
    spacing: Duration,
    sockets: Arc<dyn Sockets>,
    keeper: Option<Arc<dyn ConnectionKeeper>>,
    /// The connection of an earlier process, to be served first.
    resumed: Option<ResumedConnection>,
    control: Arc<Control>,
    handler: Arc<Mutex<Handler<R>>>,
    stop: Arc<OwnedFd>,
    /// The last failure that was logged as a warning, and when.
    last: Option<(String, Instant)>,
    /// When a frontend that has to wait was last logged as a warning.
    last_newcomer: Option<Instant>,
}

impl<R: Rings> Worker<R> {
    fn run(mut self, role: Role, mut socket: Option<Listening>) {
        while !self.control.is_stopping() {
            if self.control.is_unplugged() {
                self.abandon();
                self.control.made(None);
                socket = None;
                self.wait(None, None);
                continue;
            }
            match (role, &socket) {
                (Role::Client, _) => self.connect(),
                (Role::Server, Some(made)) => self.listen(made),
                (Role::Server, None) => match self.make_socket() {
                    Ok(made) => {
                        self.control.made(Some(made.file.clone()));
                        socket = Some(made);
                    }
                    Err(error) => {
                        self.failed(&error.to_string());
                        self.wait(None, Some(MAX_RETRY));
                    }
                },
            }
        }
        self.abandon();
        self.control.made(None);
        drop(socket);
        self.control.ended();
    }

    fn make_socket(&self) -> Result<Listening, SocketError> {
        self.sockets.listen(&self.path, &self.control.access())
    }

    fn listen(&mut self, Listening { listener, note, .. }: &Listening) {
        let note = note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
        let socket = self.path.display();
        tracing::info!(%socket, "listening for a vhost-user frontend{note}");
        let (keeper, path) = (self.keeper.clone(), self.path.clone());
        let mut waiting = Waiting::at(listener, keeper.as_deref(), &path);
        self.control.set_waiting(waiting.peers());
        self.resume(&mut waiting);
        while !self.control.is_stopping() && !self.control.is_unplugged() {
            if let Some(stream) = waiting.next() {
                self.control.set_waiting(waiting.peers());
                let since = Instant::now();
                self.serve(stream, &mut waiting);
                // One that connects again and again would take processor time from other ports.
                self.wait(None, Some(self.spacing.saturating_sub(since.elapsed())));
                continue;
            }
            self.wait(Some(listener), None);
            if let Err(error) = waiting.accept() {
                self.failed(&format!("cannot accept a connection: {error}"));
                self.wait(None, Some(ACCEPT_PAUSE));
            }
        }
        self.control.set_waiting(Vec::new());
    }

    fn connect(&mut self) {
        let mut pause = MIN_RETRY;
        self.resume(&mut Waiting::none());
        while !self.control.is_stopping() && !self.control.is_unplugged() {
            let since = Instant::now();
            match self.sockets.connect(&self.path) {
                Ok(stream) => self.serve(stream, &mut Waiting::none()),
                Err(reason) => self.failed(&reason),
            }
            if since.elapsed() >= MAX_RETRY {
                pause = MIN_RETRY;
            }
            self.wait(None, Some(pause));
            pause = MAX_RETRY.min(pause * 2);
        }
    }

    /// Waits for a connection, for the end of the time, or for a call from another thread.
    fn wait(&self, listener: Option<&UnixListener>, timeout: Option<Duration>) {
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        let timeout = timeout.map(|pause| Timespec {
            tv_sec: pause.as_secs() as i64,
            tv_nsec: pause.subsec_nanos().into(),
        });
        // An error is a signal or a temporary lack of memory: the caller tries again.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// Serves the connection of an earlier process, if there is one.
    fn resume(&mut self, waiting: &mut Waiting<'_>) {
        if let Some(ResumedConnection { stream, peer, messages }) = self.resumed.take() {
            self.serve_kept(stream, peer, Some(messages), waiting);
        }
    }

    /// Closes the connection of an earlier process, which is not served.
    fn abandon(&mut self) {
        if self.resumed.take().is_some() {
            self.closed();
        }
    }

    fn closed(&self) {
        self.control.set_resuming(false);
        if let Some(keeper) = &self.keeper {
            keeper.closed(&self.path);
        }
    }

    /// Serves a new connection.
    fn serve(&mut self, stream: UnixStream, waiting: &mut Waiting<'_>) {
        if let Err(refused) = descriptors::check(&stream) {
            self.failed(&refused.to_string());
            drop(stream);
            return self.wait(None, Some(ACCEPT_PAUSE));
        }
        let peer = Peer::of(&stream);
        match self.keep(stream, peer) {
            Ok(stream) => self.serve_kept(stream, peer, None, waiting),
            Err(error) => {
                self.failed(&format!("cannot hand the connection to its keeper: {error}"));
                self.wait(None, Some(ACCEPT_PAUSE));
            }
        }
    }

    fn keep(&self, stream: UnixStream, peer: Option<Peer>) -> io::Result<UnixStream> {
        match &self.keeper {
            Some(keeper) => keeper.keep(&self.path, peer, stream),
            None => Ok(stream),
        }
    }

    /// Serves a stream on which the frontend's requests come, and first those that an earlier
    /// process has served, `replayed` of them; `None` for a new connection.
    fn serve_kept(
        &mut self,
        stream: UnixStream,
        peer: Option<Peer>,
        replayed: Option<usize>,
        waiting: &mut Waiting<'_>,
    ) {
        match self.control.connected(&stream, peer) {
            Ok(true) => {
                self.announce_connection(peer, replayed.is_some());
                self.serve_to_end(stream, peer, replayed, waiting);
            }
            Ok(false) => {}
            Err(error) => self.failed(&format!("cannot serve a connection: {error}")),
        }
        self.closed();
    }

    fn announce_connection(&self, peer: Option<Peer>, is_resumed: bool) {
        let socket = self.path.display().to_string();
        let pid = peer.map_or(0, |peer| peer.pid);
        if is_resumed {
            tracing::info!(socket, pid, "resumed the connection of process {pid}");
        } else if self.failed_lately() {
            tracing::debug!(socket, pid, "frontend connected");
        } else {
            log_limited!(info, &socket, { pid, }, "frontend connected");
        }
    }

    fn serve_to_end(
        &mut self,
        stream: UnixStream,
        peer: Option<Peer>,
        replayed: Option<usize>,
        waiting: &mut Waiting<'_>,
    ) {
        let socket = self.path.display().to_string();
        let served = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let (control, last_warning) = (&self.control, &mut self.last_newcomer);
        let (since, mut is_set_up) = (Instant::now(), false);
        let (keeper, path) = (self.keeper.as_deref(), self.path.as_path());
        let report = |handler: &mut Handler<R>, report| match report {
            Report::Progress => {
                is_set_up |= handler.acknowledged.is_some();
                control.progress(handler.acknowledged, handler.active_pairs());
                if let Some(keeper) = keeper {
                    keeper.served(path);
                }
            }
            Report::Warning(warning) => {
                log_limited!(warn, &socket, {}, &warning);
                control.warn(warning);
            }
            Report::Note(note) => log_limited!(info, &socket, {}, &note),
            Report::Waiting { newcomer, all } => {
                control.set_waiting(all);
                if let Some(newcomer) = newcomer {
                    announce(&socket, newcomer, &served, last_warning);
                }
            }
        };
        let end = serve(stream, replayed, &self.handler, self.stop.as_fd(), waiting, report);
        let (stopped, failure) = match end {
            End::Stopped => (true, None),
            End::Closed if !is_set_up && since.elapsed() < MAX_RETRY => {
                (false, Some(NOT_SET_UP.to_owned()))
            }
            End::Closed => (false, None),
            End::Failed(reason) => (false, Some(reason)),
        };
        let was_not_set_up = failure.as_deref() == Some(NOT_SET_UP);
        match self.control.disconnected(failure) {
            Some(reason) => self.report(&reason),
            None if !stopped => log_limited!(info, &socket, {}, "frontend disconnected"),
            None => {}
        }
        if was_not_set_up {
            // It may reconnect at once and leave again.
            self.wait(None, Some(MIN_RETRY));
        }
    }

    /// Records that no connection was made.
    fn failed(&mut self, reason: &str) {
        self.control.failed(reason);
        self.report(reason);
    }

    /// Logs a failure; the same one again soon after is logged at debug level.
    fn report(&mut self, reason: &str) {
        let socket = self.path.display().to_string();
        if self.failed_lately() && self.last.as_ref().is_some_and(|(last, _)| last == reason) {
            tracing::debug!(socket, "{reason}");
        } else {
            log_limited!(warn, &socket, {}, reason);
        }
        self.last = Some((reason.to_owned(), Instant::now()));
    }

    /// Whether this is the next attempt after a failure.
    fn failed_lately(&self) -> bool {
        self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < 2 * MAX_RETRY)
    }
}

/// Logs a frontend that has to wait; further ones soon after are logged at debug level.
fn announce(socket: &str, waits: Peer, served: &str, last: &mut Option<Instant>) {
    let words = "another frontend is waiting: a port serves one at a time; stop one of the two, \
                 or give each its own port";
    if last.is_some_and(|at| at.elapsed() < WAITING_WARN_INTERVAL) {
        tracing::debug!(socket, %waits, served, "{words}");
    } else {
        log_limited!(warn, socket, { %waits, served, }, words);
        *last = Some(Instant::now());
    }
}
