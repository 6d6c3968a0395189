//! Dummy ports.

use trama_frame::{Offloads, VnetHeader};
use trama_switch::ports::dummy::dummy_with_offloads;
use trama_switch::{
    Captured, Device, DummyHandle, Engine, Lasting, PortCounters, PortId, PortSettings,
};

/// A dummy port and the station behind it.
pub struct Station {
    /// The port.
    pub id: PortId,
    /// The station's end of the port.
    pub handle: DummyHandle,
    /// The port's counters.
    pub counters: Lasting<PortCounters>,
}

impl Station {
    /// Adds a dummy port that takes frames with these offloads.
    pub fn add(engine: &mut Engine, settings: PortSettings, offloads: Offloads) -> Station {
        let (device, handle) = dummy_with_offloads(1024, offloads);
        let (id, counters) = engine.add_port(settings, Device::Dummy(device)).unwrap();
        Station { id, handle, counters }
    }

    /// Sends a frame without offloads.
    pub fn send(&self, bytes: &[u8]) {
        self.handle.inject(VnetHeader::default(), bytes).unwrap();
    }

    /// Returns the frames that have arrived since the last call.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.handle.captured().into_iter().map(|Captured { bytes, .. }| bytes).collect()
    }
}
