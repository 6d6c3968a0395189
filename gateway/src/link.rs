//! The gateway's link to the switch: a ring pair in shared memory, with its driver in the gateway,
//! its device in the switch, and an eventfd in each direction.
//!
//! [`wire`] creates both ends. The *host* end is what a switch port needs to run the rings; the
//! *guest* end is three descriptors, which can be passed to another process. Both sides compute the
//! positions of the rings from the same [`Layout`], so no address is exchanged, and the memory is
//! sealed against shrinking. A pair belongs to one gateway process: another one gets a new pair. A
//! switch that goes on with the process of an earlier one [rejoins](rejoin) the pair.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};
use trama_frame::ethernet::{MAX_TAGS, MIN_HEADER, TAG_LEN};
use trama_frame::{Offloads, VnetHeader};
use trama_nat::Cable;
use trama_virtqueue::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, GuestMemory, InPlace,
    RingFeatures, RingSetup, locate,
};

use crate::config::Config;
use crate::drop_reason::NatDrop;

/// Descriptors of each ring, and descriptors and buffer size with large frames. A large frame is
/// received over many buffers, so that small frames take little room. An odd multiple of 64 bytes
/// leaves no gap between buffers, so that a frame can be read in place.
const RING_SIZE: u16 = 256;
const LARGE_RECEIVE: (u16, usize) = (512, 65 * 64);
const LARGE_TRANSMIT: (u16, usize) = (128, OVERHEAD + 65_535);
/// Bytes around the layer-3 packet in a buffer: virtio-net header, Ethernet header, VLAN tags.
const OVERHEAD: usize = 12 + MIN_HEADER + MAX_TAGS * TAG_LEN;

/// The layout of the rings in their memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes of one buffer.
    buffer_size: usize,
    /// Whether large frames and partial checksums are supported.
    is_large: bool,
}

impl Layout {
    /// The layout for a gateway with these settings. NAT moves bulk data, and so has large-frame
    /// offloads.
    pub fn of(config: &Config) -> Layout {
        let buffer_size = (OVERHEAD + usize::from(config.station.mtu)).next_multiple_of(64);
        Layout { buffer_size, is_large: config.has_large_frames() }
    }

    /// The offloads that the gateway supports as a receiver.
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

    /// Creates both rings, always at the same positions.
    fn rings(self, memory: &Arc<DriverMemory>) -> Result<(DriverRx, DriverTx), DriverError> {
        Ok((DriverRx::new(memory, self.receive())?, DriverTx::new(memory, self.transmit())?))
    }
}

/// The switch's end.
pub struct HostEnd {
    /// The memory to map.
    pub memory: Arc<GuestMemory>,
    /// The rings in the order of virtio: the driver's receive ring, its transmit ring.
    pub rings: [RingSetup; 2],
    /// Written by the gateway after it has sent frames.
    pub kick: OwnedFd,
    /// Written by the switch after it has delivered frames, or freed buffers.
    pub call: OwnedFd,
}

/// The gateway's end, in the order in which it is passed.
pub struct GuestEnd {
    /// The memory of the rings.
    pub memory: OwnedFd,
    /// As in [`HostEnd`].
    pub kick: OwnedFd,
    /// As in [`HostEnd`].
    pub call: OwnedFd,
}

impl GuestEnd {
    /// Makes copies of the descriptors.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<GuestEnd> {
        let GuestEnd { memory, kick, call } = self;
        let (memory, kick, call) = (memory.try_clone()?, kick.try_clone()?, call.try_clone()?);
        Ok(GuestEnd { memory, kick, call })
    }
}

/// Creates a pair of rings.
///
/// # Errors
///
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

/// Returns the switch's end of a pair of rings that an earlier switch has created. The rings go on
/// from the used indices in their memory, which is not written to.
///
/// # Errors
///
/// [`wire`] did not create the memory with this layout.
pub fn rejoin(layout: Layout, end: GuestEnd) -> Result<HostEnd, DriverError> {
    let memory = DriverMemory::open(File::from(end.memory))?;
    let rings = [locate(&memory, layout.receive())?, locate(&memory, layout.transmit())?];
    let rings = rings.map(RingSetup::resumed_from_used);
    Ok(HostEnd { memory: memory.map(), rings, kick: end.kick, call: end.call })
}

/// The driver of a pair of rings.
///
/// It is woken by [`Link::event`], edge-triggered: receive with [`Link::receive`] until there is
/// none, then call [`Link::arm`]; if that returns true, start over.
pub struct Link {
    receive: DriverRx,
    /// Buffer for frames that span several ring buffers.
    scratch: Vec<u8>,
    call: OwnedFd,
    tx: LinkTx,
}

/// The sending half of a [`Link`].
pub struct LinkTx {
    transmit: DriverTx,
    kick: OwnedFd,
    /// Frames are queued that the switch cannot see yet.
    unpublished: bool,
    /// An error in the transmit ring, for [`LinkTx::flush`] to return.
    fault: Option<DriverError>,
}

/// A frame from the switch.
pub struct RingFrame<'a> {
    /// The header. Its `hdr_len` is the mark of the ingress port; 0 if that has none.
    pub header: VnetHeader,
    /// The frame in the ring's memory.
    pub frame: &'a [u8],
    /// The sending half, for answers.
    pub tx: &'a mut LinkTx,
}

impl Link {
    /// Attaches to a pair of rings; the switch can deliver from now on.
    ///
    /// # Errors
    ///
    /// [`wire`] did not create the memory with this layout.
    pub fn attach(layout: Layout, end: GuestEnd) -> Result<Link, DriverError> {
        let memory = DriverMemory::open(File::from(end.memory))?;
        let (receive, mut transmit) = layout.rings(&memory)?;
        transmit.disarm();
        let tx = LinkTx { transmit, kick: end.kick, unpublished: false, fault: None };
        let mut link = Link { receive, scratch: Vec::new(), call: end.call, tx };
        link.refill();
        Ok(link)
    }

    /// Becomes readable when the switch has delivered frames.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Receives a frame, which stays in the ring until [`Link::refill`]; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The switch violated the rules of the ring.
    pub fn receive(&mut self) -> Result<Option<RingFrame<'_>>, DriverError> {
        let Link { receive, scratch, tx, .. } = self;
        let received = receive.recv_in_place(scratch)?;
        Ok(received.map(|InPlace { header, frame }| {
            let header = VnetHeader::from_bytes(&header);
            RingFrame { header, frame, tx }
        }))
    }

    /// Returns the buffers of received frames to the switch.
    pub fn refill(&mut self) {
        if self.receive.refill() {
            self.tx.notify();
        }
    }

    /// The sending half.
    pub fn tx(&mut self) -> &mut LinkTx {
        &mut self.tx
    }

    /// Enables the wake-up. Returns whether frames have arrived already.
    pub fn arm(&mut self) -> bool {
        self.receive.arm()
    }

    /// Disables the wake-up while frames are being received.
    pub fn disarm(&mut self) {
        self.receive.disarm();
    }
}

impl LinkTx {
    /// Queues a frame, the concatenation of `parts`; the switch sees it after [`LinkTx::flush`].
    ///
    /// # Errors
    ///
    /// There is no room, or the frame is too long. It is not queued.
    pub fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), NatDrop> {
        if self.room() == 0 {
            return Err(NatDrop::RingFull);
        }
        match self.transmit.send(&header.to_bytes(), parts) {
            Ok(()) => {
                self.unpublished = true;
                Ok(())
            }
            Err(DriverError::TooLarge(_)) => Err(NatDrop::TooLong),
            Err(_) => Err(NatDrop::RingFull),
        }
    }

    /// Frames that [`LinkTx::send`] has room for.
    pub fn room(&mut self) -> usize {
        if self.transmit.free() == 0
            && let Err(error) = self.transmit.reclaim()
        {
            self.fault = Some(error);
        }
        self.transmit.free()
    }

    /// Enables the wake-up for sent frames. Returns whether some have been sent already.
    pub fn arm_room(&mut self) -> bool {
        self.transmit.arm()
    }

    /// Disables the wake-up for sent frames.
    pub fn disarm_room(&mut self) {
        self.transmit.disarm();
    }

    /// Publishes queued frames to the switch, and notifies it if it asked for that.
    ///
    /// # Errors
    ///
    /// The switch violated the rules of the transmit ring.
    pub fn flush(&mut self) -> Result<(), DriverError> {
        if std::mem::take(&mut self.unpublished) && self.transmit.publish() {
            self.notify();
        }
        self.fault.take().map_or(Ok(()), Err)
    }

    fn notify(&self) {
        // If the counter is full, a notification is pending.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }
}

impl Cable for LinkTx {
    fn room(&mut self) -> usize {
        LinkTx::room(self)
    }

    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), NatDrop> {
        LinkTx::send(self, header, parts)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::lab;

    #[test]
    fn a_switch_that_rejoins_goes_on_from_the_used_index_and_writes_nothing() {
        let layout = Layout::of(&lab());
        let (host, end) = wire(layout).unwrap();
        let copy = end.try_clone().unwrap();
        let _link = Link::attach(layout, end).unwrap();
        let memory = File::from(copy.memory.try_clone().unwrap());
        let [receive, transmit] = &host.rings;
        // What the driver has written, and how far the earlier switch has got.
        memory.write_all_at(&[0; 16], 0).unwrap();
        for (ring, used) in [(receive, 7_u16), (transmit, 9)] {
            let place = ring.used - receive.desc + 2;
            memory.write_all_at(&used.to_le_bytes(), place).unwrap();
        }
        let bytes = || {
            let mut bytes = vec![0; layout.memory_size()];
            memory.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = bytes();
        let again = rejoin(layout, copy.try_clone().unwrap()).unwrap();
        assert!(bytes() == before);
        let places =
            |ring: &RingSetup| (ring.size, ring.desc, ring.avail, ring.used, ring.features);
        assert_eq!(again.rings.each_ref().map(places), host.rings.each_ref().map(places));
        assert_eq!(again.rings.map(|ring| ring.next), [7, 9]);

        let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&short, layout.memory_size() as u64 - 4096).unwrap();
        assert!(rejoin(layout, GuestEnd { memory: short, ..copy }).is_err());
    }
}
