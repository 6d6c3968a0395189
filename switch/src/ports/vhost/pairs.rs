//! The rings of a device, by pair. `W` is what becomes of their writes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_virtqueue::{GuestMemory, RingError, RingSetup, Unlogged, Writes};

use super::rings::{Receive, Transmit, notify};
use crate::engine::EngineError;
use crate::ports::Watched;
use crate::ports::calls::Calls;
use crate::ports::ring_shares::RingShares;

/// Pairs of rings, each of which is started or not.
pub(super) struct RingPairs<W = Unlogged> {
    pub(super) receive: Vec<Option<Receive<W>>>,
    pub(super) transmit: Vec<Option<Transmit<W>>>,
}

impl<W: Writes> RingPairs<W> {
    /// Makes room for `pairs` pairs.
    pub(super) fn new(pairs: usize) -> RingPairs<W> {
        RingPairs {
            receive: (0..pairs).map(|_| None).collect(),
            transmit: (0..pairs).map(|_| None).collect(),
        }
    }

    /// Starts ring `index`. Kicks of receive rings are never awaited.
    pub(super) fn start(
        &mut self,
        index: usize,
        setup: RingSetup,
        call: Option<OwnedFd>,
        kick: Option<Watched>,
    ) -> Result<(), EngineError> {
        let ring_error = ring_error(index);
        if is_receive(index) {
            self.receive[index / 2] = Some(Receive::new(setup, call).map_err(ring_error)?);
        } else {
            let ring = Transmit::new(setup, call, kick).map_err(ring_error)?;
            self.transmit[index / 2] = Some(ring);
        }
        Ok(())
    }

    /// Drops ring `index`, if it is started; returns the index at which it resumes.
    pub(super) fn stop(&mut self, index: usize) -> Option<u16> {
        let pair = index / 2;
        if is_receive(index) {
            self.receive[pair].take().map(|ring| ring.queue.next())
        } else {
            self.transmit[pair].take().map(|ring| ring.queue.next())
        }
    }

    /// Returns the place of a started ring's call descriptor.
    pub(super) fn call(&mut self, index: usize) -> Option<&mut Option<OwnedFd>> {
        let pair = index / 2;
        if is_receive(index) {
            self.receive.get_mut(pair)?.as_mut().map(|ring| &mut ring.call)
        } else {
            self.transmit.get_mut(pair)?.as_mut().map(|ring| &mut ring.call)
        }
    }

    /// Returns the place of a started transmit ring's kick descriptor.
    pub(super) fn kick(&mut self, pair: usize) -> Option<&mut Option<Watched>> {
        self.transmit[pair].as_mut().map(|ring| &mut ring.kick)
    }

    pub(super) fn set_memory(&mut self, memory: &Arc<GuestMemory>) -> Result<(), EngineError> {
        for (pair, ring) in self.receive.iter_mut().enumerate() {
            if let Some(ring) = ring {
                ring.queue.set_memory(memory.clone()).map_err(ring_error(2 * pair))?;
            }
        }
        for (pair, ring) in self.transmit.iter_mut().enumerate() {
            if let Some(ring) = ring {
                ring.queue.set_memory(memory.clone()).map_err(ring_error(2 * pair + 1))?;
            }
        }
        Ok(())
    }

    pub(super) fn catch_up(&mut self) {
        for ring in self.receive.iter_mut().flatten() {
            ring.queue.catch_up();
            let size = ring.queue.size();
            ring.shares = ring.shares.take().map(|_| Box::new(RingShares::new(size)));
        }
        self.transmit.iter_mut().flatten().for_each(|ring| ring.queue.catch_up());
    }

    pub(super) fn call_all(&self, calls: &mut Calls) -> u64 {
        let receive = self.receive.iter().flatten().map(|ring| &ring.call);
        let transmit = self.transmit.iter().flatten().map(|ring| &ring.call);
        receive.chain(transmit).map(|call| notify(true, call, calls)).sum()
    }

    /// Returns the kick descriptors.
    pub(super) fn watched(&mut self) -> impl Iterator<Item = &mut Watched> {
        self.transmit.iter_mut().flatten().filter_map(|ring| ring.kick.as_mut())
    }

    /// Requests kicks on all transmit rings, up to the first that is not empty or has no kick
    /// descriptor; returns whether there is none such.
    pub(super) fn arm(&mut self) -> bool {
        self.transmit.iter_mut().flatten().all(Transmit::arm)
    }

    pub(super) fn disarm(&mut self) {
        self.transmit.iter_mut().flatten().for_each(|ring| ring.queue.disarm());
    }
}

/// Returns the error of ring `index`.
fn ring_error(index: usize) -> impl Fn(RingError) -> EngineError {
    move |error| EngineError::Ring { index, error }
}

/// Returns whether ring `index` of a virtio-net device is a receive ring (virtio 1.2, section
/// 5.1.2).
pub(super) fn is_receive(index: usize) -> bool {
    index & 1 == 0
}
