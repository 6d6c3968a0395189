#![doc = include_str!("../README.md")]
//!
//! [`SwitchPort`] implements [`Rings`]: each request of a frontend becomes a job of the port's
//! worker. The daemon plugs its vhost-user ports and its gateways in with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use trama_frame::{MacAddr, Offloads};
use trama_switch::{
    Engine, EngineError, Lasting, Note, PortCounters, PortFault, PortId, WorkerHandle,
};
use trama_vhost_net_backend::{RingFds, Rings, RingsError, features};
use trama_virtqueue::{CountFrames, GuestMemory, RingError, RingSetup};

/// The worker that has a port. Code that moves the port holds it meanwhile, so that the session's
/// requests wait for the move and then go to the right worker.
#[derive(Clone)]
pub struct PortPlace(Arc<Mutex<WorkerHandle>>);

impl PortPlace {
    /// Makes one of the worker that has the port.
    pub fn new(worker: WorkerHandle) -> PortPlace {
        PortPlace(Arc::new(Mutex::new(worker)))
    }

    /// Locks and returns the worker; code that moves the port stores the new one there.
    pub fn hold(&self) -> MutexGuard<'_, WorkerHandle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vhost-user port of a worker. Every request runs on the worker between two bursts.
pub struct SwitchPort {
    place: PortPlace,
    port: PortId,
    fault: Arc<OwnedFd>,
    counters: Lasting<PortCounters>,
    /// What the session's thread works on.
    note: Lasting<Note>,
}

/// The frames that a port has sent to its guest.
#[derive(Debug)]
struct Received(Lasting<PortCounters>);

impl CountFrames for Received {
    fn frames(&self) -> u64 {
        self.0.tx_frames.get()
    }
}

impl SwitchPort {
    /// Drives `port` of `worker`; the port must have a vhost device.
    ///
    /// # Errors
    /// No eventfd can be made, or the worker has no such port.
    pub fn new(worker: WorkerHandle, port: PortId) -> io::Result<SwitchPort> {
        let fault = Self::fault_event()?;
        let event = fault.clone();
        let counters = worker
            .call(move |engine, _| {
                engine.set_fault_event(port, Some(event))?;
                engine.port_counters(port)
            })
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        Ok(Self::with_fault_event(worker, port, counters, fault))
    }

    /// Makes an event for [`Engine::set_fault_event`] and [`SwitchPort::with_fault_event`].
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn fault_event() -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Drives `port` of `worker`, whose fault event was set when it was added.
    pub fn with_fault_event(
        worker: WorkerHandle,
        port: PortId,
        counters: Lasting<PortCounters>,
        fault: Arc<OwnedFd>,
    ) -> SwitchPort {
        let place = PortPlace::new(worker);
        SwitchPort { place, port, fault, counters, note: Lasting::default() }
    }

    /// Notes there when the session's thread works for the frontend; nothing else may write it.
    #[must_use]
    pub fn with_note(self, note: Lasting<Note>) -> SwitchPort {
        SwitchPort { note, ..self }
    }

    /// Returns the place of the port, for code that moves it.
    pub fn place(&self) -> PortPlace {
        self.place.clone()
    }

    /// Sets the offloads that the driver of the rings accepts.
    ///
    /// # Errors
    /// The port or its worker is gone.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), RingsError> {
        self.call(move |engine, port| {
            engine.set_offloads(port, offloads);
            Ok(())
        })
    }

    fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine, PortId) -> Result<R, EngineError> + Send + 'static,
    ) -> Result<R, RingsError> {
        let port = self.port;
        self.place
            .hold()
            .call(move |engine, _| engine.for_frontend(port, |engine| job(engine, port)))
            .map_err(RingsError::new)?
            .map_err(RingsError::new)
    }
}

impl Rings for SwitchPort {
    fn set_features(&mut self, features: u64) -> Result<(), RingsError> {
        self.set_offloads(features::offloads(features))
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError> {
        self.call(move |engine, port| engine.set_memory(port, memory))
    }

    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError> {
        self.call(move |engine, port| engine.start_ring(port, index, setup, fds))
    }

    fn stop(&mut self, index: usize) -> Result<u16, RingsError> {
        self.call(move |engine, port| engine.stop_ring(port, index))
    }

    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError> {
        self.call(move |engine, port| {
            engine.set_call(port, index, call);
            Ok(())
        })
    }

    fn set_kick(&mut self, index: usize, kick: Option<OwnedFd>) -> Result<(), RingsError> {
        self.call(move |engine, port| engine.set_kick(port, index, kick))
    }

    fn announce(&mut self, station: MacAddr) -> Result<(), RingsError> {
        let port = self.port;
        let announce = move |engine: &mut Engine, now| {
            engine.for_frontend(port, |engine| engine.announce(port, station, now))
        };
        self.place.hold().call(announce).map_err(RingsError::new)?.map_err(RingsError::new)
    }

    fn working(&mut self, is_working: bool) {
        if is_working {
            self.note.take();
            self.note.request(self.port);
        } else {
            self.note.idle();
        }
    }

    fn disconnected(&mut self) {
        // A worker that has ended has dropped the rings already.
        let _ = self.call(|engine, port| {
            engine.detach(port);
            Ok(())
        });
    }

    fn received(&self) -> Option<Arc<dyn CountFrames>> {
        Some(Arc::new(Received(self.counters.clone())))
    }

    fn fault_event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fault.as_fd())
    }

    fn broken(&mut self) -> Option<RingsError> {
        let fault = self.call(|engine, port| Ok(engine.port_fault(port))).ok()??;
        Some(match fault {
            PortFault::MemoryLost | PortFault::Ring { error: RingError::MemoryLost, .. } => {
                RingsError::new("the frontend removed its memory while it was in use")
            }
            PortFault::Ring { error: RingError::LogLost, .. } => {
                RingsError::new("the frontend removed its dirty log while it was in use")
            }
            fault => RingsError::new(format!("the driver violated the ring protocol: {fault}")),
        })
    }
}
