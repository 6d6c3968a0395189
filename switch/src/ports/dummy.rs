//! A port without a device: this process injects frames and captures what the switch sends.
//!
//! For tests, the simulation, and commands that send a frame by hand. Two bounded queues; they
//! allocate per frame, which no other port does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};
use trama_frame::vnet::LEN as HEADER;
use trama_frame::{Offloads, VnetHeader};
use trama_virtqueue::Segment;

use super::pool::PoolBurst;
use super::{Sink, Watched, Watcher, signal};
use crate::drop_reason::DropReason;
use crate::forward::MAX_FRAME;

/// The device half of a dummy port; goes into the engine.
pub struct DummyDevice {
    injected: Receiver<Captured>,
    captured: Sender<Captured>,
    offloads: Offloads,
    /// Written by [`DummyHandle::inject`] once the device is on a worker.
    event: Arc<OnceLock<OwnedFd>>,
    pub(super) watched: Option<Watched>,
}

/// The outside half of a dummy port; usable from any thread.
#[derive(Clone)]
pub struct DummyHandle {
    injected: Sender<Captured>,
    captured: Receiver<Captured>,
    event: Arc<OnceLock<OwnedFd>>,
}

/// A frame that passed through a dummy port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Its virtio-net header.
    pub header: VnetHeader,
    /// The frame, from the destination address on.
    pub bytes: Vec<u8>,
}

/// The frame does not fit into the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dummy port's queue is full, or the frame is longer than any frame may be")]
pub struct Full;

/// Makes a dummy port that holds up to `capacity` frames per direction and takes all offloads.
pub fn dummy(capacity: usize) -> (DummyDevice, DummyHandle) {
    dummy_with_offloads(capacity, Offloads::ALL)
}

/// Makes a dummy port that takes only `offloads`; software does the rest before it gets a frame.
pub fn dummy_with_offloads(capacity: usize, offloads: Offloads) -> (DummyDevice, DummyHandle) {
    let (inject, injected) = bounded(capacity.max(1));
    let (capture, captured) = bounded(capacity.max(1));
    let event = Arc::default();
    let handle = DummyHandle { injected: inject, captured, event: Arc::clone(&event) };
    (DummyDevice { injected, captured: capture, offloads, event, watched: None }, handle)
}

impl DummyHandle {
    /// Injects a frame and wakes the switch.
    ///
    /// # Errors
    /// The queue is full, or the frame is longer than any frame may be.
    pub fn inject(&self, header: VnetHeader, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > MAX_FRAME {
            return Err(Full);
        }
        self.injected.try_send(Captured { header, bytes: bytes.to_vec() }).map_err(|_| Full)?;
        if let Some(event) = self.event.get() {
            signal(event.as_fd());
        }
        Ok(())
    }

    /// Returns what the switch has sent since the last call, oldest first.
    pub fn captured(&self) -> Vec<Captured> {
        self.captured.try_iter().collect()
    }
}

impl DummyDevice {
    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        if !watcher.doorbell.can_wake() {
            return Ok(());
        }
        let device_event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let handle_event = device_event.try_clone()?;
        self.watched = Some(watcher.watch(device_event)?);
        // A device is watched only once, so this is not set yet.
        let _ = self.event.set(handle_event);
        Ok(())
    }

    /// Fills `burst` with injected frames.
    pub(crate) fn fetch(&mut self, burst: &mut PoolBurst) {
        while !burst.is_full() {
            let Ok(frame) = self.injected.try_recv() else { break };
            let buffer = burst.buffer();
            buffer[..HEADER].copy_from_slice(&frame.header.to_bytes());
            buffer[HEADER..HEADER + frame.bytes.len()].copy_from_slice(&frame.bytes);
            burst.commit(frame.bytes.len());
        }
    }
}

impl Sink for DummyDevice {
    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
        let mut bytes = vec![0; len];
        bytes[..head.len()].copy_from_slice(head);
        let mut filled = head.len();
        for segment in body {
            filled += segment.copy_to(&mut bytes[filled..]);
        }
        let frame = Captured { header: VnetHeader::from_bytes(header), bytes };
        self.captured.try_send(frame).map_err(|_| DropReason::EgressFull)
    }
}
