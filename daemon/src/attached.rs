//! Devices and sockets whose descriptors clients have handed over.
//!
//! A descriptor is deposited before the port that it is for is added, and held as long as that port
//! is configured: the port's device is a copy. The keeper has another, for the next switch.

use std::collections::{HashMap, HashSet};
use std::io;

use trama_helper::{Entry, Rights};

use crate::config::model::{Attached, Config, Interface};
use crate::handed::{Handed, HandedDevice};

/// The devices, by the number in their ports' interfaces.
#[derive(Default)]
pub(crate) struct AttachedDevices {
    last: u64,
    held: HashMap<u64, Held>,
}

struct Held {
    device: HandedDevice,
    /// The keeper's entry; `None` also while no port has the device.
    entry: Option<Entry>,
    /// Whether a port has it, so that it goes with that.
    is_plugged: bool,
}

impl AttachedDevices {
    /// Takes a device; returns its port's interface.
    pub(crate) fn deposit(&mut self, handed: Handed) -> Attached {
        self.hold(handed, None, false)
    }

    /// Takes a device that an earlier switch had, with the keeper's entry of it.
    pub(crate) fn adopt(&mut self, handed: Handed, entry: Entry) -> Attached {
        self.hold(handed, Some(entry), true)
    }

    fn hold(&mut self, handed: Handed, entry: Option<Entry>, is_plugged: bool) -> Attached {
        let Handed { place, device } = handed;
        self.last += 1;
        let attached = Attached { kind: device.kind(), place, id: self.last };
        self.held.insert(self.last, Held { device, entry, is_plugged });
        attached
    }

    /// Drops a device that no port was given.
    pub(crate) fn discard(&mut self, id: u64) {
        self.held.remove(&id);
    }

    /// Returns a copy of a device for its port, and gives the keeper one.
    ///
    /// # Errors
    /// There is no such device, or no descriptor is left.
    pub(crate) fn open(
        &mut self,
        id: u64,
        port: &str,
        rights: &Rights,
    ) -> io::Result<HandedDevice> {
        let held = self.held.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let copy = held.device.try_clone()?;
        held.is_plugged = true;
        if held.entry.is_none() {
            held.entry = held.device.keep(port, rights);
        }
        Ok(copy)
    }

    /// Drops the devices whose ports are gone.
    pub(crate) fn retain(&mut self, config: &Config) {
        if self.held.is_empty() {
            return;
        }
        let ids: HashSet<u64> = config
            .ephemeral()
            .filter_map(|port| match &port.interface {
                Interface::Attached(Attached { id, .. }) => Some(*id),
                _ => None,
            })
            .collect();
        self.held.retain(|id, held| !held.is_plugged || ids.contains(id));
    }
}
