//! What is connected to a simulated port: a pair of queues, or a guest with a real driver and real
//! rings in the memory of this process.

use std::sync::Arc;

use trama_frame::VnetHeader;
use trama_switch::ports::dummy::dummy_with_offloads;
use trama_switch::{Captured, Device, DummyHandle, Engine, PortId, RingFds, VhostDevice};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingFeatures,
};

use super::frames::MAX_LEN;

/// Longest frame that a guest's driver sends: longer than any that the switch forwards.
const MAX_SENT_LEN: usize = 66_100;

/// The kinds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PlugKind {
    /// Queues with room for this many frames each.
    Queues(usize),
    /// A guest.
    Guest {
        /// How its driver lays out the frames that it sends.
        shape: ChainShape,
        /// The features negotiated for its rings.
        features: RingFeatures,
        /// Number of receive buffers.
        buffers: u16,
        /// Size of each in bytes.
        buffer_size: usize,
    },
}

/// The outer side of a port.
pub(crate) enum Plug {
    /// A pair of queues, with room for this many frames.
    Queues(DummyHandle, usize),
    /// A guest.
    Guest(Box<Guest>),
}

/// The driver side of a port with rings.
pub(crate) struct Guest {
    memory: Arc<DriverMemory>,
    tx: DriverTx,
    rx: DriverRx,
    /// The indices at which the stopped rings resume, receive and transmit; `None` while they run.
    stopped_at: Option<[u16; 2]>,
}

impl PlugKind {
    /// Returns the device for the engine, and its outer side.
    pub(crate) fn build(self, offloads: trama_frame::Offloads) -> (Device, Plug) {
        match self {
            PlugKind::Queues(room) => {
                let (device, handle) = dummy_with_offloads(room, offloads);
                (Device::Dummy(device), Plug::Queues(handle, room))
            }
            PlugKind::Guest { shape, features, buffers, buffer_size } => {
                let tx = DriverOptions {
                    size: 64,
                    features,
                    shape,
                    buffer_size: HEADER_LEN + MAX_SENT_LEN,
                };
                let shape = ChainShape::Single;
                let rx = DriverOptions { size: buffers, features, shape, buffer_size };
                let memory = DriverMemory::new(tx.memory_size() + rx.memory_size()).unwrap();
                let tx = DriverTx::new(&memory, tx).unwrap();
                let mut rx = DriverRx::new(&memory, rx).unwrap();
                rx.refill();
                let guest = Guest { memory, tx, rx, stopped_at: Some([0, 0]) };
                (Device::Vhost(VhostDevice::new(1)), Plug::Guest(Box::new(guest)))
            }
        }
    }
}

impl Plug {
    /// Returns how many frames it can send at once.
    pub(crate) fn room(&self) -> usize {
        match self {
            Plug::Queues(_, room) => *room,
            Plug::Guest(guest) => guest.tx.free(),
        }
    }

    /// Returns the length of the longest frame that it can send.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Plug::Queues(..) => MAX_LEN,
            Plug::Guest(_) => MAX_SENT_LEN,
        }
    }

    /// Queues a frame to be sent.
    pub(crate) fn send(&mut self, header: VnetHeader, bytes: &[u8]) {
        match self {
            Plug::Queues(handle, _) => handle.inject(header, bytes).unwrap(),
            Plug::Guest(guest) => {
                guest.tx.send(&header.to_bytes(), &[bytes]).unwrap();
                guest.tx.publish();
            }
        }
    }

    /// Reclaims the buffers of sent frames; none may be missing.
    pub(crate) fn reclaim(&mut self, sent: usize) {
        if let Plug::Guest(guest) = self {
            assert_eq!(guest.tx.reclaim().unwrap(), sent, "transmit chains that came back");
        }
    }

    /// Returns all frames that arrived.
    pub(crate) fn receive(&mut self) -> Vec<Captured> {
        match self {
            Plug::Queues(handle, _) => handle.captured(),
            Plug::Guest(guest) => {
                let (mut frames, mut bytes) = (Vec::new(), Vec::new());
                while let Some(header) = guest.rx.recv(&mut bytes).unwrap() {
                    let header = VnetHeader::from_bytes(&header);
                    frames.push(Captured { header, bytes: std::mem::take(&mut bytes) });
                }
                guest.rx.refill();
                frames
            }
        }
    }

    /// Starts the rings, if there are any and they are stopped.
    pub(crate) fn start(&mut self, engine: &mut Engine, port: PortId) {
        let Plug::Guest(guest) = self else { return };
        let Some(next) = guest.stopped_at.take() else { return };
        let map = guest.memory.map();
        for (index, mut setup) in
            [guest.rx.setup(map.clone()), guest.tx.setup(map)].into_iter().enumerate()
        {
            setup.next = next[index];
            engine.start_ring(port, index, setup, RingFds::default()).unwrap();
        }
    }

    /// Stops the rings, if there are any and they run.
    pub(crate) fn stop(&mut self, engine: &mut Engine, port: PortId) {
        let Plug::Guest(guest) = self else { return };
        if guest.stopped_at.is_none() {
            guest.stopped_at = Some([0, 1].map(|index| engine.stop_ring(port, index).unwrap()));
        }
    }
}
