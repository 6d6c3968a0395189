//! A keeper of connections on threads of this process, and switches that die.
//!
//! It does what the process of a keeper does: one request at a time goes to the switch, its answer
//! comes back once the switch has served it, and the request is remembered if it changes the state
//! of the device.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use trama_vhost_net_backend::{ConnectionKeeper, Peer, ResumedConnection};

use crate::raw_frontend::{NEED_REPLY, send_message};
use crate::requests::*;

/// The keeper.
#[derive(Debug, Default)]
pub struct TestKeeper {
    relays: Mutex<HashMap<PathBuf, Arc<Relay>>>,
    waiting: Mutex<HashMap<PathBuf, Vec<OwnedFd>>>,
}

/// What one switch has of the keeper, until it dies.
#[derive(Debug)]
pub struct KeptSwitch {
    keeper: Arc<TestKeeper>,
    is_dead: AtomicBool,
}

/// A connection.
#[derive(Debug)]
struct Relay {
    frontend: UnixStream,
    peer: Option<Peer>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The keeper's end of the stream to the switch.
    switch: Option<UnixStream>,
    /// Number of streams so far.
    streams: u64,
    /// Requests that the switch has still to serve again.
    to_replay: usize,
    /// Whether the switch has served the last request.
    is_served: bool,
    is_closed: bool,
    log: Vec<Message>,
}

/// A request with its descriptors.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl TestKeeper {
    /// Attaches a switch.
    pub fn attach(self: &Arc<TestKeeper>) -> Arc<KeptSwitch> {
        Arc::new(KeptSwitch { keeper: self.clone(), is_dead: AtomicBool::new(false) })
    }

    fn relay(&self, path: &Path) -> Option<Arc<Relay>> {
        self.relays.lock().unwrap().get(path).cloned()
    }
}

impl KeptSwitch {
    /// Dies without a word: its streams end, and the keeper hears no more of it.
    pub fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        for relay in self.keeper.relays.lock().unwrap().values() {
            relay.change(|state| {
                state.switch = None;
                state.streams += 1;
            });
        }
    }

    /// Returns the connection with this path as long as this switch lives.
    fn relay(&self, path: &Path) -> Option<Arc<Relay>> {
        if self.is_dead.load(Ordering::SeqCst) { None } else { self.keeper.relay(path) }
    }
}

impl ConnectionKeeper for KeptSwitch {
    fn keep(&self, path: &Path, peer: Option<Peer>, stream: UnixStream) -> io::Result<UnixStream> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("the switch is dead"));
        }
        let relay = Arc::new(Relay {
            frontend: stream,
            peer,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (own, end) = UnixStream::pair()?;
        relay.change(|state| state.switch = Some(own));
        self.keeper.relays.lock().unwrap().insert(path.to_owned(), relay.clone());
        std::thread::spawn(move || relay.run());
        Ok(end)
    }

    fn resume(&self, path: &Path) -> Option<ResumedConnection> {
        let relay = self.relay(path)?;
        let (own, stream) = UnixStream::pair().unwrap();
        let mut state = relay.lock();
        if state.is_closed {
            return None;
        }
        state.log.iter().for_each(|message| message.send(&own));
        let messages = state.log.len();
        (state.switch, state.to_replay) = (Some(own), messages);
        state.streams += 1;
        relay.changed.notify_all();
        Some(ResumedConnection { stream, peer: relay.peer, messages })
    }

    fn keep_waiting(&self, path: &Path, waiting: &[BorrowedFd<'_>]) {
        if !self.is_dead.load(Ordering::SeqCst) {
            let copies = waiting.iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
            self.keeper.waiting.lock().unwrap().insert(path.to_owned(), copies);
        }
    }

    fn resume_waiting(&self, path: &Path) -> Vec<UnixStream> {
        let waiting = self.keeper.waiting.lock().unwrap();
        let copies = waiting.get(path).into_iter().flatten();
        copies.map(|fd| fd.try_clone().unwrap().into()).collect()
    }

    fn served(&self, path: &Path) {
        let Some(relay) = self.relay(path) else { return };
        relay.change(|state| match state.to_replay {
            0 => state.is_served = true,
            _ => state.to_replay -= 1,
        });
    }

    fn closed(&self, path: &Path) {
        if let Some(relay) = self.relay(path) {
            self.keeper.relays.lock().unwrap().remove(path);
            relay.close();
        }
    }
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn close(&self) {
        let _ = self.frontend.shutdown(Shutdown::Both);
        self.change(|state| {
            state.is_closed = true;
            state.switch = None;
        });
    }

    /// Passes requests and answers on until one of the two sides closes.
    fn run(&self) {
        while let Some(message) = Message::receive(&self.frontend) {
            let Some(answer) = self.deliver(&message) else { break };
            remember(&mut self.lock().log, message);
            if (&self.frontend).write_all(&answer).is_err() {
                break;
            }
        }
        self.close();
    }

    /// Sends a request to the switch, and to the next one if it dies meanwhile; returns its answer.
    fn deliver(&self, message: &Message) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            let is_open = |state: &State| state.switch.is_some() && state.to_replay == 0;
            let not_ready = |state: &mut State| !state.is_closed && !is_open(state);
            state = self.changed.wait_while(state, not_ready).unwrap();
            let switch = state.switch.take()?;
            // Answers to requests of the past.
            everything_in(&switch);
            message.send(&switch);
            (state.switch, state.is_served) = (Some(switch), false);
            let stream = state.streams;
            let not_served =
                |state: &mut State| !state.is_served && !state.is_closed && state.streams == stream;
            state = self.changed.wait_while(state, not_served).unwrap();
            if state.is_served
                && let Some(switch) = &state.switch
            {
                return Some(everything_in(switch));
            }
        }
    }
}

/// Enters a served request into the log, where it replaces those that it makes void.
fn remember(log: &mut Vec<Message>, mut message: Message) {
    // Replayed without an answer.
    message.bytes[4] &= !(NEED_REPLY as u8);
    let (request, ring) = message.key();
    match request {
        GET_VRING_BASE => log.retain(|other| other.key() != (SET_VRING_KICK, ring)),
        GET_FEATURES | GET_PROTOCOL_FEATURES | GET_QUEUE_NUM | GET_CONFIG | GET_MAX_MEM_SLOTS => {}
        ADD_MEM_REG | REM_MEM_REG => log.push(message),
        _ => {
            let is_void = |other: u32| {
                request == SET_MEM_TABLE && (other == ADD_MEM_REG || other == REM_MEM_REG)
            };
            log.retain(|other| other.key() != (request, ring) && !is_void(other.key().0));
            log.push(message);
        }
    }
}

impl Message {
    /// Reads a request; `None` if the frontend has closed the connection.
    fn receive(mut stream: &UnixStream) -> Option<Message> {
        let mut bytes = vec![0; 12];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::WAITALL | RecvFlags::CMSG_CLOEXEC;
        let read =
            recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).ok()?.bytes;
        if read < bytes.len() {
            return None;
        }
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        let size = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
        let mut body = vec![0; size as usize];
        stream.read_exact(&mut body).ok()?;
        bytes.extend(body);
        Some(Message { bytes, fds })
    }

    /// Sends it; the stream may have ended already.
    fn send(&self, stream: &UnixStream) {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        send_message(stream, &self.bytes, &fds);
    }

    /// Returns its request and the ring that it concerns, if it concerns one.
    fn key(&self) -> (u32, u8) {
        let request = u32::from_ne_bytes(self.bytes[..4].try_into().unwrap());
        let is_rings = (SET_VRING_NUM..=SET_VRING_CALL).contains(&request);
        let is_rings = is_rings || request == SET_VRING_ENABLE;
        (request, if is_rings { self.bytes[12] } else { 0 })
    }
}

/// Reads what waits on a stream.
fn everything_in(stream: &UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    stream.set_nonblocking(true).unwrap();
    let read = (&*stream).read(&mut bytes).unwrap_or(0);
    stream.set_nonblocking(false).unwrap();
    bytes.truncate(read);
    bytes
}
