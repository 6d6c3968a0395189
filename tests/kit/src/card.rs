//! A guest's network card as a frontend in this process: the `vhost` crate speaks the protocol,
//! and the driver side of `trama-virtqueue` moves frames.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use trama_frame::vnet::VnetHeader;
use trama_vhost_net_backend::features;
use trama_virtqueue::{ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::wait::eventually;

/// Entries of each ring.
const SIZE: u16 = 256;

/// A guest's network card: the frontend, and a driver on its rings.
pub struct Card {
    /// The end of the session.
    pub frontend: Frontend,
    /// The features that the driver has acknowledged.
    pub features: u64,
    /// The memory of the rings and their buffers.
    pub memory: Arc<DriverMemory>,
    /// The receive ring of each pair.
    pub rx: Vec<DriverRx>,
    /// The transmit ring of each pair.
    pub tx: Vec<DriverTx>,
    /// The event of each ring that wakes the device.
    pub kicks: Vec<EventFd>,
    /// The event of each ring that wakes the driver.
    pub calls: Vec<EventFd>,
}

impl Card {
    /// Takes the features offered within `mask` and starts `pairs` pairs of rings.
    pub fn plug(stream: UnixStream, mask: u64, pairs: usize) -> Card {
        let mut frontend = Frontend::from_stream(stream, 2 * pairs as u64);
        frontend.set_owner().unwrap();
        frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        if pairs > 1 {
            assert!(frontend.get_queue_num().unwrap() >= 2 * pairs as u64);
        }
        let events = || (0..2 * pairs).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        let memory = DriverMemory::new(0).unwrap();
        let (rx, tx) = (Vec::new(), Vec::new());
        let (kicks, calls) = (events(), events());
        let mut card = Card { frontend, features: 0, memory, rx, tx, kicks, calls };
        card.change_driver(mask, pairs);
        card
    }

    /// Stops the rings and starts as another driver, which accepts the features offered within
    /// `mask` and has new rings.
    pub fn change_driver(&mut self, mask: u64, pairs: usize) {
        for ring in 0..2 * self.rx.len() {
            self.frontend.get_vring_base(ring).unwrap();
        }
        // Its guest does not migrate.
        let mask = mask & !features::LOG_ALL;
        self.features = self.frontend.get_features().unwrap() & mask;
        self.frontend.set_features(self.features).unwrap();
        let features = features::ring_features(self.features);
        // Drivers before virtio 1.0 put the header into a separate descriptor.
        let is_modern = self.features & features::VERSION_1 != 0;
        let shape = if is_modern { ChainShape::Single } else { ChainShape::HeaderSplit };
        let options = DriverOptions { size: SIZE, features, shape, buffer_size: 2048 };
        self.memory = DriverMemory::new(2 * pairs * options.memory_size()).unwrap();
        let spec = self.memory.spec();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: spec.guest_phys,
            memory_size: spec.size,
            userspace_addr: spec.user_addr,
            mmap_offset: spec.file_offset,
            mmap_handle: spec.file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
        (self.rx, self.tx) = (0..pairs)
            .map(|_| {
                let rx = DriverRx::new(&self.memory, options).unwrap();
                (rx, DriverTx::new(&self.memory, options).unwrap())
            })
            .unzip();
        for rx in &mut self.rx {
            rx.refill();
        }
        for ring in 0..2 * pairs {
            self.start(ring, 0);
        }
    }

    /// Starts a ring at an index.
    pub fn start(&mut self, ring: usize, base: u16) {
        let pair = ring / 2;
        let at = if ring.is_multiple_of(2) {
            self.rx[pair].addresses()
        } else {
            self.tx[pair].addresses()
        };
        let data = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: at.desc,
            used_ring_addr: at.used,
            avail_ring_addr: at.avail,
            log_addr: None,
        };
        self.frontend.set_vring_num(ring, SIZE).unwrap();
        self.frontend.set_vring_base(ring, base).unwrap();
        self.frontend.set_vring_addr(ring, &data).unwrap();
        self.frontend.set_vring_call(ring, &self.calls[ring]).unwrap();
        self.frontend.set_vring_kick(ring, &self.kicks[ring]).unwrap();
        // Without the protocol's features, rings are enabled from the start.
        if self.features & features::VHOST_USER_PROTOCOL_FEATURES != 0 {
            self.frontend.set_vring_enable(ring, true).unwrap();
        }
    }

    /// Sends a frame with a plain header.
    pub fn send(&mut self, pair: usize, frame: &[u8]) {
        self.tx[pair].reclaim().unwrap();
        self.tx[pair].send(&VnetHeader::default().to_bytes(), &[frame]).unwrap();
        if self.tx[pair].publish() {
            self.kicks[2 * pair + 1].write(1).unwrap();
        }
    }

    /// Waits for the next frame on any pair.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        eventually("a frame arrives", || {
            self.rx.iter_mut().any(|rx| rx.recv(&mut frame).unwrap().is_some())
        });
        for rx in &mut self.rx {
            // The worker looks for buffers when it has a frame; it wants no kick for them.
            rx.refill();
        }
        frame
    }
}

/// Connects to a session that may not listen yet.
pub fn connect(path: &Path) -> UnixStream {
    let mut stream = None;
    eventually("the session accepts", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    stream.unwrap()
}
