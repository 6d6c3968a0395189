//! Devices whose descriptors clients have handed over.
//!
//! A descriptor is deposited before the port that it is for is added, and held as long as that port
//! is configured: the port's device is a copy. The keeper has another, for the next switch.

use std::collections::{HashMap, HashSet};
use std::io;

use trama_helper::{Entry, Rights};
use trama_switch::{Tap, TapParts};

use crate::config::model::{Attached, Config, Interface};

/// The devices, by the number in their ports' interfaces.
#[derive(Default)]
pub(crate) struct AttachedDevices {
    last: u64,
    held: HashMap<u64, Held>,
}

struct Held {
    parts: TapParts,
    /// The keeper's entry; `None` also while no port has the device.
    entry: Option<Entry>,
    /// Whether a port has it, so that it goes with that.
    is_plugged: bool,
}

impl AttachedDevices {
    /// Takes a device; returns its number.
    pub(crate) fn deposit(&mut self, parts: TapParts) -> u64 {
        self.hold(parts, None, false)
    }

    /// Takes a device that an earlier switch had, with the keeper's entry of it.
    pub(crate) fn adopt(&mut self, parts: TapParts, entry: Entry) -> u64 {
        self.hold(parts, Some(entry), true)
    }

    fn hold(&mut self, parts: TapParts, entry: Option<Entry>, is_plugged: bool) -> u64 {
        self.last += 1;
        self.held.insert(self.last, Held { parts, entry, is_plugged });
        self.last
    }

    /// Drops a device that no port was given.
    pub(crate) fn discard(&mut self, id: u64) {
        self.held.remove(&id);
    }

    /// Returns a copy of a device for its port, and gives the keeper one.
    ///
    /// # Errors
    /// There is no such device, or no descriptor is left.
    pub(crate) fn open(&mut self, id: u64, port: &str, rights: &Rights) -> io::Result<Tap> {
        let held = self.held.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let TapParts { fd, offloads, vnet_header, namespace } = &held.parts;
        let parts = TapParts {
            fd: fd.try_clone()?,
            offloads: *offloads,
            vnet_header: *vnet_header,
            namespace: *namespace,
        };
        held.is_plugged = true;
        if held.entry.is_none() {
            held.entry = rights.keep_attached(port, &parts);
        }
        Ok(Tap::from_parts(parts))
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
