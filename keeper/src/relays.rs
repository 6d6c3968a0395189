//! All connections, and which of them have something to do.
//!
//! Their sockets are watched for edges: an event marks a connection as ready, and a step tries
//! whatever may be possible. So a connection that waits costs nothing, whatever it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::relay::{Caller, Next, Relay};
use crate::store::{MOST_ENTRIES, Refusal, Switch, check};

/// Tokens from here on are connections'; bit 0 tells the frontend from a switch.
pub(crate) const FIRST_TOKEN: u64 = 1 << 62;
const FRONTEND: u64 = 1;

/// When a connection tries again for which the system had no room.
const RETRY: Duration = Duration::from_millis(10);

pub(crate) struct Relays {
    epoll: Rc<OwnedFd>,
    /// From which number on a descriptor of a frontend is refused.
    kept_from: u64,
    relays: BTreeMap<u64, (String, Relay)>,
    by_key: BTreeMap<String, u64>,
    /// Numbers that were given out.
    count: u64,
    ready: BTreeSet<u64>,
    /// Those that try again later, and when.
    later: BTreeSet<u64>,
    retry: Option<Instant>,
}

impl Relays {
    pub(crate) fn new(epoll: Rc<OwnedFd>, kept_from: u64) -> Relays {
        Relays {
            epoll,
            kept_from,
            relays: BTreeMap::new(),
            by_key: BTreeMap::new(),
            count: 0,
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            retry: None,
        }
    }

    /// When there is something to do without an event.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if self.ready.is_empty() { self.retry } else { Some(now) }
    }

    /// Takes an event.
    pub(crate) fn notice(&mut self, token: u64, flags: epoll::EventFlags) {
        let number = (token - FIRST_TOKEN) >> 1;
        let Some((_, relay)) = self.relays.get_mut(&number) else { return };
        if token & FRONTEND != 0 && flags.intersects(epoll::EventFlags::HUP) {
            relay.hang_up();
        }
        self.ready.insert(number);
    }

    /// Each connection that is ready moves at most one message.
    pub(crate) fn step(&mut self) {
        if self.retry.is_some_and(|retry| retry <= Instant::now()) {
            self.retry = None;
            self.ready.append(&mut self.later);
        }
        for number in std::mem::take(&mut self.ready) {
            let Some((_, relay)) = self.relays.get_mut(&number) else { continue };
            match relay.step(self.kept_from) {
                Next::Wait => {}
                Next::Again => {
                    self.ready.insert(number);
                }
                Next::Later => {
                    self.later.insert(number);
                    self.retry.get_or_insert_with(|| Instant::now() + RETRY);
                }
                Next::Over => drop(self.take(number)),
            }
        }
    }

    /// Takes the connection of a frontend; returns the switch's end of its stream.
    pub(crate) fn relay(
        &mut self,
        key: &str,
        value: &[u8],
        fds: Vec<OwnedFd>,
        caller: Caller,
    ) -> io::Result<OwnedFd> {
        check(key, value).map_err(io::Error::other)?;
        let frontend = fds.into_iter().next();
        let frontend = frontend.ok_or_else(|| io::Error::other("there is no connection"))?;
        if let Some(old) = self.by_key.get(key) {
            drop(self.take(*old));
        }
        if self.relays.len() >= MOST_ENTRIES {
            return Err(io::Error::other(Refusal::Entries));
        }
        let number = self.count;
        self.count += 1;
        let mut relay = Relay::new(value, frontend, caller.switch);
        let (stream, _) = relay.open(caller)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        self.watch(&relay.frontend, number, FRONTEND, flags)?;
        if let Some(own) = relay.stream_to(caller.switch) {
            self.watch(own, number, 0, epoll::EventFlags::OUT | epoll::EventFlags::ET)?;
        }
        self.relays.insert(number, (key.to_owned(), relay));
        self.by_key.insert(key.to_owned(), number);
        self.ready.insert(number);
        Ok(stream)
    }

    /// Opens a stream of a connection to another switch. Returns the value, the switch's end, and
    /// how many messages of the past it will be sent; `None` if there is no such connection.
    pub(crate) fn resume(
        &mut self,
        key: &str,
        caller: Caller,
    ) -> Option<io::Result<(Vec<u8>, OwnedFd, usize)>> {
        let number = *self.by_key.get(key)?;
        let (_, relay) = self.relays.get_mut(&number)?;
        let opened = relay.open(caller);
        let value = relay.value.clone();
        self.ready.insert(number);
        Some(opened.and_then(|(stream, past)| {
            if let Some(own) =
                self.relays.get(&number).and_then(|(_, it)| it.stream_to(caller.switch))
            {
                self.watch(own, number, 0, epoll::EventFlags::OUT | epoll::EventFlags::ET)?;
            }
            Ok((value, stream, past))
        }))
    }

    /// A message of a connection is done.
    pub(crate) fn done(&mut self, key: &str, switch: Switch) {
        let Some(number) = self.by_key.get(key).copied() else { return };
        let Some((key, relay)) = self.relays.get_mut(&number) else { return };
        self.ready.insert(number);
        if let Err(fault) = relay.done(switch) {
            report(&format!("the connection {key} is closed: {fault}"));
            drop(self.take(number));
        }
    }

    /// Closes a connection on behalf of a switch. One that another switch serves stays until that
    /// one is gone.
    pub(crate) fn close(&mut self, key: &str, switch: Switch) {
        let Some(number) = self.by_key.get(key).copied() else { return };
        let Some((_, relay)) = self.relays.get_mut(&number) else { return };
        if relay.decline(switch) {
            return;
        }
        if let Some(relay) = self.take(number) {
            relay.close(switch);
        }
    }

    /// A switch is gone.
    pub(crate) fn lose(&mut self, switch: Switch) {
        for (number, (_, relay)) in &mut self.relays {
            relay.lose(switch);
            self.ready.insert(*number);
        }
    }

    /// A successor is gone, and the switch before it goes on: connections that only the successor
    /// has had end.
    pub(crate) fn lose_successor(&mut self, switch: Switch) {
        self.lose(switch);
        let orphans = self.relays.iter().filter(|(_, (_, relay))| relay.is_orphan_of(switch));
        for number in orphans.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.take(number);
        }
    }

    /// Drops at most `most` connections that this switch and later ones have not claimed; returns
    /// their keys.
    pub(crate) fn settle(&mut self, switch: Switch, most: usize) -> Vec<String> {
        let old = self.relays.iter().filter(|(_, (_, relay))| relay.claimed < switch);
        let old: Vec<_> = old.take(most).map(|(number, (key, _))| (*number, key.clone())).collect();
        for (number, _) in &old {
            self.take(*number);
        }
        old.into_iter().map(|(_, key)| key).collect()
    }

    fn watch(
        &self,
        fd: impl AsFd,
        number: u64,
        side: u64,
        flags: epoll::EventFlags,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(FIRST_TOKEN + (number << 1) + side);
        Ok(epoll::add(&*self.epoll, fd, data, flags)?)
    }

    /// Takes a connection out.
    fn take(&mut self, number: u64) -> Option<Relay> {
        let (key, relay) = self.relays.remove(&number)?;
        self.by_key.remove(&key);
        // Others may have the connection open, so that closing it does not end the watch.
        let _ = epoll::delete(&*self.epoll, &relay.frontend);
        Some(relay)
    }
}

/// Prints a line to the log that the switch has left open. It may be closed, as the keeper outlives
/// the switch.
pub(crate) fn report(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
