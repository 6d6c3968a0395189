//! The sockets of stream and datagram ports.

use std::os::fd::OwnedFd;

use trama_switch::{Address, Dgram, DgramPeer, DgramReport, PortId};
use trama_vhost_net::PortPlace;

use super::datagrams::Datagrams;
use super::{DataPlane, RunningPort};
use crate::config::model::wire::Dgram as DgramConfig;
use crate::config::model::{Interface, Port};
use crate::convert;
use crate::socket_status::SocketStatus;
use crate::streams::Socket;

impl DataPlane {
    /// Begins to listen, or to connect, for a stream port that runs.
    pub(super) fn start_stream(
        &self,
        running: &mut RunningPort,
        port: &Port,
    ) -> Result<(), String> {
        let Interface::Stream(device) = &port.interface else { return Ok(()) };
        let place = PortPlace::new(self.workers[running.worker].handle.clone());
        running.place = Some(place.clone());
        let socket = self.socket(place, running.id);
        if port.is_connection() {
            return self.streams.plug(&port.name, device, socket);
        }
        let access = convert::access(&self.rights, &port.socket)?;
        self.streams.add(&port.name, device, socket, (&access, &self.rights))
    }

    /// Gives a port the connection that was handed over for it.
    pub(super) fn start_handed_stream(
        &self,
        running: &mut RunningPort,
        port: &Port,
        place: &str,
        connection: OwnedFd,
    ) -> Result<(), String> {
        let worker = PortPlace::new(self.workers[running.worker].handle.clone());
        running.place = Some(worker.clone());
        let socket = self.socket(worker, running.id);
        self.streams.plug_handed(&port.name, place, socket, connection)
    }

    fn socket(&self, worker: PortPlace, port: PortId) -> Socket {
        Socket { worker, port, events: self.events.clone() }
    }

    /// Opens the socket of a datagram port.
    pub(super) fn open_datagrams(
        &self,
        port: &Port,
        device: &DgramConfig,
    ) -> Result<(Dgram, Datagrams), String> {
        let location = device.to_string();
        let (socket, peer, file, entry) = match device {
            DgramConfig::Unix { path, peer } => {
                let access = convert::access(&self.rights, &port.socket)?;
                let bound = self.rights.bind_unix(path, &access);
                let bound = bound.map_err(|error| error.to_string())?;
                if let Some(note) = bound.note {
                    tracing::info!("port {}: {location}: {note}", port.name);
                }
                let peer = match peer {
                    Some(peer) => DgramPeer::Fixed(unix_address(peer)?),
                    None => DgramPeer::Last(None),
                };
                (bound.socket, peer, Some(bound.file), None)
            }
            DgramConfig::Udp { local, remote } => {
                let opened = self.rights.bind_udp(*local)?;
                (opened.socket, DgramPeer::Fixed((*remote).into()), None, opened.entry)
            }
        };
        let datagrams = Datagrams { location, file, _entry: entry, connected_to: None };
        Ok((Dgram::new(socket, peer), datagrams))
    }

    /// Gives the socket of a running port the owner, group and mode of the configuration.
    pub(super) fn set_socket(&self, port: &Port) -> Result<(), String> {
        let access = || convert::access(&self.rights, &port.socket);
        match &port.interface {
            Interface::Stream(_) if port.is_connection() => Ok(()),
            Interface::Stream(device) => {
                self.streams.set_connections(&port.name, device.connections);
                self.streams.set_access(&port.name, &access()?)
            }
            Interface::Dgram(_) => {
                let running = self.ports.get(&port.name);
                let datagrams = running.and_then(|running| running.datagrams.as_ref());
                let Some(Datagrams { location, file: Some(file), .. }) = datagrams else {
                    return Ok(());
                };
                file.set_access(&access()?).map_err(|error| format!("{location}: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the state of a stream or datagram port's socket.
    pub(crate) fn socket_status(&self, name: &str) -> Option<SocketStatus> {
        let running = self.ports.get(name)?;
        if running.tunnel.is_some() {
            return self.tunnel_status(running);
        }
        let Some(datagrams) = &running.datagrams else { return self.streams.status(name) };
        let id = running.id;
        let report = self.on_worker(running.worker, move |engine, _| engine.dgram_report(id));
        let DgramReport { peer, send_error } = report.ok()??;
        Some(SocketStatus {
            location: datagrams.location.clone(),
            state: if peer.is_some() { "connected" } else { "listening" },
            peer: datagrams.connected_to.clone().or(peer.map(|peer| peer.to_string())),
            connects: None,
            last_error: self::send_error(send_error),
        })
    }
}

/// The error of the operating system with which something was not sent, in words.
pub(super) fn send_error(error: Option<i32>) -> Option<String> {
    error.map(|error| format!("cannot send: {}", std::io::Error::from_raw_os_error(error)))
}

fn unix_address(path: &std::path::Path) -> Result<Address, String> {
    let fault = || format!("{}: is not the path of a Unix socket", path.display());
    Address::of_path(path).ok_or_else(fault)
}
