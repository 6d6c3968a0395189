//! Ports of the host that lead to machines of the network: their listeners, and clients that wait
//! until the machine's station is known.
//!
//! A port that cannot be listened on is *pending*: it is tried again every few seconds.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use nix::errno::Errno;
use rustix::net::sockopt::set_socket_linger;

use super::classify::is_machine;
use super::context::{Context, Kind};
use super::neighbours::Neighbours;
use super::tcp;
use super::{host_socket, host_stream};
use crate::config::{Config, Forward, Transport};
use crate::drop_reason::DropReason;

/// When a port of the host that could not be bound is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(3);
/// How long a client waits for a machine's station, how often it is looked for, and how many wait for
/// one machine.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
const WAITING: usize = 64;
/// The first port of the gateway from which a machine may see a client come.
const FIRST_OWN: u16 = 1024;
/// Clients taken before everything else has its turn.
const ACCEPTS: usize = 64;

/// One port of a rule.
struct Listener {
    rule: Forward,
    host: SocketAddr,
    guest: SocketAddr,
    /// The socket, or why there is none.
    socket: Result<TcpListener, Errno>,
    /// More clients may wait than one turn took.
    has_more: bool,
}

/// Somebody who has connected to a port.
struct Client {
    stream: TcpStream,
    address: SocketAddr,
    guest: SocketAddr,
    /// Whether the machine sees the gateway in its place.
    is_hidden: bool,
    /// How long it waits for its machine's station.
    until: Duration,
}

/// All forwards of TCP.
#[derive(Default)]
pub(crate) struct Forwards {
    listeners: Vec<Listener>,
    /// Clients whose machine's station is asked for, by machine.
    waiting: HashMap<IpAddr, Vec<Client>>,
    /// When pending ports, and clients that there was no descriptor for, are tried again.
    retry: Option<Duration>,
    warnings: Vec<String>,
}

impl Forwards {
    /// Listens on what the settings say. A port whose rule did not change does not notice.
    pub(super) fn configure(&mut self, context: &Context<'_>) {
        let mut old = std::mem::take(&mut self.listeners);
        let forwards = context.config.nat.iter().flat_map(|nat| &nat.forwards);
        for rule in forwards.filter(|rule| rule.transport == Transport::Tcp) {
            for (host, guest) in ends(rule) {
                let same = |had: &Listener| had.host == host;
                let socket = match old.iter().position(same).map(|at| old.swap_remove(at).socket) {
                    Some(Ok(socket)) => Ok(socket),
                    _ => Err(Errno::EAGAIN),
                };
                let rule = rule.clone();
                self.listeners.push(Listener { rule, host, guest, socket, has_more: false });
            }
        }
        // Closed before their ports are asked for again.
        drop(old);
        self.listen(context, true);
    }

    /// Opens what is not open. `is_new`: numbers of sockets may have changed.
    fn listen(&mut self, context: &Context<'_>, is_new: bool) {
        let mut pending = false;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let token = Kind::Forward.token(number as u32);
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

    /// The ports that cannot be listened on: the rule's name, the port and the reason.
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
        neighbours: &mut Neighbours,
        flows: &mut tcp::Flows,
        context: &mut Context<'_>,
    ) {
        if self.retry.is_some_and(|at| at <= context.now) {
            self.listen(context, false);
            self.listeners.iter_mut().for_each(|it| it.has_more |= it.socket.is_ok());
        }
        for client in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.lead_on(client, neighbours, flows, context);
        }
        for index in 0..self.listeners.len() {
            let (clients, are_all) = accept(&mut self.listeners[index], context);
            if !are_all {
                self.retry.get_or_insert(context.now + RETRY);
            }
            for client in clients {
                self.lead_on(client, neighbours, flows, context);
            }
        }
    }

    /// Leads a client to its machine, or has it wait until it is known where that is.
    fn lead_on(
        &mut self,
        client: Client,
        neighbours: &mut Neighbours,
        flows: &mut tcp::Flows,
        context: &mut Context<'_>,
    ) {
        let machine = client.guest.ip();
        let Some((mac, port)) = neighbours.station(machine, context) else {
            let waiting = self.waiting.entry(machine).or_default();
            let refusal = match waiting.len() < WAITING {
                true if client.until > context.now => return waiting.push(client),
                true => DropReason::NoStation,
                false => DropReason::FlowLimit,
            };
            refuse(&client.stream);
            return context.counters.drop(refusal);
        };
        let Some(remote) = shown(&client, flows, context) else { return refuse(&client.stream) };
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
        let look = waits.then_some(now + LOOK);
        look.into_iter().chain(self.retry).min()
    }
}

/// Takes clients of a port. False: others wait until there are descriptors again.
fn accept(listener: &mut Listener, context: &mut Context<'_>) -> (Vec<Client>, bool) {
    let mut clients = Vec::new();
    let Ok(socket) = &listener.socket else { return (clients, true) };
    while listener.has_more && clients.len() < ACCEPTS {
        match socket.accept() {
            Ok((stream, address)) => clients.push(Client {
                stream,
                address,
                guest: listener.guest,
                is_hidden: listener.rule.hides_client,
                until: context.now + PATIENCE,
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => listener.has_more = false,
            // The client has gone: the next turn looks for others.
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

/// Closes a client's connection by a reset.
fn refuse(stream: &TcpStream) {
    // One that cannot be reset is closed in order.
    let _: io::Result<()> =
        set_socket_linger(stream, Some(Duration::ZERO)).map_err(io::Error::from);
}

/// Whom the machine sees as its client: the client, or the gateway if it is to be hidden, if answers
/// to it would not come back to us, or if another port has led it to the machine already.
fn shown(client: &Client, flows: &tcp::Flows, context: &mut Context<'_>) -> Option<SocketAddr> {
    let (guest, address) = (client.guest, client.address.ip());
    let real = SocketAddr::new(address, client.address.port());
    if !client.is_hidden
        && address.is_ipv4() == guest.is_ipv4()
        && is_outside(context.config, address)
        && flows.can_open_to_guest(guest, real)
    {
        return Some(real);
    }
    let own = context.config.address_beside(guest.ip())?;
    let (count, start) = (u64::from(u16::MAX - FIRST_OWN) + 1, (context.random)());
    let port = |step| FIRST_OWN + (start.wrapping_add(step) % count) as u16;
    (0..count)
        .map(|step| SocketAddr::new(own, port(step)))
        .find(|remote| flows.can_open_to_guest(guest, *remote))
}

/// Whether a machine's answers to `address` go through its gateway.
pub(super) fn is_outside(config: &Config, address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    let near = match address {
        IpAddr::V4(v4) => v4.is_link_local() || config.ipv4.is_some_and(|net| net.contains(v4)),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || config.ipv6.is_some_and(|net| net.contains(v6))
        }
    };
    !special && !near && !is_machine(config, address)
}

/// The ports that a rule joins: the host's, and the machine's.
pub(super) fn ends(rule: &Forward) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
    let hosts = rule.host.map_or_else(host_socket::wildcards, |host| vec![host]);
    hosts.into_iter().flat_map(move |host| {
        (0..rule.count).filter_map(move |offset| {
            let port = rule.host_port.checked_add(offset)?;
            let guest_port = rule.guest.port().checked_add(offset)?;
            Some((SocketAddr::new(host, port), SocketAddr::new(rule.guest.ip(), guest_port)))
        })
    })
}

/// Why a port of the host cannot be listened on.
pub(super) fn reason(error: Errno) -> &'static str {
    match error {
        Errno::EAFNOSUPPORT => "this host does not have that version of IP",
        Errno::EADDRNOTAVAIL => "this host does not have that address",
        error => error.desc(),
    }
}

/// Says that a rule is pending.
pub(super) fn warning(
    name: &str,
    (transport, host): (Transport, SocketAddr),
    error: Errno,
) -> String {
    let (transport, reason) = (transport.name(), reason(error));
    format!("forward {name:?} is pending: {transport} {host}: {reason}; it is tried again")
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests;
