//! An engine that is held: control may set it up and change it, and it touches no ring and reads no
//! device.
//!
//! Two processes hand a running switch over so: the new one builds its engines held while the old
//! one still moves frames on the same rings and devices. Then the old one holds its own between two
//! bursts and ends, and the new one releases. A ring's progress is in the guest's memory, so that
//! is all that has to pass between them.
//!
//! A held engine puts no network on its list of networks with active ports, and that list is all
//! that a round looks at: holding costs the way of a frame nothing.

use super::{Engine, PortLocation};
use crate::ports::Device;
use crate::time::Time;

impl Engine {
    /// Holds the engine. All frames that it has taken are delivered, visible to their receivers and
    /// announced, since this happens between two bursts; from now on it touches no ring and reads
    /// no device until [`Engine::release`]. Rings may be started, stopped and moved meanwhile.
    pub fn hold(&mut self) {
        self.is_held = true;
        for slot in self.awake.drain(..) {
            if let Some(network) = &mut self.networks[slot] {
                network.awake = false;
            }
        }
    }

    /// Lets a held engine run. Each ring continues from the used index in its memory, as another
    /// device may have run it meanwhile. Every driver is called once and every port is polled,
    /// since the other device may have ended before a call, or asleep.
    pub fn release(&mut self, now: Time) {
        if !std::mem::take(&mut self.is_held) {
            return;
        }
        let ports = self.networks.iter_mut().flatten().flat_map(|network| &mut network.ports);
        for port in ports.flatten() {
            if let Device::Vhost(vhost) = &mut port.device {
                self.pipeline.note.serve(port.id);
                vhost.catch_up();
                vhost.disarm();
                port.counters.calls.add(vhost.call_all(&mut self.pipeline.calls));
            }
        }
        self.pipeline.note.idle();
        self.pipeline.calls.make();
        let locations: Vec<PortLocation> = self.locations.values().copied().collect();
        locations.into_iter().for_each(|location| self.activate(location, now));
    }
}
