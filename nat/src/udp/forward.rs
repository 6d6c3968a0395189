//! UDP forwards: ports of the host that lead to guests.
//!
//! Each port of a rule is a socket, or two if it listens at all addresses of both IP versions. The
//! guest receives a client's datagrams from the client's own address; its answers leave through the
//! same socket, from the address that the client sent to. A client is masqueraded behind a port of
//! the gateway if the guest cannot reach its address (it is on the host's loopback or of the other
//! IP version), if the rule asks for it, or if it sends to a second address of the host from the
//! same port, so that answers to the two can be told apart.
//!
//! A port that cannot be bound is pending, and is tried again. Datagrams for a guest whose MAC
//! address is not known yet wait in the socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use foldhash::fast::RandomState;
use mio::Interest;
use mio::unix::SourceFd;
use nix::errno::Errno;
use trama_frame::MacAddr;

use crate::classify::MASQUERADE_PORTS;
use crate::context::{Context, TokenKind};
use crate::flow_table::{FlowTable, Limits};
use crate::forward::{RETRY, is_routed_via_gateway, port_pairs, warning};
use crate::host_socket::{HostDatagram, HostSocket};
use crate::io::PortMark;
use crate::local_address::LocalAddress;
use crate::rules::{Forward, Transport};

/// First token number of listeners, above those of flows.
pub(super) const FIRST_LISTENER: u32 = 1 << 31;
/// Idle time after which a client is forgotten.
const LIFETIME: [Duration; 1] = [Duration::from_secs(180)];
/// Clients of one port of the host, and in total.
const LIMITS: Limits = Limits { port: 4096, total: 16_384 };
/// A port of the host.
pub(super) struct Listener {
    pub name: String,
    pub host: SocketAddr,
    pub guest: SocketAddr,
    hides_client: bool,
    /// The guest's MAC address and switch port at the last datagram.
    pub station: Option<(MacAddr, PortMark)>,
    /// Path MTU to the guest, as far as ICMP errors reported it.
    pub mtu: u16,
    /// The socket, or why there is none.
    pub socket: Result<HostSocket, Errno>,
}

/// A client outside that sends to a port of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    listener: u32,
    pub address: SocketAddr,
    /// The local address that it sends to, if the port listens at all addresses.
    pub local: Option<LocalAddress>,
}

/// All UDP forwards and their clients.
pub(super) struct Forwards {
    /// The rules that `listeners` were made from.
    rules: Vec<Forward>,
    listeners: Vec<Listener>,
    /// The address of each client that the guest sees.
    clients: FlowTable<Client, SocketAddr, 1>,
    /// Clients by the guest's address and the client's address that the guest sees.
    by_visible: HashMap<(SocketAddr, SocketAddr), Client, RandomState>,
    retry: Option<Duration>,
}

impl Default for Forwards {
    fn default() -> Forwards {
        Forwards {
            rules: Vec::new(),
            listeners: Vec::new(),
            clients: FlowTable::new(LIFETIME, LIMITS),
            by_visible: HashMap::default(),
            retry: None,
        }
    }
}

impl Forwards {
    /// Applies changed settings, expires clients, and retries pending ports. Returns warnings about
    /// ports that cannot be bound; each is returned once.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Vec<String> {
        while let Some(number) = self.clients.expired(context.now) {
            self.forget(number);
        }
        let rules = context.config.rules.map_or(&[][..], |nat| &nat.forwards);
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

    /// When [`Forwards::poll`] has to be called next.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.clients.deadline().into_iter().chain(self.retry).min()
    }

    /// Pending ports: name of the rule, address of the host, error.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&str, SocketAddr, Errno)> {
        self.listeners.iter().filter_map(|listener| {
            let error = *listener.socket.as_ref().err()?;
            Some((&listener.name[..], listener.host, error))
        })
    }

    fn plan_retry(&mut self, now: Duration) {
        let is_pending = self.pending().next().is_some();
        self.retry = is_pending.then_some(now + RETRY);
    }

    /// Makes the listeners for the rules. Unchanged ones keep socket and clients.
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
            .map(|(old_index, old)| {
                ((old.host, old.guest, old.hides_client), (old_index as u32, old))
            })
            .collect();
        // New index of each listener that stays, by its old one.
        let mut moved = HashMap::new();
        let ends =
            self.rules.iter().flat_map(|rule| port_pairs(rule).map(move |ends| (rule, ends)));
        for (rule, (host, guest)) in ends {
            let index = self.listeners.len();
            let socket = match old.remove(&(host, guest, rule.hides_client)) {
                Some((old_index, Listener { socket: Ok(socket), .. })) => {
                    moved.insert(old_index, index as u32);
                    watched(socket, index, context)
                }
                _ => Err(Errno::EAGAIN),
            };
            let (name, hides_client) = (rule.name.clone(), rule.hides_client);
            let (station, mtu) = (None, u16::MAX);
            self.listeners.push(Listener { name, host, guest, hides_client, station, mtu, socket });
        }
        // Closes the old sockets before their ports are bound again.
        drop(old);
        self.move_clients(&moved);
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

    /// Moves clients to the new index of their listener, and forgets the others.
    fn move_clients(&mut self, moved: &HashMap<u32, u32>) {
        let clients = std::mem::replace(&mut self.clients, FlowTable::new(LIFETIME, LIMITS));
        self.by_visible.clear();
        let mut clients: Vec<_> = clients
            .iter()
            .filter_map(|(client, visible, used)| {
                Some((
                    used,
                    Client { listener: *moved.get(&client.listener)?, ..*client },
                    *visible,
                ))
            })
            .collect();
        // Ordered by last use, as the table expects.
        clients.sort_by_key(|(used, ..)| *used);
        for (used, client, visible) in clients {
            let guest = self.listeners[client.listener as usize].guest;
            self.clients.insert(used, PortMark(client.listener.into()), client, visible, 0);
            self.by_visible.insert((guest, visible), client);
        }
    }

    /// The listener with this token number.
    pub(super) fn listener(&mut self, number: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(number.checked_sub(FIRST_LISTENER)? as usize)
    }

    /// The token numbers of all listeners.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        FIRST_LISTENER..FIRST_LISTENER + self.listeners.len() as u32
    }

    /// The listener and client that a guest's datagram is for, if any.
    pub(super) fn client_of(
        &mut self,
        now: Duration,
        guest: SocketAddr,
        to: SocketAddr,
    ) -> Option<(u32, Client)> {
        if self.listeners.is_empty() {
            return None;
        }
        let client = *self.by_visible.get(&(guest, to))?;
        let number = self.clients.find(&client)?;
        self.clients.touch(now, number, 0);
        Some((FIRST_LISTENER + client.listener, client))
    }

    /// The source address that the guest sees for a datagram of a client. A new client is added.
    pub(super) fn visible_address(
        &mut self,
        number: u32,
        datagram: &HostDatagram<'_>,
        context: &mut Context<'_>,
    ) -> Option<SocketAddr> {
        let index = number.checked_sub(FIRST_LISTENER)?;
        let listener = self.listeners.get(index as usize)?;
        let (guest, hides_client) = (listener.guest, listener.hides_client);
        let (from, local) = (datagram.from, datagram.local);
        let client = Client { listener: index, address: from, local };
        if let Some(number) = self.clients.find(&client) {
            self.clients.touch(context.now, number, 0);
            return self.clients.get_mut(number).copied();
        }
        let real = SocketAddr::new(from.ip(), from.port());
        let is_visible = !hides_client
            && is_routed_via_gateway(context.config, real.ip())
            && real.is_ipv4() == guest.is_ipv4()
            && !self.by_visible.contains_key(&(guest, real));
        let visible = if is_visible { real } else { self.masquerade(guest, context)? };
        let port = PortMark(index.into());
        if let Some(number) = self.clients.eviction_candidate(port) {
            self.forget(number);
        }
        self.clients.insert(context.now, port, client, visible, 0);
        self.by_visible.insert((guest, visible), client);
        Some(visible)
    }

    /// The listener of the client that the guest sees as `visible`.
    pub(super) fn listener_of(
        &mut self,
        guest: SocketAddr,
        visible: SocketAddr,
    ) -> Option<&mut Listener> {
        let client = self.by_visible.get(&(guest, visible))?;
        self.listeners.get_mut(client.listener as usize)
    }

    /// The address that the guest sees of a known client that sends to `local`.
    pub(super) fn known_visible(
        &mut self,
        number: u32,
        address: SocketAddr,
        local: Option<LocalAddress>,
    ) -> Option<SocketAddr> {
        let listener = number.checked_sub(FIRST_LISTENER)?;
        let number = self.clients.find(&Client { listener, address, local })?;
        self.clients.get_mut(number).copied()
    }

    /// A free source port of the gateway.
    fn masquerade(&self, guest: SocketAddr, context: &mut Context<'_>) -> Option<SocketAddr> {
        let gateway = context.config.station.address_for(guest.ip())?;
        let start = (context.random)() as u16;
        let ports = (0..=MASQUERADE_PORTS.end() - MASQUERADE_PORTS.start()).map(|step| {
            let step =
                start.wrapping_add(step) & (MASQUERADE_PORTS.end() - MASQUERADE_PORTS.start());
            SocketAddr::new(gateway, MASQUERADE_PORTS.start() + step)
        });
        ports.into_iter().find(|visible| !self.by_visible.contains_key(&(guest, *visible)))
    }

    fn forget(&mut self, number: u32) {
        let Some((client, visible)) = self.clients.remove(number) else { return };
        if let Some(listener) = self.listeners.get(client.listener as usize) {
            self.by_visible.remove(&(listener.guest, visible));
        }
    }
}

/// Opens and binds the socket of a listener.
fn bound(host: SocketAddr, index: usize, context: &Context<'_>) -> Result<HostSocket, Errno> {
    let mut socket = HostSocket::udp(host.is_ipv6())?;
    socket.bind(host)?;
    watched(socket, index, context)
}

/// Registers a listener's socket under its index.
fn watched(socket: HostSocket, index: usize, context: &Context<'_>) -> Result<HostSocket, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let token = TokenKind::Udp.token(FIRST_LISTENER + index as u32);
    let mut source = SourceFd(&fd);
    let result = match context.registry.reregister(&mut source, token, Interest::READABLE) {
        Err(_) => context.registry.register(&mut source, token, Interest::READABLE),
        result => result,
    };
    result.map(|()| socket).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wildcard_tests;
