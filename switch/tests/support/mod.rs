//! Shared by the tests and the benchmarks of the switch: networks, dummy stations, guests whose
//! driver side runs in this process, and frames.
#![allow(dead_code, missing_docs, reason = "each test and benchmark uses a part of it")]

pub(crate) mod paths;
pub(crate) mod threads;

use std::sync::Arc;
use std::time::Duration;

use trama_frame::{MacAddr, Offloads, VlanId, VlanTag, VnetHeader};
use trama_switch::ports::dummy::dummy_with_offloads;
use trama_switch::{
    Captured, Device, DummyHandle, Engine, HdrLen, NetworkId, NetworkSettings, PortCounters,
    PortId, PortSettings, RingFds, VhostDevice, VlanMode, VlanSet,
};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingFeatures,
};

pub(crate) const PLAIN: [u8; HEADER_LEN] = [0; HEADER_LEN];

pub(crate) fn network(engine: &mut Engine, mtu: u16) -> NetworkId {
    engine.add_network(NetworkSettings {
        name: "lab".into(),
        mtu,
        mac_table_size: 8192,
        mac_aging: Duration::from_secs(300),
    })
}

pub(crate) fn vid(vlan: u16) -> VlanId {
    VlanId::new(vlan).unwrap()
}

pub(crate) fn access(vlan: u16) -> VlanMode {
    VlanMode::Access { tag: vid(vlan) }
}

pub(crate) fn trunk() -> VlanMode {
    VlanMode::Trunk { trunks: VlanSet::all() }
}

pub(crate) fn port(network: NetworkId, vlan: VlanMode) -> PortSettings {
    PortSettings {
        name: "port".into(),
        network: Some(network),
        vlan,
        cable: true,
        filter: Default::default(),
        mark: 0,
        hdr_len: HdrLen::Headers,
    }
}

/// Reads the time-stamp counter.
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has a time-stamp counter, and reading it does nothing else.
    #[expect(unsafe_code, reason = "reads the time-stamp counter")]
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Returns a locally administered station address.
pub(crate) fn mac(station: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, station])
}

/// Returns a frame of `len` bytes with a recognisable payload.
pub(crate) fn frame(dst: MacAddr, src: MacAddr, len: usize) -> Vec<u8> {
    let mut bytes = [&dst.0[..], &src.0[..], &[0x88, 0xb5]].concat();
    bytes.extend((bytes.len()..len).map(|i| (i * 31 + i / 256) as u8));
    bytes
}

/// Returns the same frame with a tag.
pub(crate) fn tagged(tag: VlanTag, untagged: &[u8]) -> Vec<u8> {
    let (tpid, tci) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
    [&untagged[..12], &tpid[..], &tci[..], &untagged[12..]].concat()
}

pub(crate) fn c_tag(tci: u16) -> VlanTag {
    VlanTag { tpid: 0x8100, tci }
}

/// A dummy port and both its ends.
pub(crate) struct Station {
    pub id: PortId,
    pub handle: DummyHandle,
    pub counters: Arc<PortCounters>,
}

impl Station {
    pub(crate) fn add(engine: &mut Engine, settings: PortSettings, offloads: Offloads) -> Station {
        let (device, handle) = dummy_with_offloads(1024, offloads);
        let (id, counters) = engine.add_port(settings, Device::Dummy(device)).unwrap();
        Station { id, handle, counters }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.handle.inject(VnetHeader::default(), bytes).unwrap();
    }

    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.handle.captured().into_iter().map(|Captured { bytes, .. }| bytes).collect()
    }
}

/// A vhost port and the driver of a guest on it.
pub(crate) struct Guest {
    pub id: PortId,
    pub counters: Arc<PortCounters>,
    pub tx: DriverTx,
    pub rx: DriverRx,
    pub memory: Arc<DriverMemory>,
}

pub(crate) fn driver_options(size: u16, features: RingFeatures) -> DriverOptions {
    DriverOptions { size, features, shape: ChainShape::Single, buffer_size: HEADER_LEN + 1600 }
}

impl Guest {
    pub(crate) fn add(
        engine: &mut Engine,
        settings: PortSettings,
        tx_options: DriverOptions,
        rx_options: DriverOptions,
    ) -> Guest {
        let device = Device::Vhost(VhostDevice::new(1));
        let (id, counters) = engine.add_port(settings, device).unwrap();
        let size = tx_options.memory_size() + rx_options.memory_size();
        let memory = DriverMemory::new(size).unwrap();
        let tx = DriverTx::new(&memory, tx_options).unwrap();
        let rx = DriverRx::new(&memory, rx_options).unwrap();
        let mut guest = Guest { id, counters, tx, rx, memory };
        guest.start(engine);
        guest
    }

    /// Starts both rings without descriptors: engine and driver poll.
    pub(crate) fn start(&mut self, engine: &mut Engine) {
        let map = self.memory.map();
        let rx = self.rx.setup(map.clone());
        engine.start_ring(self.id, 0, rx, RingFds::default()).unwrap();
        engine.start_ring(self.id, 1, self.tx.setup(map), RingFds::default()).unwrap();
        self.rx.refill();
    }

    pub(crate) fn send(&mut self, header: &[u8; HEADER_LEN], bytes: &[u8]) {
        self.tx.reclaim().unwrap();
        self.tx.send(header, &[bytes]).unwrap();
        self.tx.publish();
    }

    /// Returns all frames that have arrived, with their headers.
    pub(crate) fn frames(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut bytes = Vec::new();
        while let Some(header) = self.rx.recv(&mut bytes).unwrap() {
            frames.push((VnetHeader::from_bytes(&header), bytes.clone()));
        }
        self.rx.refill();
        frames
    }
}
