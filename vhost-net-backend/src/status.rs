//! What a session shows of itself to other threads, and how they reach its thread.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::access::{Access, Made, identity};
use crate::device::DeviceSettings;
use crate::options::Role;

/// What a session is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Waits for a frontend to connect.
    Listening,
    /// Looks for a frontend that listens.
    Connecting,
    /// Has a frontend.
    Connected,
    /// Neither: the cable is out.
    Unplugged,
    /// Has ended.
    Stopped,
}

/// A session at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// What it does.
    pub state: SessionState,
    /// What was wrong last: why a connection ended or none came about, or what the operator
    /// should look at although it works. Cleared when a connection is made.
    pub last_error: Option<String>,
    /// How many connections there have been.
    pub connects: u64,
    /// What the driver has acknowledged; 0 without a driver.
    pub features: u64,
    /// Pairs of rings of which both run.
    pub queue_pairs_active: u16,
    /// The frontend that is served.
    pub peer: Option<Peer>,
    /// Frontends that have connected while another is served, the next one first.
    pub waiting: Vec<Peer>,
}

/// The process at the other end of a connection, as it was when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its process id.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
}

impl Peer {
    /// The process at the other end; `None` if the system does not say.
    pub(crate) fn of(stream: &UnixStream) -> Option<Peer> {
        let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
        Some(Peer { pid: peer.pid.as_raw_nonzero().get(), uid: peer.uid.as_raw() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} uid {}", self.pid, self.uid)
    }
}

/// The part of a session that its thread shares with others.
#[derive(Debug)]
pub(crate) struct Control {
    /// Wakes the thread out of a poll.
    wake: OwnedFd,
    idle: SessionState,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stopping: bool,
    /// No frontend is to be had.
    unplugged: bool,
    /// The connection's socket, to shut it down under the thread.
    stream: Option<UnixStream>,
    /// Why somebody else closed the connection.
    kicked: Option<String>,
    /// What the frontend may read now.
    device: DeviceSettings,
    /// The MTU that the guest was told, as far as we know.
    told_mtu: Option<u64>,
    /// Which users the socket is for, and which file it is while there is one.
    access: Access,
    socket: Option<Made>,
    status: SessionStatus,
}

impl Control {
    pub fn new(
        wake: OwnedFd,
        (role, cable): (Role, bool),
        device: DeviceSettings,
        access: Access,
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
        };
        let inner = Inner {
            stopping: false,
            unplugged: !cable,
            stream: None,
            kicked: None,
            device,
            told_mtu: None,
            access,
            socket: None,
            status,
        };
        Control { wake, idle, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> SessionStatus {
        self.lock().status.clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Makes the thread end, wherever it waits.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.shut_down();
        self.wake();
    }

    /// Makes the thread look at what it is to do, wherever it waits.
    fn wake(&self) {
        // Fails only when the counter is full: then it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Pulls the cable, which closes the connection, or plugs it in.
    pub fn set_cable(&self, plugged: bool) {
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

    /// Which users the next socket is for.
    pub fn access(&self) -> Access {
        self.lock().access
    }

    /// The thread has made a socket, or is about to remove it.
    pub fn made(&self, socket: Option<Made>) {
        self.lock().socket = socket;
    }

    /// Gives the socket away, if there is one, and those that are made later.
    pub fn set_access(&self, access: Access, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.access == access {
            return Ok(());
        }
        // Not the file of another process that has taken the name.
        let is_ours = |made: &Made| identity(path).is_ok_and(|found| found == made.identity);
        if let Some(made) = inner.socket {
            if !is_ours(&made) {
                return Err(io::Error::other(
                    "the socket was removed or replaced; pull the cable and plug it in again, and \
                     there is a new one",
                ));
            }
            access.or(made.access).apply(path)?;
        }
        inner.access = access;
        Ok(())
    }

    /// Whether the cable is out; what woke the thread is then known to it.
    pub fn is_unplugged(&self) -> bool {
        let inner = self.lock();
        if !inner.stopping {
            // Fails when nothing woke it. Under the lock, or a later change would be missed.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        inner.unplugged
    }

    /// Closes the connection, if there is one.
    pub fn kick_out(&self, reason: &str) {
        let mut inner = self.lock();
        if inner.stream.is_some() {
            inner.kicked.get_or_insert_with(|| reason.to_owned());
            inner.shut_down();
        }
    }

    /// The thread has a connection; false: it is to stop instead.
    pub fn connected(&self, stream: &UnixStream, peer: Option<Peer>) -> io::Result<bool> {
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
        Ok(true)
    }

    /// The frontend got on by one request.
    pub fn progress(&self, features: Option<u64>, active_pairs: u16) {
        let mut inner = self.lock();
        inner.status.features = features.unwrap_or(0);
        inner.status.queue_pairs_active = active_pairs;
    }

    /// Something that the operator should know although the connection goes on.
    pub fn complain(&self, complaint: String) {
        self.lock().status.last_error = Some(complaint);
    }

    /// What a frontend may read now.
    pub fn device(&self) -> DeviceSettings {
        self.lock().device
    }

    /// Changes what a frontend may read; returns what the operator should know of its guest.
    pub fn set_device(&self, device: DeviceSettings) -> Option<String> {
        let mut inner = self.lock();
        let old = std::mem::replace(&mut inner.device, device);
        let told =
            inner.told_mtu.filter(|told| device.mtu < old.mtu && *told > device.mtu.into())?;
        let complaint = format!(
            "the guest was told an MTU of {told}, the network has {} now and drops what is larger: \
             lower the MTU in the guest, or lower host_mtu and start the VM again",
            device.mtu
        );
        inner.status.last_error = Some(complaint.clone());
        Some(complaint)
    }

    /// The guest is told this MTU.
    pub fn tells_mtu(&self, mtu: u64) {
        self.lock().told_mtu = Some(mtu);
    }

    /// Other frontends that wait for their turn.
    pub fn set_waiting(&self, waiting: Vec<Peer>) {
        self.lock().status.waiting = waiting;
    }

    /// The connection has ended, by a failure or not; returns the failure to report, which is
    /// somebody else's reason if there was one.
    pub fn disconnected(&self, failure: Option<String>) -> Option<String> {
        let mut inner = self.lock();
        inner.stream = None;
        inner.status.state = if inner.unplugged { SessionState::Unplugged } else { self.idle };
        inner.status.features = 0;
        inner.status.queue_pairs_active = 0;
        inner.status.peer = None;
        inner.told_mtu = None;
        let failure = inner.kicked.take().or(failure);
        if failure.is_some() {
            inner.status.last_error.clone_from(&failure);
        }
        failure
    }

    /// No connection came about.
    pub fn failed(&self, reason: &str) {
        self.lock().status.last_error = Some(reason.to_owned());
    }

    /// The thread ends.
    pub fn ended(&self) {
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
