//! The port of a device or socket that was handed over.

use trama_switch::{Device, Dgram, DgramPeer, Stream, Tap, VhostDevice};

use super::DataPlane;
use super::datagrams::Datagrams;
use super::start::Opened;
use crate::config::model::{Attached, Port};
use crate::handed::{HandedDevice, QUEUES};
use crate::streams::peer_of;

impl DataPlane {
    pub(super) fn open_handed(&mut self, port: &Port, it: &Attached) -> Result<Opened, String> {
        let opened = self.attached.open(it.id, &port.name, &self.rights);
        Ok(match opened.map_err(|error| format!("{it}: {error}"))? {
            HandedDevice::Tap(parts) => Opened::new(Device::Tap(Tap::from_parts(parts))),
            HandedDevice::Stream(socket) => {
                Opened { socket: Some(socket), ..Opened::new(Device::Stream(Stream::new())) }
            }
            HandedDevice::Dgram(socket) => {
                let datagrams = Datagrams {
                    location: it.place.clone(),
                    file: None,
                    _entry: None,
                    connected_to: Some(peer_of(&socket)),
                };
                let device = Device::Dgram(Box::new(Dgram::new(socket, DgramPeer::Connected)));
                Opened { datagrams: Some(datagrams), ..Opened::new(device) }
            }
            HandedDevice::VhostUser(socket) => {
                let device = Device::Vhost(VhostDevice::new(QUEUES));
                Opened { socket: Some(socket), ..Opened::new(device) }
            }
        })
    }
}
