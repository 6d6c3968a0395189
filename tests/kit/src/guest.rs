//! vhost ports with a driver in this process, without a session.

use std::sync::Arc;

use trama_frame::VnetHeader;
use trama_switch::{
    Device, Engine, Lasting, PortCounters, PortId, PortSettings, RingFds, VhostDevice,
};
use trama_virtqueue::{
    DirtyLog, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, LogAt, MemoryAccount,
    MemoryLimits, RingSetup,
};

use crate::shared_memory::SharedMemory;

/// A vhost port and the driver of a guest on it.
pub struct Guest {
    /// The port.
    pub id: PortId,
    /// The port's counters.
    pub counters: Lasting<PortCounters>,
    /// The driver side of the transmit ring.
    pub tx: DriverTx,
    /// The driver side of the receive ring.
    pub rx: DriverRx,
    /// The memory of both rings and their buffers.
    pub memory: Arc<DriverMemory>,
}

impl Guest {
    /// Adds a vhost port with one pair of rings and starts both.
    pub fn add(
        engine: &mut Engine,
        settings: PortSettings,
        tx_options: DriverOptions,
        rx_options: DriverOptions,
    ) -> Guest {
        Guest::add_with(engine, settings, Lasting::default(), tx_options, rx_options)
    }

    /// Does the same as [`Guest::add`], for a port that goes on with these counters.
    pub fn add_with(
        engine: &mut Engine,
        settings: PortSettings,
        counters: Lasting<PortCounters>,
        tx_options: DriverOptions,
        rx_options: DriverOptions,
    ) -> Guest {
        let device = Device::Vhost(VhostDevice::new(1));
        let id = engine.add_port_with(settings, device, counters.clone()).unwrap();
        let size = tx_options.memory_size() + rx_options.memory_size();
        let memory = DriverMemory::new(size).unwrap();
        let tx = DriverTx::new(&memory, tx_options).unwrap();
        let rx = DriverRx::new(&memory, rx_options).unwrap();
        let mut guest = Guest { id, counters, tx, rx, memory };
        guest.start(engine);
        guest
    }

    /// Starts both rings without descriptors: engine and driver poll.
    pub fn start(&mut self, engine: &mut Engine) {
        let map = self.memory.map();
        let rx = self.rx.setup(map.clone());
        engine.start_ring(self.id, 0, rx, RingFds::default()).unwrap();
        engine.start_ring(self.id, 1, self.tx.setup(map), RingFds::default()).unwrap();
        self.rx.refill();
    }

    /// Starts both rings again with a log of their writes, as when the guest migrates.
    pub fn log_writes(&mut self, engine: &mut Engine) {
        let spec = self.memory.spec();
        let size = (spec.guest_phys + spec.size).div_ceil(8 * 4096);
        let account = MemoryAccount::new(MemoryLimits::default(), None);
        let file = SharedMemory::new(0, 0, size).file;
        let log = DirtyLog::map(&account, file, 0, size).unwrap();
        let map = self.memory.map();
        for (ring, setup) in [(0, self.rx.setup(map.clone())), (1, self.tx.setup(map))] {
            let log = Some(LogAt { log: log.clone(), used: None });
            let setup = RingSetup { log, ..setup };
            engine.start_ring(self.id, ring, setup, RingFds::default()).unwrap();
        }
    }

    /// Sends a frame behind its virtio-net header.
    pub fn send(&mut self, header: &[u8; HEADER_LEN], bytes: &[u8]) {
        self.tx.reclaim().unwrap();
        self.tx.send(header, &[bytes]).unwrap();
        self.tx.publish();
    }

    /// Returns all frames that have arrived, with their headers.
    pub fn frames(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut bytes = Vec::new();
        while let Some(header) = self.rx.recv(&mut bytes).unwrap() {
            frames.push((VnetHeader::from_bytes(&header), bytes.clone()));
        }
        self.rx.refill();
        frames
    }
}
