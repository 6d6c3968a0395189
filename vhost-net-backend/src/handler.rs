//! The state of the device as the frontend has set it up so far, and its transitions.
//!
//! One handler serves all connections of a session, one after the other; no state of a frontend
//! outlives its connection. An error returned from here ends the connection.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Once};
use std::time::Duration;

use trama_virtqueue::{DirtyLog, GuestMemory, MemoryAccount, Region, RegionSpec};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::{Error, Result};

use crate::features;
use crate::memory_table::REMEDY;
use crate::pace::Pace;
use crate::rings::Rings;
use crate::status::Control;
use crate::vring::Vring;

/// The ring whose first kick is checked: the first receive ring, which every driver fills before
/// a frame can arrive. The data plane does not wait for kicks of receive rings.
const CHECKED_RING: usize = 0;

/// How many changes of the memory table may follow each other at once after a pause: a VMM that
/// starts, or plugs in memory.
const MEMORY_BURST: u32 = 64;
/// The same of requests, for each pair of rings and once more: VMMs send about 16 to set a pair up.
const PAIR_BURST: u32 = 64;
/// How many requests are served in the time of one change of the memory table.
const PACE_OF_REQUESTS: u32 = 20;

/// The device as one frontend sees it.
pub(crate) struct Handler<R> {
    pub(crate) rings: R,
    pub(crate) control: Arc<Control>,
    pub(crate) queue_pairs: u16,
    /// Mask of the features that may be offered.
    mask: u64,
    /// Whether SET_OWNER was received.
    pub(crate) owned: bool,
    /// Whether the frontend asked for our protocol features before SET_OWNER; `None` until it asks.
    /// See [`Self::offer_protocol`].
    pub(crate) asked_unowned: Option<bool>,
    /// The features that the driver acknowledged; `None` before SET_FEATURES.
    pub(crate) acknowledged: Option<u64>,
    pub(crate) protocol: Protocol,
    pub(crate) memory: Option<Arc<GuestMemory>>,
    /// Where writes to the memory are logged, once the frontend has said.
    pub(crate) log: Option<Arc<DirtyLog>>,
    /// Whether it was reported that a log is missing.
    log_missed: bool,
    pub(crate) account: Arc<MemoryAccount>,
    /// Of changes of the memory table, which map pages.
    memory_pace: Pace,
    /// Of requests.
    pub(crate) pace: Pace,
    pub(crate) vrings: Vec<Vring>,
    /// Whether it is settled that the memory is shared or not.
    pub(crate) memory_checked: bool,
    /// Whether an earlier process has served this connection.
    pub(crate) resumed: bool,
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
    pub(crate) fn new(
        rings: R,
        control: Arc<Control>,
        (mask, queue_pairs): (u64, u16),
        spacing: Duration,
    ) -> Handler<R> {
        let account = control.account().clone();
        Handler {
            rings,
            control,
            queue_pairs,
            mask,
            owned: false,
            asked_unowned: None,
            acknowledged: None,
            protocol: Protocol::empty(),
            memory: None,
            log: None,
            log_missed: false,
            account,
            memory_pace: Pace::new(spacing, MEMORY_BURST),
            pace: Pace::new(spacing / PACE_OF_REQUESTS, PAIR_BURST * (1 + u32::from(queue_pairs))),
            vrings: Self::no_vrings(queue_pairs),
            memory_checked: false,
            resumed: false,
        }
    }

    fn no_vrings(queue_pairs: u16) -> Vec<Vring> {
        (0..2 * usize::from(queue_pairs)).map(|_| Vring::default()).collect()
    }

    /// Drops all state and resources of the frontend.
    pub(crate) fn forget(&mut self) {
        self.rings.disconnected();
        self.owned = false;
        self.asked_unowned = None;
        self.acknowledged = None;
        self.protocol = Protocol::empty();
        self.memory = None;
        (self.log, self.log_missed) = (None, false);
        self.account.clear();
        self.vrings = Self::no_vrings(self.queue_pairs);
        self.memory_checked = false;
        self.resumed = false;
    }

    /// The features that are offered now.
    pub(crate) fn offered(&self) -> u64 {
        features::offered(self.mask, self.queue_pairs, self.control.device().mac.is_some())
    }

    /// The protocol features that are implemented here; the `vhost` crate adds REPLY_ACK.
    pub(crate) fn protocol_features(&self) -> Protocol {
        let several = if self.queue_pairs > 1 { Protocol::MQ } else { Protocol::empty() };
        Protocol::LOG_SHMFD
            | Protocol::RARP
            | Protocol::CONFIGURE_MEM_SLOTS
            | Protocol::MTU
            | Protocol::CONFIG
            | several
    }

    /// The protocol features offered to this frontend, the same each time that it asks.
    ///
    /// QEMU keeps a network device's configuration itself, and warns at each start of a backend
    /// that offers CONFIG. It asks for protocol features while it opens its backend, before
    /// SET_OWNER; cloud-hypervisor and crosvm, which use CONFIG, send SET_OWNER first.
    pub(crate) fn offer_protocol(&mut self) -> Protocol {
        let asked_unowned = *self.asked_unowned.get_or_insert(!self.owned);
        let withheld = if asked_unowned { Protocol::CONFIG } else { Protocol::empty() };
        self.protocol_features() - withheld
    }

    /// The answer to GET_QUEUE_NUM. The protocol counts rings, and so do the VMMs that use the
    /// `vhost` crate, which then refuses larger ring indices, and crosvm. QEMU takes it for the
    /// pairs of a network device, compares it with `queues=` and names it in its message.
    ///
    /// Two signs distinguish QEMU from the others: it asks before SET_OWNER, and it acknowledges
    /// every protocol feature that it knows, which includes MTU. libkrun shows only the first sign.
    pub(crate) fn queue_num(&self) -> u64 {
        let is_qemu = self.asked_unowned == Some(true) && self.protocol.contains(Protocol::MTU);
        if is_qemu { self.queue_pairs.into() } else { self.vrings.len() as u64 }
    }

    /// Whether the frontend may ask for answers.
    pub(crate) fn answers(&self) -> bool {
        self.protocol.contains(Protocol::REPLY_ACK)
    }

    /// Number of ring pairs of which both rings run.
    pub(crate) fn active_pairs(&self) -> u16 {
        let running = |pair: &&[Vring]| pair.iter().all(|vring| vring.running);
        self.vrings.chunks(2).filter(running).count() as u16
    }

    /// NET_SET_MTU: whether the guest may be told this MTU.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn accept_mtu(&mut self, mtu: u64) -> std::result::Result<(), String> {
        let network = self.control.device().mtu;
        if mtu > u64::from(network) {
            return Err(format!(
                "refused an MTU of {mtu} for the guest, as the network has {network}: lower \
                 host_mtu or raise the network's MTU, then restart the VM"
            ));
        }
        self.control.set_guest_mtu(mtu);
        Ok(())
    }

    pub(crate) fn index(&self, index: u32) -> Result<usize> {
        let rings = self.vrings.len();
        match usize::try_from(index) {
            Ok(index) if index < rings => Ok(index),
            _ => refuse(format_args!(
                "ring {index} does not exist, the port has {rings}: give it as many queue pairs as \
                 the VMM has"
            )),
        }
    }

    /// Whether writes to the memory are logged. LOG_ALL alone means nothing: a frontend that
    /// acknowledges whatever is offered may have no way to share a log.
    pub(crate) fn logs(&self) -> bool {
        self.acknowledged.is_some_and(|features| features & features::LOG_ALL != 0)
            && self.protocol.contains(Protocol::LOG_SHMFD)
    }

    /// Whether rings wait for the log that their writes must be marked in.
    fn lacks_log(&self) -> bool {
        self.logs() && self.log.is_none()
    }

    /// Starts the ring if it is enabled and completely described.
    pub(crate) fn try_start(&mut self, index: usize) -> Result<()> {
        let (Some(acknowledged), Some(memory)) = (self.acknowledged, &self.memory) else {
            return Ok(());
        };
        let vring = &self.vrings[index];
        let always_enabled = acknowledged & features::VHOST_USER_PROTOCOL_FEATURES == 0;
        if vring.running || !(vring.enabled || always_enabled) {
            return Ok(());
        }
        if self.lacks_log() {
            // What it wrote now would be missing where its guest arrives.
            return Ok(());
        }
        let log = self.log.as_ref().filter(|_| self.logs());
        let Some(setup) = vring.setup(features::ring_features(acknowledged), memory, log) else {
            return Ok(());
        };
        let fds = vring.fds().or_else(|error| refuse_ring(index, error))?;
        // Only some frontends set SET_VRING_BASE to the index that a crashed backend had reached.
        let setup = setup.resumed_from_used();
        if index == CHECKED_RING {
            self.vrings[index].drain_kicks();
        }
        self.rings.start(index, setup, fds).or_else(|error| refuse_ring(index, error))?;
        self.vrings[index].running = true;
        if self.resumed { self.call(index) } else { Ok(()) }
    }

    /// Calls the driver of a started ring. The earlier process may have ended between a completion
    /// and its call, or before it saw a buffer; then each side waits for the other.
    fn call(&mut self, index: usize) -> Result<()> {
        let call = self.vrings[index].own_call().or_else(|error| refuse_ring(index, error))?;
        self.rings.set_call(index, call).or_else(|error| refuse_ring(index, error))
    }

    /// The requests that an earlier process served have been carried out again. They do not tell
    /// how far the rings have got that are stopped now, but the used index in memory does.
    ///
    /// # Errors
    /// The guest migrates, but its log was not among them: a keeper of an earlier version does not
    /// keep it.
    pub(crate) fn replayed(&mut self) -> std::result::Result<(), &'static str> {
        self.control.set_resuming(false);
        let (Some(acknowledged), Some(memory)) = (self.acknowledged, &self.memory) else {
            return Ok(());
        };
        if self.lacks_log() {
            return Err(
                "the guest is being migrated, and its dirty log was lost with the switch: \
                        migrate it again",
            );
        }
        for vring in self.vrings.iter_mut().filter(|vring| !vring.running) {
            if let Some(setup) = vring.described(features::ring_features(acknowledged), memory) {
                vring.next = setup.resumed_from_used().next;
            }
        }
        Ok(())
    }

    /// The descriptor whose next kick shows whether the guest's memory is shared with this process,
    /// or that the driver of a ring waits that lacks its log.
    pub(crate) fn first_kick(&self) -> Option<BorrowedFd<'_>> {
        let vring = &self.vrings[CHECKED_RING];
        let is_checked = vring.running && !self.memory_checked;
        let is_missed = self.lacks_log() && !self.log_missed;
        let kick = vring.kick.as_ref().filter(|_| is_checked || is_missed)?;
        kick.as_ref().map(AsFd::as_fd)
    }

    /// The ring of [`Self::first_kick`] was kicked. Before its first kick a driver has written
    /// the descriptors of a buffer and the ring's index. If all of those bytes are still zero here,
    /// the VMM has mapped the memory privately, and the guest writes to its own copy.
    ///
    /// # Errors
    /// The memory is not shared, or the frontend does not share the log that it must.
    pub(crate) fn kicked(&mut self) -> std::result::Result<(), String> {
        if self.lacks_log() {
            self.log_missed = true;
            return Err(
                "acknowledged VHOST_F_LOG_ALL but has shared no dirty log (SET_LOG_BASE), \
                        so no packets pass: a VMM must acknowledge it only while it migrates its \
                        guest"
                    .into(),
            );
        }
        self.memory_checked = true;
        let (Some(acknowledged), Some(memory)) = (self.acknowledged, &self.memory) else {
            return Ok(());
        };
        let features = features::ring_features(acknowledged);
        let setup = self.vrings[CHECKED_RING].described(features, memory);
        match setup.is_some_and(|setup| setup.is_blank()) {
            true => Err(format!(
                "the driver has filled its receive ring, but it reads as zeros here: the guest's \
                 memory is not shared, and no packets pass; {REMEDY}"
            )),
            false => Ok(()),
        }
    }

    /// Stops the ring if it runs; it stays enabled.
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

    /// Replaces the memory map of the rings by regions that stay and new ones. Rings outside the
    /// new map stop until a message brings their memory back; the others continue.
    pub(crate) fn replace_memory(&mut self, kept: Vec<Region>, new: Vec<RegionSpec>) -> Result<()> {
        let stays = kept.iter().map(|region| (region.user_addr, region.size));
        let ranges: Vec<_> = stays.chain(new.iter().map(|new| (new.user_addr, new.size))).collect();
        for index in 0..self.vrings.len() {
            if !self.vrings[index].lies_in(&ranges) {
                self.pause(index)?;
            }
        }
        if ranges.is_empty() {
            self.memory = None;
            return Ok(());
        }
        if let Err(error) = trama_virtqueue::prepare_accounts() {
            warn_of_missing_pages(&error);
        }
        self.memory_pace.wait();
        let old = self.memory.as_deref();
        let memory = GuestMemory::map_for(&self.account, old, kept, new).or_else(refuse)?;
        self.log.as_ref().map_or(Ok(()), |log| log.check(&memory)).or_else(refuse)?;
        self.rings.set_memory(memory.clone()).or_else(refuse)?;
        self.memory = Some(memory);
        for index in 0..self.vrings.len() {
            if self.vrings[index].lies_in(&ranges) {
                self.try_start(index)?;
            }
        }
        Ok(())
    }

    pub(crate) fn regions(&self) -> Vec<Region> {
        self.memory.as_ref().map_or_else(Vec::new, |memory| memory.regions().to_vec())
    }

    /// Returns what is wrong with the rings, if anything.
    pub(crate) fn broken(&mut self) -> Option<String> {
        let fault = self.rings.broken()?;
        Some(if self.account.is_spent() {
            let populated = self.account.populated() >> 20;
            format!(
                "made trama populate {populated} MiB of its memory; use prealloc=on or raise \
                 memory-populate"
            )
        } else {
            fault.to_string()
        })
    }
}

/// Logs once that pages which a frontend lacks are charged to this process.
fn warn_of_missing_pages(error: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "memory-populate is not in force: this system does not report pages that a guest has \
             not populated (userfaultfd: {error}); give guests prealloc=on"
        );
    });
}
