//! The collectors of an export: sockets that the helper has opened.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, getsockname, send};
use trama_helper::Rights;

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// A collector that was not refused for this long listens.
const CALM: Duration = Duration::from_secs(10);

/// The collectors of an export.
pub(super) struct Collectors {
    /// The network and the protocol, for the log.
    name: String,
    all: Vec<Collector>,
}

struct Collector {
    target: SocketAddr,
    socket: Option<OwnedFd>,
    /// What is wrong, and when it was seen last.
    fault: Option<(String, Instant)>,
}

impl Collectors {
    pub(super) fn new(name: String, targets: &[SocketAddr]) -> Collectors {
        let all = targets.iter().map(|&target| Collector { target, socket: None, fault: None });
        Collectors { name, all: all.collect() }
    }

    /// Opens the sockets that are not open.
    pub(super) fn open(&mut self, rights: &Rights) {
        for collector in &mut self.all {
            let is_late = collector.fault.as_ref().is_none_or(|(_, at)| at.elapsed() >= RETRY);
            if collector.socket.is_some() || !is_late {
                continue;
            }
            match rights.connect_udp(collector.target) {
                Ok(socket) => {
                    collector.socket = Some(socket);
                    collector.recovers(&self.name);
                }
                Err(fault) => collector.fails(&self.name, fault),
            }
        }
    }

    /// Returns the address from which the first collector gets its datagrams.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let address = getsockname(self.all.iter().find_map(|it| it.socket.as_ref())?).ok()?;
        SocketAddr::try_from(address).ok().map(|address| address.ip())
    }

    /// Sends a datagram to all collectors; returns to how many it was not sent.
    pub(super) fn send(&mut self, datagram: &[u8]) -> u64 {
        self.all.iter_mut().map(|collector| u64::from(!collector.send(&self.name, datagram))).sum()
    }

    /// Returns the number of collectors.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the fault of each collector that has one.
    pub(super) fn faults(&self) -> Vec<String> {
        self.all.iter().filter_map(|it| it.fault.as_ref().map(|(fault, _)| fault.clone())).collect()
    }
}

impl Collector {
    /// Returns whether the datagram was sent.
    fn send(&mut self, name: &str, datagram: &[u8]) -> bool {
        let Some(socket) = &self.socket else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut sent = send(socket, datagram, flags);
        let refused = sent == Err(Errno::CONNREFUSED);
        if refused {
            // It tells of an earlier datagram, and has kept this one from being sent.
            sent = send(socket, datagram, flags);
        }
        match sent {
            _ if refused => {
                let fault = "nothing listens there; start the collector, or correct targets";
                self.fails(name, format!("{}: {fault}", self.target));
            }
            Err(error) => {
                let remedy = "check the way to it with ip route get";
                self.fails(
                    name,
                    format!("{}: {error}; {remedy} {}", self.target, self.target.ip()),
                );
            }
            Ok(_) if self.fault.as_ref().is_some_and(|(_, at)| at.elapsed() >= CALM) => {
                self.recovers(name);
            }
            Ok(_) => {}
        }
        sent.is_ok()
    }

    fn fails(&mut self, name: &str, fault: String) {
        if self.fault.as_ref().is_none_or(|(known, _)| *known != fault) {
            tracing::warn!("{name}: collector {fault}");
        }
        self.fault = Some((fault, Instant::now()));
    }

    fn recovers(&mut self, name: &str) {
        if self.fault.take().is_some() {
            tracing::info!("{name}: collector {} takes datagrams again", self.target);
        }
    }
}
