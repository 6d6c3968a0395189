//! The status of a session for other threads, and the control of its thread.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trama_virtqueue::MemoryAccount;

use crate::access::Access;
use crate::device::DeviceSettings;
use crate::link_watch::LinkWatch;
use crate::options::Role;
use crate::peer::Peer;
use crate::socket::SocketFile;

/// State of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Waits for a frontend to connect.
    Listening,
    /// Tries to connect to a listening frontend.
    Connecting,
    /// Has a frontend.
    Connected,
    /// The cable is unplugged: neither listens nor connects.
    Unplugged,
    /// Has ended.
    Stopped,
}

/// Snapshot of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// Its state.
    pub state: SessionState,
    /// The last problem: why a connection ended or could not be made, or a warning about one that
    /// works. Cleared when a connection is made.
    pub last_error: Option<String>,
    /// Number of connections so far.
    pub connects: u64,
    /// The features that the driver has acknowledged; 0 without a driver.
    pub features: u64,
    /// Number of ring pairs of which both rings run.
    pub queue_pairs_active: u16,
    /// The frontend being served.
    pub peer: Option<Peer>,
    /// Frontends that wait while another is served, the next one first.
    pub waiting: Vec<Peer>,
    /// Bytes of the frontend's memory that are mapped.
    pub memory_mapped: u64,
    /// Bytes of it that this process was the first to touch, and so pays for.
    pub memory_populated: u64,
}

/// The state that a session's thread shares with other threads.
#[derive(Debug)]
pub(crate) struct Control {
    /// Wakes the thread out of a poll.
    wake: Arc<OwnedFd>,
    idle: SessionState,
    account: Arc<MemoryAccount>,
    watch: Option<Arc<dyn LinkWatch>>,
    inner: Mutex<Inner>,
    /// Notified when nothing of an earlier process is left to be carried out again.
    has_resumed: Condvar,
}

#[derive(Debug)]
struct Inner {
    stopping: bool,
    /// Whether the cable is unplugged.
    unplugged: bool,
    /// The connection's socket, to shut it down under the thread.
    stream: Option<UnixStream>,
    /// Whether requests that an earlier process has served are carried out again.
    is_resuming: bool,
    /// Why another thread closed the connection.
    disconnect_reason: Option<String>,
    /// The configuration that the frontend may read.
    device: DeviceSettings,
    /// The MTU passed to the guest, as far as known.
    guest_mtu: Option<u64>,
    /// Owner, group and mode of sockets, and the current socket's file if there is one.
    access: Access,
    socket: Option<Arc<dyn SocketFile>>,
    status: SessionStatus,
}

impl Control {
    pub(crate) fn new(
        wake: Arc<OwnedFd>,
        (role, cable): (Role, bool),
        device: DeviceSettings,
        access: Access,
        (account, watch): (Arc<MemoryAccount>, Option<Arc<dyn LinkWatch>>),
    ) -> Control {
        let idle = match role {
            Role::Server => SessionState::Listening,
            Role::Client => SessionState::Connecting,
        };
        let status = SessionStatus {
            state: if cable { idle } else { SessionState::Unplugged },
            last_error: None,
            connects: 0,
            features: 0,
            queue_pairs_active: 0,
            peer: None,
            waiting: Vec::new(),
            memory_mapped: 0,
            memory_populated: 0,
        };
        let inner = Inner {
            stopping: false,
            unplugged: !cable,
            stream: None,
            is_resuming: false,
            disconnect_reason: None,
            device,
            guest_mtu: None,
            access,
            socket: None,
            status,
        };
        let (inner, has_resumed) = (Mutex::new(inner), Condvar::new());
        Control { wake, idle, account, watch, inner, has_resumed }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> SessionStatus {
        SessionStatus {
            memory_mapped: self.account.mapped(),
            memory_populated: self.account.populated(),
            ..self.lock().status.clone()
        }
    }

    /// Sets whether requests that an earlier process has served are carried out again.
    pub(crate) fn set_resuming(&self, is_resuming: bool) {
        self.lock().is_resuming = is_resuming;
        self.has_resumed.notify_all();
    }

    /// Waits until none is carried out again, at most this long.
    pub(crate) fn wait_until_resumed(&self, limit: Duration) {
        let is_resuming = |inner: &mut Inner| inner.is_resuming;
        drop(self.has_resumed.wait_timeout_while(self.lock(), limit, is_resuming));
    }

    /// The account of the frontend's memory.
    pub(crate) fn account(&self) -> &Arc<MemoryAccount> {
        &self.account
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Makes the thread end, wherever it waits.
    pub(crate) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.shut_down();
        self.wake();
    }

    /// Wakes the thread to look at the changed state, wherever it waits.
    fn wake(&self) {
        // Fails only when the counter is full: then it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Unplugs the cable, which closes the connection, or plugs it in.
    pub(crate) fn set_cable(&self, plugged: bool) {
        let mut inner = self.lock();
        if inner.unplugged != plugged {
            return;
        }
        inner.unplugged = !plugged;
        if plugged {
            inner.status.state = self.idle;
        } else {
            inner.status.state = SessionState::Unplugged;
            inner.shut_down();
        }
        self.wake();
    }

    /// Owner, group and mode of the next socket.
    pub(crate) fn access(&self) -> Access {
        self.lock().access
    }

    /// Records the socket that the thread has made, or `None` before it removes it.
    pub(crate) fn made(&self, socket: Option<Arc<dyn SocketFile>>) {
        self.lock().socket = socket;
    }

    /// Changes owner, group and mode of the socket, if there is one, and of later ones.
    pub(crate) fn set_access(&self, access: Access) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.access == access {
            return Ok(());
        }
        if let Some(socket) = &inner.socket {
            socket.set_access(&access)?;
        }
        inner.access = access;
        Ok(())
    }

    /// Whether the cable is unplugged; also clears the wake-up event.
    pub(crate) fn is_unplugged(&self) -> bool {
        let inner = self.lock();
        if !inner.stopping {
            // Fails if there was no event. Under the lock, or a later change would be missed.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        inner.unplugged
    }

    /// Closes the connection, if there is one.
    pub(crate) fn disconnect(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.stream.is_some() {
            inner.disconnect_reason.get_or_insert_with(|| reason.to_owned());
            inner.shut_down();
        }
    }

    /// Records a new connection; returns `false` if the thread has to drop it and stop.
    pub(crate) fn connected(&self, stream: &UnixStream, peer: Option<Peer>) -> io::Result<bool> {
        let own = stream.try_clone()?;
        let mut inner = self.lock();
        if inner.stopping || inner.unplugged {
            return Ok(false);
        }
        inner.stream = Some(own);
        inner.status.state = SessionState::Connected;
        inner.status.last_error = None;
        inner.status.connects += 1;
        inner.status.peer = peer;
        drop(inner);
        self.watch.iter().for_each(|watch| watch.connected(peer.as_ref()));
        Ok(true)
    }

    /// Records the state after a request.
    pub(crate) fn progress(&self, features: Option<u64>, active_pairs: u16) {
        let mut inner = self.lock();
        inner.status.features = features.unwrap_or(0);
        let before = std::mem::replace(&mut inner.status.queue_pairs_active, active_pairs);
        drop(inner);
        if (before > 0) != (active_pairs > 0) {
            self.watch.iter().for_each(|watch| watch.active(active_pairs > 0));
        }
    }

    /// Records a warning for the operator; the connection goes on.
    pub(crate) fn warn(&self, warning: String) {
        self.lock().status.last_error = Some(warning);
    }

    /// The configuration that a frontend may read.
    pub(crate) fn device(&self) -> DeviceSettings {
        self.lock().device
    }

    /// Changes the configuration that a frontend may read; returns a warning if its guest has a
    /// larger MTU.
    pub(crate) fn set_device(&self, device: DeviceSettings) -> Option<String> {
        let mut inner = self.lock();
        let old = std::mem::replace(&mut inner.device, device);
        let told =
            inner.guest_mtu.filter(|told| device.mtu < old.mtu && *told > device.mtu.into())?;
        let warning = format!(
            "the guest was told an MTU of {told}, but the network now has {} and drops larger packets: \
             lower the MTU in the guest, or lower host_mtu and restart the VM",
            device.mtu
        );
        inner.status.last_error = Some(warning.clone());
        Some(warning)
    }

    /// Records the MTU passed to the guest.
    pub(crate) fn set_guest_mtu(&self, mtu: u64) {
        self.lock().guest_mtu = Some(mtu);
    }

    /// Records the frontends that wait for their turn.
    pub(crate) fn set_waiting(&self, waiting: Vec<Peer>) {
        self.lock().status.waiting = waiting;
    }

    /// Records the end of the connection, by a failure or not. Returns the failure to report: the
    /// reason of the thread that closed it, if one did.
    pub(crate) fn disconnected(&self, failure: Option<String>) -> Option<String> {
        let mut inner = self.lock();
        inner.stream = None;
        inner.status.state = if inner.unplugged { SessionState::Unplugged } else { self.idle };
        inner.status.features = 0;
        inner.status.queue_pairs_active = 0;
        inner.status.peer = None;
        inner.guest_mtu = None;
        let failure = inner.disconnect_reason.take().or(failure);
        if failure.is_some() {
            inner.status.last_error.clone_from(&failure);
        }
        drop(inner);
        self.watch.iter().for_each(|watch| watch.disconnected(failure.as_deref()));
        failure
    }

    /// Records that no connection could be made.
    pub(crate) fn failed(&self, reason: &str) {
        self.lock().status.last_error = Some(reason.to_owned());
    }

    /// The thread ends.
    pub(crate) fn ended(&self) {
        self.lock().status.state = SessionState::Stopped;
    }
}

impl Inner {
    fn shut_down(&self) {
        if let Some(stream) = &self.stream {
            // Fails when the frontend has gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
