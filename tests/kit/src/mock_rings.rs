//! Rings that only record what a session requests of them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use trama_frame::MacAddr;
use trama_vhost_net_backend::{RingFds, Rings, RingsError};
use trama_virtqueue::{GuestMemory, RingSetup};

use crate::wait::eventfd;

/// The requests that the rings under test received.
#[derive(Default)]
pub struct Recorded {
    /// The features, once they are set.
    pub features: Option<u64>,
    /// The memory, once it is set.
    pub memory: Option<Arc<GuestMemory>>,
    /// The running rings by index.
    pub running: BTreeMap<usize, (RingSetup, RingFds)>,
    /// A line for each call, in order.
    pub log: Vec<String>,
    /// Number of connections that have ended.
    pub disconnects: usize,
    /// Why the rings are broken, until the session asks.
    pub broken: Option<String>,
    /// Number of buffers that each ring uses before it is stopped.
    pub used: u16,
}

/// Rings that only record requests.
#[derive(Clone)]
pub struct MockRings {
    /// The record, shared by all clones.
    pub recorded: Arc<Mutex<Recorded>>,
    fault: Arc<OwnedFd>,
}

impl Default for MockRings {
    fn default() -> MockRings {
        MockRings::new()
    }
}

impl MockRings {
    /// Returns rings that have recorded nothing.
    pub fn new() -> MockRings {
        MockRings { recorded: Arc::default(), fault: Arc::new(eventfd()) }
    }

    /// Locks the record.
    pub fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap()
    }

    /// Returns the indices of the running rings.
    pub fn running(&self) -> Vec<usize> {
        self.recorded().running.keys().copied().collect()
    }

    /// Takes the log of calls so far.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.recorded().log)
    }

    /// Reports a fault of the rings to the session.
    pub fn break_now(&self, why: &str) {
        self.recorded().broken = Some(why.to_owned());
        rustix::io::write(&self.fault, &1u64.to_ne_bytes()).unwrap();
    }
}

impl Rings for MockRings {
    fn set_features(&mut self, features: u64) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        assert!(recorded.running.is_empty(), "features change under running rings");
        recorded.features = Some(features);
        recorded.log.push("features".into());
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("memory {}", memory.regions().len()));
        recorded.memory = Some(memory);
        Ok(())
    }

    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("start {index} at {}", setup.next));
        let earlier = recorded.running.insert(index, (setup, fds));
        assert!(earlier.is_none(), "ring {index} started twice");
        Ok(())
    }

    fn stop(&mut self, index: usize) -> Result<u16, RingsError> {
        let mut recorded = self.recorded();
        let (setup, _) = recorded.running.remove(&index).expect("stopped a ring that does not run");
        recorded.log.push(format!("stop {index}"));
        let next = setup.next.wrapping_add(recorded.used);
        set_used(&setup, next);
        Ok(next)
    }

    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("call {index}"));
        recorded.running.get_mut(&index).expect("call for a stopped ring").1.call = call;
        Ok(())
    }

    fn set_kick(&mut self, index: usize, kick: Option<OwnedFd>) -> Result<(), RingsError> {
        let mut recorded = self.recorded();
        recorded.log.push(format!("kick {index}"));
        recorded.running.get_mut(&index).expect("kick for a stopped ring").1.kick = kick;
        Ok(())
    }

    fn announce(&mut self, station: MacAddr) -> Result<(), RingsError> {
        self.recorded().log.push(format!("announce {station}"));
        Ok(())
    }

    fn disconnected(&mut self) {
        let mut recorded = self.recorded();
        recorded.running.clear();
        recorded.memory = None;
        recorded.features = None;
        recorded.disconnects += 1;
    }

    fn fault_event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fault.as_fd())
    }

    fn broken(&mut self) -> Option<RingsError> {
        self.recorded().broken.take().map(RingsError::new)
    }
}

/// Writes the ring's used index, as a device does, if the ring lies in its memory.
fn set_used(setup: &RingSetup, index: u16) {
    setup.memory.write(setup.used.wrapping_add(2), &index.to_le_bytes());
}
