//! UDP ports of the host that lead to machines.
//!
//! Each port of a rule is a socket, or two where it is for all addresses of both versions of IP. Its
//! clients' datagrams go to the machine from the client's own address; what the machine sends there
//! goes out through the same socket, from the address of the host that the client has sent to. Where
//! the machine cannot or is not to see the client's address (a client on the host's loopback, of the
//! other version of IP, or a rule that hides it), it sees a port of the gateway that stands for this
//! client. So it does if the client sends to a second address of the host from the same port: by what
//! the machine answers to, the two are told from each other.
//!
//! A port that cannot be bound is pending, with the reason, and is tried again. Datagrams for a
//! machine whose hardware address is not known yet wait in the socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use foldhash::fast::RandomState;
use mio::Interest;
use mio::unix::SourceFd;
use nix::errno::Errno;
use trama_frame::MacAddr;

use crate::config::{Forward, Transport};
use crate::io::PortId;
use crate::router::classify::STAND_INS;
use crate::router::context::{Context, Kind};
use crate::router::flow_table::{FlowTable, Limits};
use crate::router::forward::{RETRY, ends, is_outside, warning};
use crate::router::host_socket::{Arrival, HostSocket};
use crate::router::local_address::LocalAddress;

/// Numbers of these sockets' tokens begin here, behind those of flows.
pub(super) const FIRST: u32 = 1 << 31;
/// A client that is silent this long is forgotten.
const LIFE: [Duration; 1] = [Duration::from_secs(180)];
/// Clients of a port of the host, and of all of them.
const LIMITS: Limits = Limits { port: 4096, total: 16_384 };
/// A port of the host.
pub(super) struct Listener {
    pub name: String,
    pub host: SocketAddr,
    pub guest: SocketAddr,
    hides_client: bool,
    /// Where the machine was when something came for it last.
    pub station: Option<(MacAddr, PortId)>,
    /// The longest packet that the way to the machine takes, as far as it has shown.
    pub mtu: u16,
    /// The socket, or why there is none.
    pub socket: Result<HostSocket, Errno>,
}

/// Somebody outside who sends to a port of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    listener: u32,
    pub address: SocketAddr,
    /// Which of the host's addresses it sends to, if the port is one of all.
    pub local: Option<LocalAddress>,
}

/// The ports of the host that lead to machines, and their clients.
pub(super) struct Forwards {
    /// What `listeners` were made of.
    rules: Vec<Forward>,
    listeners: Vec<Listener>,
    /// The address that the machine sees of each client.
    clients: FlowTable<Client, SocketAddr, 1>,
    /// Clients by what the machine sees: its own address, theirs.
    shown: HashMap<(SocketAddr, SocketAddr), Client, RandomState>,
    retry: Option<Duration>,
}

impl Default for Forwards {
    fn default() -> Forwards {
        Forwards {
            rules: Vec::new(),
            listeners: Vec::new(),
            clients: FlowTable::new(LIFE, LIMITS),
            shown: HashMap::default(),
            retry: None,
        }
    }
}

impl Forwards {
    /// Follows the settings, forgets silent clients, and tries again what is pending. Warnings about
    /// what cannot be bound, each once.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Vec<String> {
        while let Some(number) = self.clients.expired(context.now) {
            self.forget(number);
        }
        let rules = context.config.nat.as_ref().map_or(&[][..], |nat| &nat.forwards);
        let mut warnings = Vec::new();
        if !rules.iter().filter(|rule| rule.transport == Transport::Udp).eq(&self.rules) {
            self.rebuild(rules, context, &mut warnings);
        } else if self.retry.is_some_and(|at| at <= context.now) {
            for (index, listener) in self.listeners.iter_mut().enumerate() {
                if listener.socket.is_err() {
                    listener.socket = bound(listener.host, index, context);
                }
            }
            self.plan_retry(context.now);
        }
        warnings
    }

    /// When [`Forwards::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        self.clients.deadline().into_iter().chain(self.retry).min()
    }

    /// Ports that are pending, and why: the rule's name, the host's address, the reason.
    pub fn pending(&self) -> impl Iterator<Item = (&str, SocketAddr, Errno)> {
        self.listeners.iter().filter_map(|listener| {
            let error = *listener.socket.as_ref().err()?;
            Some((&listener.name[..], listener.host, error))
        })
    }

    fn plan_retry(&mut self, now: Duration) {
        let is_pending = self.pending().next().is_some();
        self.retry = is_pending.then_some(now + RETRY);
    }

    /// Makes the listeners that the rules want; those that stay the same keep socket and clients.
    fn rebuild(
        &mut self,
        rules: &[Forward],
        context: &mut Context<'_>,
        warnings: &mut Vec<String>,
    ) {
        self.rules =
            rules.iter().filter(|rule| rule.transport == Transport::Udp).cloned().collect();
        let mut old: HashMap<_, _> = self
            .listeners
            .drain(..)
            .enumerate()
            .map(|(place, old)| ((old.host, old.guest, old.hides_client), (place as u32, old)))
            .collect();
        // Where those that stay go.
        let mut places = HashMap::new();
        let ends = self.rules.iter().flat_map(|rule| ends(rule).map(move |ends| (rule, ends)));
        for (rule, (host, guest)) in ends {
            let index = self.listeners.len();
            let socket = match old.remove(&(host, guest, rule.hides_client)) {
                Some((place, Listener { socket: Ok(socket), .. })) => {
                    places.insert(place, index as u32);
                    watched(socket, index, context)
                }
                _ => Err(Errno::EAGAIN),
            };
            let (name, hides_client) = (rule.name.clone(), rule.hides_client);
            let (station, mtu) = (None, u16::MAX);
            self.listeners.push(Listener { name, host, guest, hides_client, station, mtu, socket });
        }
        // What is not wanted any more gives its port back first.
        drop(old);
        self.move_clients(&places);
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.socket.is_ok() {
                continue;
            }
            listener.socket = bound(listener.host, index, context);
            if let Err(error) = listener.socket {
                let Listener { name, host, .. } = listener;
                warnings.push(warning(name, (Transport::Udp, *host), error));
            }
        }
        self.plan_retry(context.now);
    }

    /// Has clients follow their listeners to other places, and forgets those of the others.
    fn move_clients(&mut self, places: &HashMap<u32, u32>) {
        let clients = std::mem::replace(&mut self.clients, FlowTable::new(LIFE, LIMITS));
        self.shown.clear();
        let mut clients: Vec<_> = clients
            .iter()
            .filter_map(|(client, shown, used)| {
                Some((used, Client { listener: *places.get(&client.listener)?, ..*client }, *shown))
            })
            .collect();
        // In the order in which they will be forgotten.
        clients.sort_by_key(|(used, ..)| *used);
        for (used, client, shown) in clients {
            let guest = self.listeners[client.listener as usize].guest;
            self.clients.insert(used, PortId(client.listener.into()), client, shown, 0);
            self.shown.insert((guest, shown), client);
        }
    }

    /// The port of the host with this token.
    pub fn listener(&mut self, number: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(number.checked_sub(FIRST)? as usize)
    }

    /// The numbers of all ports of the host.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        FIRST..FIRST + self.listeners.len() as u32
    }

    /// Where a machine's datagram goes if it is for a client: the port of the host, and the client.
    pub fn client_of(
        &mut self,
        now: Duration,
        guest: SocketAddr,
        to: SocketAddr,
    ) -> Option<(u32, Client)> {
        if self.listeners.is_empty() {
            return None;
        }
        let client = *self.shown.get(&(guest, to))?;
        let number = self.clients.find(&client)?;
        self.clients.touch(now, number, 0);
        Some((FIRST + client.listener, client))
    }

    /// What the machine sees of a client that sends to the port of the host with this token.
    pub fn show(
        &mut self,
        number: u32,
        arrival: &Arrival<'_>,
        context: &mut Context<'_>,
    ) -> Option<SocketAddr> {
        let index = number.checked_sub(FIRST)?;
        let listener = self.listeners.get(index as usize)?;
        let (guest, hides_client) = (listener.guest, listener.hides_client);
        let (from, local) = (arrival.from, arrival.local);
        let client = Client { listener: index, address: from, local };
        if let Some(number) = self.clients.find(&client) {
            self.clients.touch(context.now, number, 0);
            return self.clients.get_mut(number).copied();
        }
        let real = SocketAddr::new(from.ip(), from.port());
        let is_visible = !hides_client
            && is_outside(context.config, real.ip())
            && real.is_ipv4() == guest.is_ipv4()
            && !self.shown.contains_key(&(guest, real));
        let shown = if is_visible { real } else { self.stand_in(guest, context)? };
        let port = PortId(index.into());
        if let Some(number) = self.clients.must_end(port) {
            self.forget(number);
        }
        self.clients.insert(context.now, port, client, shown, 0);
        self.shown.insert((guest, shown), client);
        Some(shown)
    }

    /// The port of the host by which a machine is sent what a client of its has to say.
    pub fn listener_of(&mut self, guest: SocketAddr, shown: SocketAddr) -> Option<&mut Listener> {
        let client = self.shown.get(&(guest, shown))?;
        self.listeners.get_mut(client.listener as usize)
    }

    /// What the machine sees of a client that has sent something, to this address of the host.
    pub fn shown(
        &mut self,
        number: u32,
        address: SocketAddr,
        local: Option<LocalAddress>,
    ) -> Option<SocketAddr> {
        let listener = number.checked_sub(FIRST)?;
        let number = self.clients.find(&Client { listener, address, local })?;
        self.clients.get_mut(number).copied()
    }

    /// A port of the gateway that stands for nobody yet.
    fn stand_in(&self, guest: SocketAddr, context: &mut Context<'_>) -> Option<SocketAddr> {
        let own = context.config.address_beside(guest.ip())?;
        let start = (context.random)() as u16;
        let ports = (0..=STAND_INS.end() - STAND_INS.start()).map(|step| {
            let step = start.wrapping_add(step) & (STAND_INS.end() - STAND_INS.start());
            SocketAddr::new(own, STAND_INS.start() + step)
        });
        ports.into_iter().find(|shown| !self.shown.contains_key(&(guest, *shown)))
    }

    fn forget(&mut self, number: u32) {
        let Some((client, shown)) = self.clients.remove(number) else { return };
        if let Some(listener) = self.listeners.get(client.listener as usize) {
            self.shown.remove(&(listener.guest, shown));
        }
    }
}

/// A socket for a port of the host.
fn bound(host: SocketAddr, index: usize, context: &Context<'_>) -> Result<HostSocket, Errno> {
    let mut socket = HostSocket::udp(host.is_ipv6())?;
    socket.bind(host)?;
    watched(socket, index, context)
}

/// Has the socket's readiness told by the number of its listener.
fn watched(socket: HostSocket, index: usize, context: &Context<'_>) -> Result<HostSocket, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let token = Kind::Udp.token(FIRST + index as u32);
    let mut source = SourceFd(&fd);
    let result = match context.registry.reregister(&mut source, token, Interest::READABLE) {
        Err(_) => context.registry.register(&mut source, token, Interest::READABLE),
        result => result,
    };
    result.map(|()| socket).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod anywhere_tests;
#[cfg(test)]
mod tests;
