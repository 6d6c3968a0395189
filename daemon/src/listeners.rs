//! The sockets by which a daemon is steered and observed: control and metrics.
//!
//! They are made before the daemon gives up its privileges. The next switch has the same ones from
//! the keeper: who connects meanwhile waits in their queues.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SocketAddrUnix, getsockname};
use trama_helper::Rights;
use trama_keeper::{Keeper, Kept};
use trama_vhost_net_backend::{Access, access};

use crate::config::model::DaemonConfig;
use crate::socket::ControlSocket;

/// The keys of the keeper's entries.
const CONTROL: &str = "control";
const METRICS: &str = "metrics";

/// The listening sockets; non-blocking.
pub struct Listeners {
    /// The control socket.
    pub control: UnixListener,
    /// Removes the control socket's file when it is dropped; `None` if another process has made it.
    pub file: Option<ControlSocket>,
    /// Where metrics are scraped.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Goes on with the sockets that the keeper has, or makes them; a service has its helper make
    /// the control socket.
    ///
    /// # Errors
    /// A socket cannot be made; the text says why and has a remedy.
    pub fn open(
        daemon: &DaemonConfig,
        keeper: Option<&Keeper>,
        service: Option<&Rights>,
    ) -> Result<Listeners, String> {
        let access = control_access(daemon)?;
        let value = control_value(&daemon.control, &access);
        let (control, file) = match kept(keeper, CONTROL, value.as_bytes()) {
            Some(socket) if listens_at(&socket, &daemon.control) => {
                (UnixListener::from(socket), None)
            }
            socket => {
                drop(socket);
                forget(keeper, CONTROL);
                match service {
                    Some(rights) => (rights.control(&access)?, None),
                    None => {
                        let made = ControlSocket::bind(&daemon.control, &access);
                        let (file, control) = made.map_err(|fault| fault.to_string())?;
                        (control, Some(file))
                    }
                }
            }
        };
        let metrics = daemon.metrics.map(|address| {
            let value = address.to_string();
            let socket = kept(keeper, METRICS, value.as_bytes()).map(TcpListener::from);
            match socket.filter(|socket| listens_on(socket, address)) {
                Some(socket) => Ok(socket),
                None => {
                    forget(keeper, METRICS);
                    bind_metrics(address)
                }
            }
        });
        Ok(Listeners { control, file, metrics: metrics.transpose()? })
    }

    /// Gives the keeper copies.
    ///
    /// # Errors
    /// The keeper does not take them.
    pub fn keep(&self, daemon: &DaemonConfig, keeper: &Keeper) -> io::Result<()> {
        let access = control_access(daemon).map_err(io::Error::other)?;
        let value = control_value(&daemon.control, &access);
        put(keeper, CONTROL, value.as_bytes(), self.control.as_fd())?;
        if let (Some(metrics), Some(address)) = (&self.metrics, daemon.metrics) {
            put(keeper, METRICS, address.to_string().as_bytes(), metrics.as_fd())?;
        }
        Ok(())
    }
}

/// What the next configuration must say too, if the next switch is to go on with the socket.
fn control_value(path: &Path, access: &Access) -> String {
    format!("{} {access:?}", path.display())
}

/// Returns the socket of an entry with this value.
fn kept(keeper: Option<&Keeper>, key: &str, value: &[u8]) -> Option<OwnedFd> {
    match keeper?.get(key) {
        Ok(Some(Kept { value: found, fds })) if found == value => fds.into_iter().next(),
        _ => None,
    }
}

/// Whether a socket listens at a path where a file is.
fn listens_at(socket: &OwnedFd, path: &Path) -> bool {
    let address = getsockname(socket).ok().and_then(|it| SocketAddrUnix::try_from(it).ok());
    let is_there = address.is_some_and(|it| it.path_bytes() == Some(path.as_os_str().as_bytes()));
    is_there && socket_acceptconn(socket) == Ok(true) && path.exists()
}

/// Whether a socket listens on an address, or on all of IPv4 in the place of `::`.
fn listens_on(socket: &TcpListener, wanted: SocketAddr) -> bool {
    let is_wanted = |found: SocketAddr| {
        let all = wanted.ip() == Ipv6Addr::UNSPECIFIED && found.ip() == Ipv4Addr::UNSPECIFIED;
        let has_port = wanted.port() == 0 || found.port() == wanted.port();
        has_port && (all || found.ip() == wanted.ip())
    };
    socket.local_addr().is_ok_and(is_wanted) && socket_acceptconn(socket) == Ok(true)
}

/// Closes the keeper's copy, so that the address is free.
fn forget(keeper: Option<&Keeper>, key: &str) {
    // A keeper that does not answer has ended, and its copies are closed.
    let _ = keeper.map(|keeper| keeper.remove(key));
}

fn put(keeper: &Keeper, key: &str, value: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
    keeper.put(key, value, &[socket])
}

/// Returns the users that may connect to the control socket and so do everything: its owner and its
/// group. A user's daemon has a group only if one is named.
pub(crate) fn control_access(daemon: &DaemonConfig) -> Result<Access, String> {
    let group = daemon.group.as_deref().map(access::group_id).transpose();
    let group = group.map_err(|error| format!("daemon.group: {error}"))?;
    let is_shared = group.is_some() || !daemon.folders.is_private;
    Ok(Access { owner: None, group, mode: Some(if is_shared { 0o660 } else { 0o600 }) })
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, String> {
    let bind = |address: SocketAddr| -> io::Result<_> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let no_ipv6 = Some(Errno::AFNOSUPPORT.raw_os_error());
    let bound = match bind(address) {
        // On a host without IPv6, `::` stands for all IPv4 addresses.
        Err(error) if error.raw_os_error() == no_ipv6 && address.ip() == Ipv6Addr::UNSPECIFIED => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    };
    bound.map_err(|error: io::Error| {
        format!("{address}: {error}; set another address as daemon.metrics")
    })
}
