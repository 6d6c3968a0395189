//! The gateway's cable: a ring pair in shared memory, its driver at the gateway, its device in the
//! switch, and one eventfd for each direction.
//!
//! [`wire`] makes both ends. The *host* end is what a switch port needs to run the rings; the
//! *guest* end is three descriptors, which can be passed to another process. Both sides lay the
//! rings out by the same [`Layout`], so no address is ever exchanged, and the memory is sealed
//! against being made smaller. A pair is wired once and never used again: whoever restarts the
//! gateway wires a new one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};
use trama_frame::VnetHeader;
use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, GuestMemory,
    RingFeatures, RingSetup,
};

/// Descriptors of each ring.
const RING_SIZE: u16 = 256;
/// What surrounds the layer-3 packet in a buffer: virtio-net header, Ethernet header, VLAN tag.
const OVERHEAD: usize = 12 + 14 + 4;

/// How the rings lie in their memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of one buffer.
    buffer_size: usize,
}

impl Layout {
    /// For frames that carry packets of up to `mtu` bytes.
    pub fn for_mtu(mtu: u16) -> Layout {
        Layout { buffer_size: (OVERHEAD + usize::from(mtu)).next_multiple_of(64) }
    }

    fn options(self) -> DriverOptions {
        let features =
            RingFeatures { event_idx: true, indirect: false, in_order: true, mergeable: false };
        let buffer_size = self.buffer_size;
        DriverOptions { size: RING_SIZE, features, shape: ChainShape::Single, buffer_size }
    }

    /// Lays out both rings, always at the same places.
    fn rings(self, memory: &Arc<DriverMemory>) -> Result<(DriverRx, DriverTx), DriverError> {
        Ok((DriverRx::new(memory, self.options())?, DriverTx::new(memory, self.options())?))
    }
}

/// What the switch needs.
pub struct HostEnd {
    /// The memory to map.
    pub memory: Arc<GuestMemory>,
    /// The rings in the order of virtio: the driver's receive ring, its transmit ring.
    pub rings: [RingSetup; 2],
    /// The gateway writes it when it has sent something.
    pub kick: OwnedFd,
    /// The switch writes it when the gateway has something to take.
    pub call: OwnedFd,
}

/// What the gateway needs, in the order in which it is passed.
pub struct GuestEnd {
    /// The rings' memory.
    pub memory: OwnedFd,
    /// As in [`HostEnd`].
    pub kick: OwnedFd,
    /// As in [`HostEnd`].
    pub call: OwnedFd,
}

/// Makes a new pair of rings.
///
/// # Errors
/// Out of memory or descriptors.
pub fn wire(layout: Layout) -> Result<(HostEnd, GuestEnd), DriverError> {
    let memory = DriverMemory::new(2 * layout.options().memory_size())?;
    let (rx, tx) = layout.rings(&memory)?;
    let map = memory.map();
    let rings = [rx.setup(map.clone()), tx.setup(map.clone())];
    let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let (kick, call) = (event().map_err(io::Error::from)?, event().map_err(io::Error::from)?);
    let guest = GuestEnd {
        memory: memory.spec().file.try_clone()?.into(),
        kick: kick.try_clone()?,
        call: call.try_clone()?,
    };
    Ok((HostEnd { memory: map, rings, kick, call }, guest))
}

/// The gateway's side of a pair of rings.
///
/// Wakes up by [`Link::event`], edge-triggered: take frames with [`Link::receive`] until there is
/// none, then [`Link::arm`]; if that says that frames came meanwhile, start over.
pub struct Link {
    receive: DriverRx,
    transmit: DriverTx,
    kick: OwnedFd,
    call: OwnedFd,
    /// Frames were queued that the switch does not see yet.
    unsent: bool,
}

impl Link {
    /// Plugs in; from now on the switch can deliver.
    ///
    /// # Errors
    /// The memory is not one that [`wire`] made with this layout.
    pub fn attach(layout: Layout, end: GuestEnd) -> Result<Link, DriverError> {
        let memory = DriverMemory::open(File::from(end.memory))?;
        let (receive, mut transmit) = layout.rings(&memory)?;
        transmit.disarm();
        let mut link = Link { receive, transmit, kick: end.kick, call: end.call, unsent: false };
        link.refill();
        Ok(link)
    }

    /// Becomes readable when the switch has delivered something.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Takes one frame into `frame`; none if there is none. Returns the mark of the switch port
    /// that it came by, which the switch tells in `hdr_len`; 0: that has none.
    ///
    /// # Errors
    /// The switch broke the ring's rules.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<Option<u16>, DriverError> {
        let header = self.receive.recv(frame)?;
        Ok(header.map(|header| VnetHeader::from_bytes(&header).hdr_len))
    }

    /// Gives the buffers of frames taken back to the switch.
    pub fn refill(&mut self) {
        if self.receive.refill() {
            self.knock();
        }
    }

    /// Queues a frame; the switch sees it after [`Link::flush`].
    ///
    /// # Errors
    /// No room, or the frame is too long. It is not queued.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), DriverError> {
        if self.transmit.free() == 0 {
            self.transmit.reclaim()?;
        }
        self.transmit.send(&[0; 12], &[frame])?;
        self.unsent = true;
        Ok(())
    }

    /// Shows the switch what was queued, and wakes it if it asked for that.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.unsent) && self.transmit.publish() {
            self.knock();
        }
    }

    /// Asks to be woken. True: frames are waiting already.
    pub fn arm(&mut self) -> bool {
        self.receive.arm()
    }

    /// No wake-up is needed while frames are being taken.
    pub fn disarm(&mut self) {
        self.receive.disarm();
    }

    fn knock(&self) {
        // A full counter is a knock under way already.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }
}
