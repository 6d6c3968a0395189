//! What a descriptor is that a client has handed over: a TAP, or a socket of one of the kinds that
//! carry frames.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getpeername, getsockname,
};
use trama_helper::{Entry, Rights};
use trama_switch::TapParts;
use trama_tap::HandedTap;
use trama_vhost_net_backend::{Access, Listening, SocketError, SocketFile, Sockets};

use crate::config::model::AttachedKind;

/// Queue pairs of a vhost-user port whose socket was handed over.
pub(crate) const QUEUES: u16 = 1;

/// A descriptor that is ready for the switch.
pub(crate) struct Handed {
    /// The name of a TAP in its namespace, or the address of a socket.
    pub(crate) place: String,
    pub(crate) device: HandedDevice,
}

/// What it is.
pub(crate) enum HandedDevice {
    /// A TAP.
    Tap(TapParts),
    /// A connected stream socket.
    Stream(OwnedFd),
    /// A connected datagram socket.
    Dgram(OwnedFd),
    /// A listening Unix socket.
    VhostUser(OwnedFd),
}

impl Handed {
    /// The name of a TAP in its namespace; empty for a socket.
    pub(crate) fn ifname(&self) -> &str {
        if self.device.kind() == AttachedKind::Tap { &self.place } else { "" }
    }
}

/// Looks at a descriptor, and makes it non-blocking.
///
/// # Errors
/// It is nothing that a port can have; the text says what it is, and what to pass.
pub(crate) fn identify(fd: OwnedFd) -> Result<Handed, String> {
    let stat =
        fstat(&fd).map_err(|error| format!("the descriptor cannot be looked at: {error}"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
        return socket(fd);
    }
    let HandedTap { ifname, parts } = trama_tap::identify(fd).map_err(|error| error.to_string())?;
    Ok(Handed { place: ifname, device: HandedDevice::Tap(parts) })
}

/// The same for a socket.
pub(crate) fn socket(fd: OwnedFd) -> Result<Handed, String> {
    let failed = |error: rustix::io::Errno| format!("the socket cannot be looked at: {error}");
    let kind = (socket_type(&fd).map_err(failed)?, socket_acceptconn(&fd).map_err(failed)?);
    let is_unix = match socket_domain(&fd).map_err(failed)? {
        AddressFamily::UNIX => true,
        AddressFamily::INET | AddressFamily::INET6 => false,
        _ => return Err(refusal("a socket of another family than Unix and IP")),
    };
    let is_connected = getpeername(&fd).is_ok();
    let device = match kind {
        (SocketType::STREAM, true) if is_unix => HandedDevice::VhostUser,
        (SocketType::STREAM, true) => return Err(refusal("a listening TCP socket")),
        (SocketType::STREAM, false) if is_connected => HandedDevice::Stream,
        (SocketType::STREAM, false) => return Err(refusal("a stream socket without a peer")),
        (SocketType::DGRAM, _) if is_connected => HandedDevice::Dgram,
        (SocketType::DGRAM, _) => return Err(refusal("a datagram socket without a peer")),
        _ => return Err(refusal("neither a stream nor a datagram socket")),
    };
    let place = getsockname(&fd).map(place).unwrap_or_default();
    fcntl_getfl(&fd)
        .and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
        .map_err(failed)?;
    Ok(Handed { place, device: device(fd) })
}

fn refusal(what: &str) -> String {
    format!(
        "the descriptor is {what}; pass a TAP, a connected stream or datagram socket, or a \
         listening Unix socket"
    )
}

/// The address of a socket: a path, `@NAME`, or an address with a port; empty if it has none.
fn place(address: SocketAddrAny) -> String {
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return address.to_string();
    }
    let Ok(address) = SocketAddrUnix::try_from(address) else { return String::new() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => text(path),
        (None, Some(name)) => format!("@{}", text(name)),
        (None, None) => String::new(),
    }
}

impl HandedDevice {
    pub(crate) fn kind(&self) -> AttachedKind {
        match self {
            HandedDevice::Tap(_) => AttachedKind::Tap,
            HandedDevice::Stream(_) => AttachedKind::Stream,
            HandedDevice::Dgram(_) => AttachedKind::Dgram,
            HandedDevice::VhostUser(_) => AttachedKind::VhostUser,
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<HandedDevice> {
        Ok(match self {
            HandedDevice::Tap(parts) => {
                HandedDevice::Tap(TapParts { fd: parts.fd.try_clone()?, ..*parts })
            }
            HandedDevice::Stream(socket) => HandedDevice::Stream(socket.try_clone()?),
            HandedDevice::Dgram(socket) => HandedDevice::Dgram(socket.try_clone()?),
            HandedDevice::VhostUser(socket) => HandedDevice::VhostUser(socket.try_clone()?),
        })
    }

    /// Gives the keeper one for the next switch. A stream is not for it: what this switch has read
    /// of a frame would be missing.
    pub(crate) fn keep(&self, port: &str, rights: &Rights) -> Option<Entry> {
        match self {
            HandedDevice::Tap(parts) => rights.keep_attached(port, parts),
            HandedDevice::Stream(_) => None,
            HandedDevice::Dgram(socket) | HandedDevice::VhostUser(socket) => {
                rights.keep_attached_socket(port, socket)
            }
        }
    }
}

/// A listening socket that was handed over; its file is its owner's.
#[derive(Debug)]
pub(crate) struct HandedListener(pub(crate) OwnedFd);

impl Sockets for HandedListener {
    fn listen(&self, _: &Path, _: &Access) -> Result<Listening, SocketError> {
        let copy = self.0.try_clone();
        let listener = copy.map_err(|error| SocketError::Refused(error.to_string()))?.into();
        Ok(Listening { listener, file: Arc::new(NotOurs), note: None })
    }

    fn connect(&self, path: &Path) -> Result<UnixStream, String> {
        Err(format!("{} was handed over to listen", path.display()))
    }
}

/// The file of a socket that was handed over.
#[derive(Debug)]
struct NotOurs;

impl SocketFile for NotOurs {
    fn set_access(&self, _: &Access) -> io::Result<()> {
        Ok(())
    }
}
