//! The device as the frontend has set it up so far, and the moves from one state to the next.
//!
//! One handler serves all connections of a session, one after the other; nothing that a frontend
//! said outlives its connection. An error from here ends the connection.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use trama_virtqueue::{GuestMemory, RegionSpec};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::{Error, Result};

use crate::features;
use crate::memory_table::{self, REMEDY};
use crate::rings::Rings;
use crate::vring::Vring;

/// The device as one frontend sees it.
pub(crate) struct Handler<R> {
    pub(crate) rings: R,
    pub(crate) queue_pairs: u16,
    mtu: u16,
    pub(crate) offered: u64,
    /// What the driver acknowledged; none before SET_FEATURES.
    pub(crate) acknowledged: Option<u64>,
    pub(crate) protocol: Protocol,
    memory: Option<Arc<GuestMemory>>,
    pub(crate) vrings: Vec<Vring>,
    /// Whether the memory has been looked at for [`memory_table::looks_private`].
    looked: bool,
    /// Something that the operator should know although the connection goes on.
    complaint: Option<String>,
}

/// Ends the connection for this reason.
pub(crate) fn refuse<T>(reason: impl Display) -> Result<T> {
    Err(Error::ReqHandlerError(io::Error::other(reason.to_string())))
}

/// The same for a ring.
pub(crate) fn refuse_ring<T>(index: usize, reason: impl Display) -> Result<T> {
    refuse(format_args!("ring {index}: {reason}"))
}

impl<R: Rings> Handler<R> {
    pub fn new(rings: R, mask: u64, queue_pairs: u16, mtu: u16) -> Handler<R> {
        let mut handler = Handler {
            rings,
            queue_pairs,
            mtu,
            offered: features::offered(mask, queue_pairs),
            acknowledged: None,
            protocol: Protocol::empty(),
            memory: None,
            vrings: Vec::new(),
            looked: false,
            complaint: None,
        };
        handler.forget();
        handler
    }

    /// Drops everything that the frontend said and brought.
    pub fn forget(&mut self) {
        self.rings.disconnected();
        self.acknowledged = None;
        self.protocol = Protocol::empty();
        self.memory = None;
        self.vrings = (0..2 * usize::from(self.queue_pairs)).map(|_| Vring::default()).collect();
        self.looked = false;
        self.complaint = None;
    }

    /// The protocol features that are implemented here; the `vhost` crate adds REPLY_ACK.
    pub fn offered_protocol(&self) -> Protocol {
        let several = if self.queue_pairs > 1 { Protocol::MQ } else { Protocol::empty() };
        Protocol::CONFIGURE_MEM_SLOTS | Protocol::MTU | several
    }

    /// Whether the frontend may ask for answers.
    pub fn answers(&self) -> bool {
        self.protocol.contains(Protocol::REPLY_ACK)
    }

    /// Pairs of rings of which both run.
    pub fn active_pairs(&self) -> u16 {
        let running = |pair: &&[Vring]| pair.iter().all(|vring| vring.running);
        self.vrings.chunks(2).filter(running).count() as u16
    }

    /// What the operator should know, once.
    pub fn take_complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// NET_SET_MTU: whether the guest may be told this MTU.
    pub fn accept_mtu(&mut self, mtu: u64) -> Result<bool> {
        if !self.protocol.contains(Protocol::MTU) {
            return refuse("the MTU protocol feature was not acknowledged");
        }
        let accepted = mtu <= u64::from(self.mtu);
        if !accepted {
            self.complaint = Some(format!(
                "the VMM wants to tell its guest an MTU of {mtu}, the network has {}: lower host_mtu \
                 or raise the network's MTU",
                self.mtu
            ));
        }
        Ok(accepted)
    }

    pub(crate) fn index(&self, index: u32) -> Result<usize> {
        let rings = self.vrings.len();
        match usize::try_from(index) {
            Ok(index) if index < rings => Ok(index),
            _ => refuse(format_args!(
                "ring {index} does not exist, there are {rings}: give the port as many queue pairs \
                 as the VMM has"
            )),
        }
    }

    /// Starts the ring if it is wanted and complete.
    pub(crate) fn try_start(&mut self, index: usize) -> Result<()> {
        let (Some(acknowledged), Some(memory)) = (self.acknowledged, &self.memory) else {
            return Ok(());
        };
        let vring = &self.vrings[index];
        let always_enabled = acknowledged & features::VHOST_USER_PROTOCOL_FEATURES == 0;
        if vring.running || !(vring.enabled || always_enabled) {
            return Ok(());
        }
        let Some(setup) = vring.setup(features::ring_features(acknowledged), memory) else {
            return Ok(());
        };
        let fds = vring.fds().or_else(|error| refuse_ring(index, error))?;
        if !self.looked {
            self.looked = true;
            if memory_table::looks_private(memory.specs()) {
                self.complaint = Some(format!(
                    "the guest's memory reads as zeros; if no packets pass, {REMEDY}"
                ));
            }
        }
        // Frontends differ in whether SET_VRING_BASE knows how far a backend came that died.
        let setup = setup.resumed_from_used();
        self.rings.start(index, setup, fds).or_else(|error| refuse_ring(index, error))?;
        self.vrings[index].running = true;
        Ok(())
    }

    /// Stops the ring if it runs; it stays wanted.
    pub(crate) fn pause(&mut self, index: usize) -> Result<()> {
        if self.vrings[index].running {
            self.vrings[index].running = false;
            self.vrings[index].next =
                self.rings.stop(index).or_else(|error| refuse_ring(index, error))?;
        }
        Ok(())
    }

    /// Stops the ring until the frontend sends its kick descriptor again.
    pub(crate) fn halt(&mut self, index: usize) -> Result<()> {
        self.pause(index)?;
        self.vrings[index].kick = None;
        Ok(())
    }

    /// Swaps the memory map under the rings. Rings that lie outside the new one wait for the
    /// message that brings their memory back; the others go on.
    pub(crate) fn replace_memory(&mut self, regions: Vec<RegionSpec>) -> Result<()> {
        for index in 0..self.vrings.len() {
            if !self.vrings[index].lies_in(&regions) {
                self.pause(index)?;
            }
        }
        if regions.is_empty() {
            self.memory = None;
            return Ok(());
        }
        let map = match &self.memory {
            Some(old) => GuestMemory::map_from(old, regions),
            None => GuestMemory::map(regions),
        };
        let memory = map.or_else(refuse)?;
        self.rings.set_memory(memory.clone()).or_else(refuse)?;
        self.memory = Some(memory.clone());
        for index in 0..self.vrings.len() {
            if self.vrings[index].lies_in(memory.specs()) {
                self.try_start(index)?;
            }
        }
        Ok(())
    }

    pub(crate) fn regions(&self) -> Vec<RegionSpec> {
        self.memory.as_ref().map_or_else(Vec::new, |memory| memory.specs().to_vec())
    }
}
