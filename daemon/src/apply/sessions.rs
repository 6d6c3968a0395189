//! The session of a vhost-user port.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_switch::Note;
use trama_switch::counters::Lasting;
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Session, SessionOptions, Sockets};

use super::{DataPlane, RunningPort};
use crate::config::model::{Interface, Port, VhostUser};
use crate::convert;
use crate::events::Frontends;

impl DataPlane {
    pub(super) fn start_session(
        &self,
        port: &mut RunningPort,
        (device, sockets): (&VhostUser, Arc<dyn Sockets>),
        mtu: u16,
        config: &Port,
        (fault, note): (Arc<OwnedFd>, Lasting<Note>),
    ) -> Result<(), String> {
        let access = convert::access(&self.rights, &config.socket)?;
        let handle = self.workers[port.worker].handle.clone();
        let counters = port.counters.clone();
        let rings = SwitchPort::with_fault_event(handle, port.id, counters, fault);
        let rings = rings.with_note(note);
        let place = rings.place();
        let options = SessionOptions {
            queue_pairs: device.queues,
            device: convert::device(config, mtu),
            cable: config.cable,
            access,
            sockets,
            keeper: self.rights.connection_keeper(),
            watch: Some(Arc::new(Frontends { events: self.events.clone(), port: port.id })),
            memory: config.memory,
            ..SessionOptions::new(&device.path, device.role)
        };
        let session = Session::spawn(options, rings).map_err(|error| error.to_string())?;
        (port.session, port.place) = (Some(session), Some(place));
        Ok(())
    }

    /// Gives the session of a running port its limits of memory, and its socket owner, group and
    /// mode, as in the configuration.
    pub(super) fn set_session(&self, port: &Port) -> Result<(), String> {
        let session = self.ports.get(&port.name).and_then(|port| port.session.as_ref());
        let (Some(session), Interface::VhostUser(device)) = (session, &port.interface) else {
            return Ok(());
        };
        session.set_memory_limits(port.memory);
        let access = convert::access(&self.rights, &port.socket)?;
        session.set_access(access).map_err(|error| format!("{}: {error}", device.path.display()))
    }
}
