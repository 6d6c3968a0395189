//! Connections of stream ports: one thread accepts and connects for all of them.
//!
//! ```text
//!  listening sockets ─ readable ─▶ thread ─ connect_stream ────▶ worker ◀── frames ──▶ peer
//!  connecting sockets ─ writable ─▶   ▲   ─ disconnect_stream ─▶   │
//!                                     └──────── eventfd ◀──────────┘ a connection has ended
//! ```
//!
//! The worker never accepts, connects or waits: it has a connected socket, or none. It says when a
//! connection has ended; the thread then takes it away, and a client connects again after a second.

mod arrival;
mod plug;
mod thread;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use trama_helper::Rights;
use trama_switch::PortId;
use trama_vhost_net::PortPlace;
use trama_vhost_net_backend::Access;

use crate::config::model::wire::{Place, Stream};
use crate::events::Events;
use crate::socket_status::SocketStatus;
use arrival::{Arrival, Ticket};
use plug::Plug;
pub(crate) use plug::peer_of;

/// The stream ports of a data plane.
pub(crate) struct Streams {
    running: OnceLock<Running>,
    changes: Arc<Mutex<Changes>>,
    /// Written to when there are changes.
    event: Arc<UnixStream>,
    /// Further connections whose ports are about to be added.
    given: Mutex<HashMap<String, Arrival>>,
    /// Whether another switch still accepts and connects.
    is_paused: Arc<AtomicBool>,
}

/// The thread, once there is a stream port.
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and its callers share.
struct Shared {
    plugs: Mutex<BTreeMap<String, Plug>>,
    /// Written to when the ports have changed.
    changed: OwnedFd,
    /// Written to by workers when a connection has ended.
    ended: Arc<OwnedFd>,
    is_paused: Arc<AtomicBool>,
    is_stopped: AtomicBool,
    changes: Arc<Mutex<Changes>>,
    event: Arc<UnixStream>,
}

/// What has become of further connections.
#[derive(Default)]
pub(crate) struct Changes {
    /// Those that need a port.
    pub(crate) arrivals: Vec<Arrival>,
    /// The ports whose connections have ended.
    pub(crate) ended: HashSet<String>,
}

/// The port of a worker that gets the connections.
pub(crate) struct Socket {
    /// The worker that has the port.
    pub(crate) worker: PortPlace,
    /// The port.
    pub(crate) port: PortId,
    /// What is told of the connections.
    pub(crate) events: Arc<Events>,
}

impl Shared {
    fn new(streams: &Streams) -> rustix::io::Result<Shared> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Shared {
            plugs: Mutex::default(),
            changed: event()?,
            ended: Arc::new(event()?),
            is_paused: streams.is_paused.clone(),
            changes: streams.changes.clone(),
            event: streams.event.clone(),
            is_stopped: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Plug>> {
        self.plugs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what has become of further connections, and has it followed.
    fn note(&self, note: impl FnOnce(&mut Changes)) {
        note(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        // A full buffer has woken the reader already.
        let _ = (&*self.event).write(&[1]);
    }

    fn wake(&self) {
        // A full counter has woken it already.
        let _ = rustix::io::write(&self.changed, &1u64.to_ne_bytes());
    }
}

impl Streams {
    /// No ports yet. `event` is written to when [`Streams::take_changes`] has something.
    pub(crate) fn new(event: UnixStream) -> Streams {
        Streams {
            running: OnceLock::new(),
            changes: Arc::default(),
            event: Arc::new(event),
            given: Mutex::default(),
            is_paused: Arc::default(),
        }
    }

    /// Returns what has become of further connections since the last call.
    pub(crate) fn take_changes(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a further connection for the port of this name, which is about to be added.
    pub(crate) fn give(&self, name: &str, arrival: Arrival) {
        self.given().insert(name.to_owned(), arrival);
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, Arrival>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs the connection that was given into its port.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn plug(&self, name: &str, device: &Stream, socket: Socket) -> Result<(), String> {
        let arrival = self.given().remove(name).ok_or("its connection has ended")?;
        let Arrival { socket: connection, ticket, .. } = arrival;
        self.plug_given(name, device.place.clone(), socket, connection, Some(ticket))
    }

    /// Plugs a connection that was handed over into its port, which ends with it.
    ///
    /// # Errors
    /// The worker does not take it.
    pub(crate) fn plug_handed(
        &self,
        name: &str,
        place: &str,
        socket: Socket,
        connection: OwnedFd,
    ) -> Result<(), String> {
        let address = place.parse().map(Place::Address);
        let place = address.unwrap_or_else(|_| Place::Path(place.into()));
        self.plug_given(name, place, socket, connection, None)
    }

    fn plug_given(
        &self,
        name: &str,
        place: Place,
        socket: Socket,
        connection: OwnedFd,
        ticket: Option<Ticket>,
    ) -> Result<(), String> {
        let Some(running) = self.running.get() else { return Ok(()) };
        // Held from before the worker has it, so that the thread sees it end.
        let mut plugs = running.shared.lock();
        let plug = Plug::given(name, place, socket, connection, ticket)?;
        plugs.insert(name.to_owned(), plug);
        Ok(())
    }

    /// Sets how many connections a port may have.
    pub(crate) fn set_connections(&self, name: &str, most: u16) {
        if let Some(running) = self.running.get()
            && let Some(plug) = running.shared.lock().get_mut(name)
        {
            plug.set_connections(most);
        }
    }

    /// Returns the event that workers write to when a connection has ended; starts the thread.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub(crate) fn end_event(&self) -> Result<Arc<OwnedFd>, String> {
        if let Some(running) = self.running.get() {
            return Ok(running.shared.ended.clone());
        }
        let shared = Shared::new(self).map_err(|error| error.to_string())?;
        let shared = Arc::new(shared);
        let ended = shared.ended.clone();
        let thread = thread::start(shared.clone()).map_err(|error| error.to_string())?;
        // Only the thread that has the data plane adds ports, so it is not set yet.
        let _ = self.running.set(Running { shared, thread: Some(thread) });
        Ok(ended)
    }

    /// Listens, or connects again and again, for a port that was added with the event of
    /// [`Streams::end_event`].
    ///
    /// # Errors
    /// The listening socket cannot be made; the text has the remedy.
    pub(crate) fn add(
        &self,
        name: &str,
        device: &Stream,
        socket: Socket,
        (access, rights): (&Access, &Rights),
    ) -> Result<(), String> {
        let Some(running) = self.running.get() else { return Ok(()) };
        let plug = Plug::open(name, device, socket, (access, rights))?;
        running.shared.lock().insert(name.to_owned(), plug);
        running.shared.wake();
        Ok(())
    }

    /// Closes a port's sockets but for the connection that its worker has.
    pub(crate) fn remove(&self, name: &str) {
        self.given().remove(name);
        if let Some(running) = self.running.get() {
            drop(running.shared.lock().remove(name));
            running.shared.wake();
        }
    }

    /// Sets owner, group and mode of a port's socket.
    ///
    /// # Errors
    /// They cannot be set.
    pub(crate) fn set_access(&self, name: &str, access: &Access) -> Result<(), String> {
        let Some(running) = self.running.get() else { return Ok(()) };
        running.shared.lock().get(name).map_or(Ok(()), |plug| plug.set_access(access))
    }

    /// Accepts and connects nothing while another switch does.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Release);
        if let Some(running) = self.running.get() {
            running.shared.wake();
        }
    }

    /// Returns the state of a port's socket.
    pub(crate) fn status(&self, name: &str) -> Option<SocketStatus> {
        self.running.get()?.shared.lock().get(name).map(Plug::status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of stream ports ended by a panic");
        }
    }
}
