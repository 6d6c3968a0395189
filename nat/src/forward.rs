//! TCP forwards: ports of the host that lead to guests, and clients that wait for their guest's MAC
//! address.
//!
//! A port that cannot be bound is *pending* and is tried again every few seconds.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use nix::errno::Errno;
use rustix::net::sockopt::set_socket_linger;

use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::neighbour_cache::NeighbourCache;
use crate::rules::{Config, Forward, Transport};
use crate::tcp;
use crate::{host_socket, host_stream};

/// When a port that could not be bound is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(3);
/// How long a client waits for its guest's MAC address, how often that is resolved, and how many
/// clients may wait for one guest.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const RESOLVE_INTERVAL: Duration = Duration::from_millis(100);
const MAX_WAITING: usize = 64;
/// The first source port of the gateway for masqueraded clients.
const FIRST_MASQUERADE_PORT: u16 = 1024;
/// Clients accepted in one turn.
const ACCEPT_BATCH: usize = 64;

/// One port of a rule.
struct Listener {
    rule: Forward,
    host: SocketAddr,
    guest: SocketAddr,
    /// The socket, or why there is none.
    socket: Result<TcpListener, Errno>,
    /// More clients may be waiting than one turn accepted.
    has_more: bool,
}

/// A client that has connected to a port.
struct Client {
    stream: TcpStream,
    address: SocketAddr,
    guest: SocketAddr,
    /// Whether the guest sees the gateway's address instead of the client's.
    is_masqueraded: bool,
    /// When the client is refused unless the guest's MAC address is known.
    until: Duration,
}

/// All TCP forwards.
#[derive(Default)]
pub(crate) struct Forwards {
    listeners: Vec<Listener>,
    /// Clients whose guest's MAC address is being resolved, by guest.
    waiting: HashMap<IpAddr, Vec<Client>>,
    /// When to retry pending ports, and clients that found no descriptor.
    retry: Option<Duration>,
    warnings: Vec<String>,
}

impl Forwards {
    /// Listens on the ports of the settings. A port whose rule did not change stays open.
    pub(super) fn configure(&mut self, context: &Context<'_>) {
        let mut old = std::mem::take(&mut self.listeners);
        let forwards = context.config.rules.iter().flat_map(|nat| &nat.forwards);
        for rule in forwards.filter(|rule| rule.transport == Transport::Tcp) {
            for (host, guest) in port_pairs(rule) {
                let same = |had: &Listener| had.host == host;
                let socket = match old.iter().position(same).map(|at| old.swap_remove(at).socket) {
                    Some(Ok(socket)) => Ok(socket),
                    _ => Err(Errno::EAGAIN),
                };
                let rule = rule.clone();
                self.listeners.push(Listener { rule, host, guest, socket, has_more: false });
            }
        }
        // Closes the old sockets before their ports are bound again.
        drop(old);
        self.listen(context, true);
    }

    /// Opens the sockets that are not open. `is_new`: the numbers of listeners may have changed.
    fn listen(&mut self, context: &Context<'_>, is_new: bool) {
        let mut pending = false;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let token = TokenKind::Forward.token(number as u32);
            match &mut listener.socket {
                Ok(socket) if is_new => {
                    if let Err(error) =
                        context.registry.reregister(socket, token, Interest::READABLE)
                    {
                        listener.socket = Err(errno(&error));
                    }
                }
                Ok(_) => {}
                Err(known) => {
                    let opened = host_stream::listen(listener.host).and_then(|mut socket| {
                        context.registry.register(&mut socket, token, Interest::READABLE)?;
                        Ok(socket)
                    });
                    let socket = opened.map_err(|error| errno(&error));
                    if let Err(error) = &socket
                        && error != known
                    {
                        let (name, port) = (&listener.rule.name, (Transport::Tcp, listener.host));
                        self.warnings.push(warning(name, port, *error));
                    }
                    listener.socket = socket;
                }
            }
            pending |= listener.socket.is_err();
        }
        self.retry = pending.then_some(context.now + RETRY);
    }

    /// The ports that cannot be bound: name of the rule, port, error.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&str, SocketAddr, Errno)> {
        self.listeners.iter().filter_map(|listener| {
            let error = *listener.socket.as_ref().err()?;
            Some((&*listener.rule.name, listener.host, error))
        })
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Clients wait at a port.
    pub(super) fn ready(&mut self, number: u32) {
        if let Some(listener) = self.listeners.get_mut(number as usize) {
            listener.has_more = true;
        }
    }

    pub(super) fn poll(
        &mut self,
        neighbours: &mut NeighbourCache,
        flows: &mut tcp::Flows,
        context: &mut Context<'_>,
    ) {
        if self.retry.is_some_and(|at| at <= context.now) {
            self.listen(context, false);
            self.listeners.iter_mut().for_each(|it| it.has_more |= it.socket.is_ok());
        }
        for client in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.connect_client(client, neighbours, flows, context);
        }
        for index in 0..self.listeners.len() {
            let (clients, are_all) = accept(&mut self.listeners[index], context);
            if !are_all {
                self.retry.get_or_insert(context.now + RETRY);
            }
            for client in clients {
                self.connect_client(client, neighbours, flows, context);
            }
        }
    }

    /// Connects a client to its guest, or queues it until the guest's MAC address is known.
    fn connect_client(
        &mut self,
        client: Client,
        neighbours: &mut NeighbourCache,
        flows: &mut tcp::Flows,
        context: &mut Context<'_>,
    ) {
        let guest = client.guest.ip();
        let Some((mac, port)) = neighbours.resolve(guest, context) else {
            let waiting = self.waiting.entry(guest).or_default();
            let refusal = match waiting.len() < MAX_WAITING {
                true if client.until > context.now => return waiting.push(client),
                true => DropReason::NoStation,
                false => DropReason::FlowLimit,
            };
            refuse(&client.stream);
            return context.counters.drop(refusal);
        };
        let Some(remote) = visible_address(&client, flows, context) else {
            return refuse(&client.stream);
        };
        let route = (mac, client.guest, remote);
        if let Err(reason) = flows.open_to_guest(port, route, client.stream, context) {
            context.counters.drop(reason);
        }
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        if self.listeners.iter().any(|listener| listener.has_more) {
            return Some(now);
        }
        let waits = self.waiting.values().any(|clients| !clients.is_empty());
        let resolve = waits.then_some(now + RESOLVE_INTERVAL);
        resolve.into_iter().chain(self.retry).min()
    }
}

/// Accepts clients. Returns false if descriptors ran out before all were accepted.
fn accept(listener: &mut Listener, context: &mut Context<'_>) -> (Vec<Client>, bool) {
    let mut clients = Vec::new();
    let Ok(socket) = &listener.socket else { return (clients, true) };
    while listener.has_more && clients.len() < ACCEPT_BATCH {
        match socket.accept() {
            Ok((stream, address)) => clients.push(Client {
                stream,
                address,
                guest: listener.guest,
                is_masqueraded: listener.rule.hides_client,
                until: context.now + RESOLVE_TIMEOUT,
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => listener.has_more = false,
            // The client is gone; the next turn accepts others.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => break,
            Err(_) => {
                listener.has_more = false;
                context.counters.drop(DropReason::FileLimit);
                return (clients, false);
            }
        }
    }
    (clients, true)
}

/// Resets a client's connection.
fn refuse(stream: &TcpStream) {
    // On failure, the connection is closed in order.
    let _: io::Result<()> =
        set_socket_linger(stream, Some(Duration::ZERO)).map_err(io::Error::from);
}

/// The source address that the guest sees: the client's, or one of the gateway if the client is
/// masqueraded, if the guest's answers would not come back to the gateway, or if another flow uses
/// that address.
fn visible_address(
    client: &Client,
    flows: &tcp::Flows,
    context: &mut Context<'_>,
) -> Option<SocketAddr> {
    let (guest, address) = (client.guest, client.address.ip());
    let real = SocketAddr::new(address, client.address.port());
    if !client.is_masqueraded
        && address.is_ipv4() == guest.is_ipv4()
        && is_routed_via_gateway(context.config, address)
        && flows.can_open_to_guest(guest, real)
    {
        return Some(real);
    }
    let gateway = context.config.station.address_for(guest.ip())?;
    let (count, start) = (u64::from(u16::MAX - FIRST_MASQUERADE_PORT) + 1, (context.random)());
    let port = |step| FIRST_MASQUERADE_PORT + (start.wrapping_add(step) % count) as u16;
    (0..count)
        .map(|step| SocketAddr::new(gateway, port(step)))
        .find(|remote| flows.can_open_to_guest(guest, *remote))
}

/// Whether a guest sends its answers to `address` through the gateway.
pub(super) fn is_routed_via_gateway(config: Config<'_>, address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    let near = match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || config.station.ipv4.is_some_and(|net| net.contains(&v4))
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || config.station.ipv6.is_some_and(|net| net.contains(&v6))
        }
    };
    !special && !near && !config.station.is_guest(address)
}

/// The ports that a rule connects: the host's and the guest's.
pub(super) fn port_pairs(rule: &Forward) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
    let hosts = rule.host.map_or_else(host_socket::wildcards, |host| vec![host]);
    hosts.into_iter().flat_map(move |host| {
        (0..rule.count).filter_map(move |offset| {
            let port = rule.host_port.checked_add(offset)?;
            let guest_port = rule.guest.port().checked_add(offset)?;
            Some((SocketAddr::new(host, port), SocketAddr::new(rule.guest.ip(), guest_port)))
        })
    })
}

/// The text for an error in binding a port.
pub(super) fn errno_text(error: Errno) -> &'static str {
    match error {
        Errno::EAFNOSUPPORT => "the host does not have that IP version",
        Errno::EADDRNOTAVAIL => "the host does not have that address",
        error => error.desc(),
    }
}

/// The warning that a rule is pending.
pub(super) fn warning(
    name: &str,
    (transport, host): (Transport, SocketAddr),
    error: Errno,
) -> String {
    let (transport, reason) = (transport.name(), errno_text(error));
    format!("forward {name:?} is pending: {transport} {host}: {reason}; retrying")
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests;
