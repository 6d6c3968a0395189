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
use trama_frame::ethernet::{MAX_TAGS, MIN_HEADER, TAG_LEN};
use trama_frame::{Offloads, VnetHeader};
use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, GuestMemory,
    RingFeatures, RingSetup,
};

use crate::cable::Cable;
use crate::config::Config;
use crate::drop_reason::DropReason;

/// Descriptors of each ring, and of those that take large frames. A large frame is received over
/// many buffers, so that small ones do not each take the room of a large one; an odd number of 64
/// bytes leaves no gap between them, so that it is read where it is.
const RING_SIZE: u16 = 256;
const LARGE_RECEIVE: (u16, usize) = (512, 65 * 64);
const LARGE_TRANSMIT: (u16, usize) = (128, OVERHEAD + 65_535);
/// What surrounds the layer-3 packet in a buffer: virtio-net header, Ethernet header, VLAN tags.
const OVERHEAD: usize = 12 + MIN_HEADER + MAX_TAGS * TAG_LEN;

/// How the rings lie in their memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of one buffer.
    buffer_size: usize,
    /// Frames may be large, and their checksums unfinished.
    is_large: bool,
}

impl Layout {
    /// For a gateway with these settings. One that leads to other networks moves much, and takes
    /// frames as guests with a large-frame network card make them.
    pub fn of(config: &Config) -> Layout {
        let buffer_size = (OVERHEAD + usize::from(config.mtu)).next_multiple_of(64);
        Layout { buffer_size, is_large: config.has_large_frames() }
    }

    /// What frames for the gateway may leave to it.
    pub fn offloads(self) -> Offloads {
        match self.is_large {
            true => Offloads::CSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::USO,
            false => Offloads::NONE,
        }
    }

    fn options(self, (size, buffer_size): (u16, usize), mergeable: bool) -> DriverOptions {
        let features =
            RingFeatures { event_idx: true, in_order: true, mergeable, ..RingFeatures::default() };
        DriverOptions { size, features, shape: ChainShape::Single, buffer_size }
    }

    fn receive(self) -> DriverOptions {
        let small = (RING_SIZE, self.buffer_size);
        self.options(if self.is_large { LARGE_RECEIVE } else { small }, self.is_large)
    }

    fn transmit(self) -> DriverOptions {
        let small = (RING_SIZE, self.buffer_size);
        self.options(if self.is_large { LARGE_TRANSMIT } else { small }, self.is_large)
    }

    fn memory_size(self) -> usize {
        self.receive().memory_size() + self.transmit().memory_size()
    }

    /// Lays out both rings, always at the same places.
    fn rings(self, memory: &Arc<DriverMemory>) -> Result<(DriverRx, DriverTx), DriverError> {
        Ok((DriverRx::new(memory, self.receive())?, DriverTx::new(memory, self.transmit())?))
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
    /// The switch writes it when the gateway has something to take, or room again.
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
    let memory = DriverMemory::new(layout.memory_size())?;
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
    /// Where frames in pieces are put together.
    spare: Vec<u8>,
    call: OwnedFd,
    tx: LinkTx,
}

/// The half of a [`Link`] that sends.
pub struct LinkTx {
    transmit: DriverTx,
    kick: OwnedFd,
    /// Frames were queued that the switch does not see yet.
    unsent: bool,
    /// What the switch did to the transmit ring, for [`LinkTx::flush`] to tell.
    fault: Option<DriverError>,
}

/// A frame from the switch.
pub struct RingFrame<'a> {
    /// Its `hdr_len` is the mark of the switch port that it came by; 0: that has none.
    pub header: VnetHeader,
    /// The frame in the ring's memory.
    pub frame: &'a [u8],
    /// By which to answer.
    pub tx: &'a mut LinkTx,
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
        let tx = LinkTx { transmit, kick: end.kick, unsent: false, fault: None };
        let mut link = Link { receive, spare: Vec::new(), call: end.call, tx };
        link.refill();
        Ok(link)
    }

    /// Becomes readable when the switch has delivered something.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Takes one frame, which stays where it is until [`Link::refill`]; `None` if there is none.
    ///
    /// # Errors
    /// The switch broke the ring's rules.
    pub fn receive(&mut self) -> Result<Option<RingFrame<'_>>, DriverError> {
        let Link { receive, spare, tx, .. } = self;
        let received = receive.recv_in_place(spare)?;
        Ok(received.map(|(header, frame)| {
            let header = VnetHeader::from_bytes(&header);
            RingFrame { header, frame, tx }
        }))
    }

    /// Gives the buffers of frames taken back to the switch.
    pub fn refill(&mut self) {
        if self.receive.refill() {
            self.tx.knock();
        }
    }

    /// The half that sends.
    pub fn tx(&mut self) -> &mut LinkTx {
        &mut self.tx
    }

    /// Asks to be woken. True: frames are waiting already.
    pub fn arm(&mut self) -> bool {
        self.receive.arm()
    }

    /// No wake-up is needed while frames are being taken.
    pub fn disarm(&mut self) {
        self.receive.disarm();
    }
}

impl LinkTx {
    /// Queues a frame, the concatenation of `parts`; the switch sees it after [`LinkTx::flush`].
    ///
    /// # Errors
    /// No room, or the frame is too long. It is not queued.
    pub fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        if self.room() == 0 {
            return Err(DropReason::RingFull);
        }
        match self.transmit.send(&header.to_bytes(), parts) {
            Ok(()) => {
                self.unsent = true;
                Ok(())
            }
            Err(DriverError::TooLarge(_)) => Err(DropReason::TooLong),
            Err(_) => Err(DropReason::RingFull),
        }
    }

    /// Frames that [`LinkTx::send`] takes.
    pub fn room(&mut self) -> usize {
        if self.transmit.free() == 0
            && let Err(error) = self.transmit.reclaim()
        {
            self.fault = Some(error);
        }
        self.transmit.free()
    }

    /// Asks to be woken when frames have left. True: some have already.
    pub fn arm_room(&mut self) -> bool {
        self.transmit.arm()
    }

    /// No wake-up is needed for frames that leave.
    pub fn disarm_room(&mut self) {
        self.transmit.disarm();
    }

    /// Shows the switch what was queued, and wakes it if it asked for that.
    ///
    /// # Errors
    /// The switch broke the transmit ring's rules.
    pub fn flush(&mut self) -> Result<(), DriverError> {
        if std::mem::take(&mut self.unsent) && self.transmit.publish() {
            self.knock();
        }
        self.fault.take().map_or(Ok(()), Err)
    }

    fn knock(&self) {
        // A full counter is a knock under way already.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }
}

impl Cable for LinkTx {
    fn room(&mut self) -> usize {
        LinkTx::room(self)
    }

    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        LinkTx::send(self, header, parts)
    }
}
