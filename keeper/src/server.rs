//! The keeper's loop: one thread, one epoll set, nothing that blocks.
//!
//! ```text
//!  epoll ─▶ the listener    a switch connects
//!        ─▶ a channel       at most TURN requests of it
//!        ─▶ a connection    it is ready
//!  then each connection that is ready moves one message
//! ```

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, Resource, Uid, geteuid, getrlimit};

use crate::arbiter::{Arbiter, Busy, Go};
use crate::relay::Caller;
use crate::relays::{FIRST_TOKEN, Relays, report};
use crate::request::{LONGEST, NAMED, Reply, Request, VERSION};
use crate::store::{Store, Switch};
use crate::wire::{Message, receive_into, send};

/// Most switches that are connected at once, attached or not.
const MOST_CHANNELS: usize = 8;
/// Most requests that one switch makes before others have their turn.
const TURN: usize = 32;
/// Events of one call.
const EVENTS: usize = 64;
/// Descriptors that are kept for the keeper's own work.
const RESERVE: u64 = 64;
/// How long the keeper accepts no connection after it could not.
const PAUSE: Duration = Duration::from_secs(1);

/// The listener's token; those of channels are above.
const LISTENER: u64 = 0;

/// A connected switch.
struct Channel {
    socket: OwnedFd,
    pid: i32,
    /// Its number, once it has attached.
    switch: Option<Switch>,
    /// Written to when it must freeze, and when the previous one is gone.
    events: Option<[OwnedFd; 2]>,
}

/// Everything that the keeper holds.
pub(crate) struct Server {
    epoll: Rc<OwnedFd>,
    listener: OwnedFd,
    /// The end of a pause in accepting.
    paused: Option<Instant>,
    /// The channel for which others wait.
    first: Option<u64>,
    owner: Uid,
    /// From which number on a descriptor is refused.
    kept_from: u64,
    channels: BTreeMap<u64, Channel>,
    /// Tokens that were given out.
    tokens: u64,
    arbiter: Arbiter,
    store: Store,
    relays: Relays,
    linger: Duration,
    /// Since when no switch is attached.
    alone: Option<Instant>,
    missing: Vec<String>,
    is_ended: bool,
    /// Where requests are received.
    buffer: Vec<u8>,
}

impl Server {
    /// A keeper that takes switches from a listening socket, and ends when none is attached for
    /// `linger`.
    pub(crate) fn new(listener: OwnedFd, linger: Duration) -> io::Result<Server> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let kept_from = limit - RESERVE.min(limit / 4);
        let epoll = Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let server = Server {
            epoll: epoll.clone(),
            listener,
            paused: None,
            first: None,
            owner: geteuid(),
            kept_from,
            channels: BTreeMap::new(),
            tokens: LISTENER,
            arbiter: Arbiter::default(),
            store: Store::default(),
            relays: Relays::new(epoll, kept_from),
            linger,
            alone: Some(Instant::now()),
            missing: Vec::new(),
            is_ended: false,
            buffer: vec![0; LONGEST],
        };
        rustix::io::ioctl_fionbio(&server.listener, true)?;
        server.watch_listener()?;
        Ok(server)
    }

    /// Notes what of the sandbox is not in force, for the switch to report.
    pub(crate) fn note_missing(&mut self, missing: Vec<String>) {
        self.missing = missing;
    }

    /// Serves until the end.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.is_ended {
            let now = Instant::now();
            if self.end_of_linger().is_some_and(|end| end <= now) {
                return Ok(());
            }
            let timeout = self.timeout(now)?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    token if token >= FIRST_TOKEN => self.relays.notice(token, event.flags),
                    token => self.serve(token),
                }
            }
            self.relays.step();
        }
        Ok(())
    }

    /// When the keeper ends, if no switch attaches.
    fn end_of_linger(&self) -> Option<Instant> {
        self.alone.map(|since| since + self.linger)
    }

    /// How long to wait for an event; `None` = without limit.
    fn timeout(&mut self, now: Instant) -> io::Result<Option<Timespec>> {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.watch_listener()?;
        }
        let next =
            [self.end_of_linger(), self.paused, self.relays.due(now)].into_iter().flatten().min();
        let left = next.map(|next| Timespec::try_from(next.saturating_duration_since(now)));
        left.transpose().map_err(io::Error::other)
    }

    fn watch_listener(&self) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            &self.listener,
            epoll::EventData::new_u64(LISTENER),
            epoll::EventFlags::IN,
        )?)
    }

    /// Accepts a connection, or none for a while.
    fn accept(&mut self) {
        match self.try_accept() {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
            Err(error) => {
                report(&format!("the keeper cannot accept a connection: {error}"));
                let _ = epoll::delete(&self.epoll, &self.listener);
                self.paused = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn try_accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = accept_with(&self.listener, flags)?;
        let peer = socket_peercred(&socket)?;
        if peer.uid != self.owner && !peer.uid.is_root() {
            return turn_away(&socket, "the keeper serves its own user alone");
        }
        if self.channels.len() >= MOST_CHANNELS {
            return turn_away(&socket, "too many switches are connected to the keeper");
        }
        self.add_channel(socket, peer.pid)
    }

    /// Serves a switch that has made the channel itself. Others that connect wait until that one
    /// has settled: one that attached first would take itself for the first switch.
    ///
    /// # Errors
    /// It is no socket of a process, or the system refuses.
    pub(crate) fn connect(&mut self, socket: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let peer = socket_peercred(&socket)?;
        self.add_channel(socket, peer.pid)?;
        self.first = Some(self.tokens);
        Ok(epoll::delete(&self.epoll, &self.listener)?)
    }

    /// The first switch has settled, or is gone.
    fn let_others_connect(&mut self, token: u64) -> io::Result<()> {
        match self.first.take_if(|first| *first == token) {
            Some(_) => self.watch_listener(),
            None => Ok(()),
        }
    }

    fn add_channel(&mut self, socket: OwnedFd, pid: Pid) -> io::Result<()> {
        self.tokens += 1;
        let data = epoll::EventData::new_u64(self.tokens);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        let pid = pid.as_raw_nonzero().get();
        let channel = Channel { socket, pid, switch: None, events: None };
        self.channels.insert(self.tokens, channel);
        Ok(())
    }

    /// Serves some requests of a switch.
    fn serve(&mut self, token: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..TURN {
            let Some(channel) = self.channels.get(&token) else { break };
            let received = receive_into::<Request<'_>>(&channel.socket, &mut buffer);
            let is_served = match received {
                Ok(Some(message)) => self.answer(token, message),
                Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    self.reply(token, &Reply::Refused(&error.to_string()), &[])
                }
                Err(error) => Err(error),
            };
            match is_served {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.hang_up(token),
            }
        }
        self.buffer = buffer;
    }

    /// A switch is gone, or is not served any more.
    fn hang_up(&mut self, token: u64) {
        if let Err(error) = self.let_others_connect(token) {
            report(&format!("the keeper cannot accept connections: {error}"));
        }
        let Some(Channel { switch: Some(switch), .. }) = self.channels.remove(&token) else {
            return;
        };
        match self.arbiter.go(switch) {
            Go::Freeze(serving) => {
                self.relays.lose_successor(switch);
                self.take_back_freeze(serving);
            }
            Go::IsGone => self.relays.lose(switch),
        }
        if let Some(serving) = self.arbiter.detach(switch) {
            let channel = self.channels.values().find(|it| it.switch == Some(serving));
            if let Some([_, gone]) = channel.and_then(|channel| channel.events.as_ref()) {
                signal(gone);
            }
        }
        if self.arbiter.is_empty() {
            self.alone = Some(Instant::now());
        }
    }

    /// The one that serves may have been told to freeze and not have seen that yet.
    fn take_back_freeze(&self, serving: Switch) {
        let channel = self.channels.values().find(|it| it.switch == Some(serving));
        if let Some([freeze, _]) = channel.and_then(|channel| channel.events.as_ref()) {
            // Fails if it was not told.
            let _ = rustix::io::read(freeze, &mut [0; 8]);
        }
    }

    /// Answers a request. An error ends the channel.
    fn answer(&mut self, token: u64, message: Message<Request<'_>>) -> io::Result<()> {
        let Message { body, fds } = message;
        if let Some(text) = self.refuses_descriptors(&fds) {
            return self.reply(token, &Reply::Refused(&text), &[]);
        }
        if let Request::Attach { version, claim } = body {
            return self.attach(token, version, claim);
        }
        let Some(switch) = self.channels.get(&token).and_then(|channel| channel.switch) else {
            return self.reply(token, &Reply::Refused("attach first"), &[]);
        };
        match body {
            Request::Attach { .. } => Ok(()),
            Request::Put { key, value } => match self.store.put(key, value, fds, switch) {
                Ok(()) => self.reply(token, &Reply::Ok, &[]),
                Err(refusal) => self.refuse(token, &refusal),
            },
            Request::Get { key } => self.get(token, key, switch),
            Request::Remove { key } => {
                match self.arbiter.serves(switch) {
                    true => drop(self.store.remove(key)),
                    false => self.store.disclaim(key),
                }
                self.reply(token, &Reply::Ok, &[])
            }
            Request::Settle => self.settle(token, switch),
            Request::Go => self.go(token, switch),
            Request::End => self.end(token, switch),
            Request::Followed => {
                let is_followed = self.arbiter.has_other(switch);
                self.reply(token, &Reply::Followed { is_followed }, &[])
            }
            Request::Relay { key, value } => self.relay(token, key, value, fds, switch),
            Request::Resume { key } => self.resume(token, key, switch),
            Request::Close { key } => {
                self.relays.close(key, switch);
                self.reply(token, &Reply::Ok, &[])
            }
            Request::Done { key } => {
                self.relays.done(key, switch);
                Ok(())
            }
        }
    }

    /// Why descriptors cannot be taken: the last ones that the process may have are kept.
    fn refuses_descriptors(&self, fds: &[OwnedFd]) -> Option<String> {
        let number = fds.iter().map(|fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)).max()?;
        (number >= self.kept_from).then(|| {
            "the keeper has no descriptors left; raise the limit of open files (LimitNOFILE= of a \
             service, ulimit -n)"
                .to_owned()
        })
    }

    fn attach(&mut self, token: u64, version: u32, claim: crate::Claim) -> io::Result<()> {
        if version != VERSION {
            return self.reply(token, &Reply::Version { version: VERSION }, &[]);
        }
        let Some(channel) = self.channels.get_mut(&token) else { return Ok(()) };
        if channel.switch.is_some() {
            return self.reply(token, &Reply::Refused("attached already"), &[]);
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let events = [eventfd(0, flags)?, eventfd(0, flags)?];
        let switch = match self.arbiter.attach(claim, channel.pid) {
            Ok(switch) => switch,
            Err(Busy(pid)) => return self.reply(token, &Reply::Busy { pid }, &[]),
        };
        channel.switch = Some(switch);
        let copies = [events[0].try_clone()?, events[1].try_clone()?];
        channel.events = Some(events);
        self.alone = None;
        let reply = Reply::Attached {
            restarts: switch - 1,
            previous: self.arbiter.previous(switch),
            missing: self.missing.clone(),
        };
        self.reply(token, &reply, &copies.each_ref().map(AsFd::as_fd))
    }

    fn get(&mut self, token: u64, key: &str, switch: Switch) -> io::Result<()> {
        let Some(channel) = self.channels.get(&token) else { return Ok(()) };
        match self.store.get(key, switch) {
            Some(entry) => {
                let fds: Vec<_> = entry.fds.iter().map(AsFd::as_fd).collect();
                answer(&channel.socket, &Reply::Kept { value: &entry.value }, &fds)
            }
            None => answer(&channel.socket, &Reply::Absent, &[]),
        }
    }

    fn relay(
        &mut self,
        token: u64,
        key: &str,
        value: &[u8],
        fds: Vec<OwnedFd>,
        switch: Switch,
    ) -> io::Result<()> {
        let caller = Caller { switch, serves: self.arbiter.serves(switch) };
        match self.relays.relay(key, value, fds, caller) {
            Ok(stream) => self.reply(token, &Reply::Relayed, &[stream.as_fd()]),
            Err(error) => self.refuse(token, &error),
        }
    }

    fn resume(&mut self, token: u64, key: &str, switch: Switch) -> io::Result<()> {
        let caller = Caller { switch, serves: self.arbiter.serves(switch) };
        match self.relays.resume(key, caller) {
            Some(Ok((value, stream, messages))) => {
                let reply = Reply::Resumed { value: &value, messages };
                self.reply(token, &reply, &[stream.as_fd()])
            }
            Some(Err(error)) => self.refuse(token, &error),
            None => self.reply(token, &Reply::Absent, &[]),
        }
    }

    fn settle(&mut self, token: u64, switch: Switch) -> io::Result<()> {
        if self.arbiter.previous(switch).is_some() {
            let text = "the previous switch still runs and needs what is kept";
            return self.reply(token, &Reply::Refused(text), &[]);
        }
        self.let_others_connect(token)?;
        let mut dropped = self.store.settle(switch, NAMED);
        dropped.extend(self.relays.settle(switch, NAMED - dropped.len()));
        let more = dropped.len() == NAMED;
        self.reply(token, &Reply::Settled { dropped, more }, &[])
    }

    fn go(&mut self, token: u64, switch: Switch) -> io::Result<()> {
        let is_gone = match self.arbiter.go(switch) {
            Go::IsGone => true,
            Go::Freeze(previous) => {
                let channel = self.channels.values().find(|it| it.switch == Some(previous));
                if let Some([freeze, _]) = channel.and_then(|channel| channel.events.as_ref()) {
                    signal(freeze);
                }
                false
            }
        };
        self.reply(token, &Reply::Going { is_gone }, &[])
    }

    fn end(&mut self, token: u64, switch: Switch) -> io::Result<()> {
        let is_last = !self.arbiter.has_other(switch);
        self.is_ended = is_last;
        self.reply(token, &Reply::Ended { is_last }, &[])
    }

    fn refuse(&self, token: u64, why: &impl ToString) -> io::Result<()> {
        self.reply(token, &Reply::Refused(&why.to_string()), &[])
    }

    fn reply(&self, token: u64, reply: &Reply<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.channels.get(&token) {
            Some(channel) => answer(&channel.socket, reply, fds),
            None => Ok(()),
        }
    }
}

/// Sends an answer. A switch that reads none, so that there is no room, is not served any more.
fn answer(socket: &OwnedFd, reply: &Reply<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let under_way = Some(Errno::TOOMANYREFS.raw_os_error());
    match send(socket, reply, fds, LONGEST) {
        Err(error) if error.raw_os_error() == under_way => {
            let text = "too many descriptors are under way; raise the limit of open files";
            send(socket, &Reply::Refused(text), &[], LONGEST)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::other("the switch reads no answers"))
        }
        result => result,
    }
}

/// Tells a process that has connected why it is not served.
fn turn_away(socket: &OwnedFd, text: &str) -> io::Result<()> {
    let _ = answer(socket, &Reply::Refused(text), &[]);
    Ok(())
}

fn signal(event: &OwnedFd) {
    // Fails if it is signalled already.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

#[cfg(test)]
mod tests;
