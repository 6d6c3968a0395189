//! What control is told of dropped frames besides their number: the beginning of one, for each
//! reason and port, in each window of time.
//!
//! The worker compares a window's number and never waits: what finds no room in the channel is not
//! told. Control opens the next window, and none while nothing is dropped.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use trama_frame::vnet::PRIVATE_HEAD;

use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::types::PortId;

/// Reasons at ports that are remembered as told. Others are told again.
const REMEMBERED: usize = 512;
/// Most notices of one turn.
const PENDING: usize = 16;
/// Most notices that wait for control.
const WAITING: usize = 1024;

/// A frame that was dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropNotice {
    /// The port where it was counted.
    pub port: PortId,
    /// Why it was dropped.
    pub reason: DropReason,
    /// Length of the whole frame, in bytes.
    pub len: usize,
    /// Its first bytes, at most 128, as it entered; none of a chain that is malformed.
    pub head: Vec<u8>,
}

/// Tells control of dropped frames; the workers share it.
#[derive(Clone)]
pub struct DropTeller {
    notices: Sender<Told>,
    window: Arc<AtomicU32>,
}

/// Control's end.
pub struct DropNotices {
    notices: Receiver<Told>,
    window: Arc<AtomicU32>,
}

/// Why there is no notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoNotice {
    /// None came in time.
    Late,
    /// Every worker has ended.
    Over,
}

/// A notice without a heap, as it travels.
#[derive(Clone, Copy)]
struct Told {
    port: PortId,
    reason: DropReason,
    len: usize,
    kept: usize,
    head: [u8; PRIVATE_HEAD],
}

/// Makes both ends.
pub fn drop_notices() -> (DropTeller, DropNotices) {
    let (sender, receiver) = bounded(WAITING);
    let window = Arc::new(AtomicU32::new(1));
    let teller = DropTeller { notices: sender, window: Arc::clone(&window) };
    (teller, DropNotices { notices: receiver, window })
}

impl DropNotices {
    /// Waits for the next notice, for at most `limit` if there is one.
    ///
    /// # Errors
    /// None came in time, or every worker has ended.
    pub fn wait(&self, limit: Option<Duration>) -> Result<DropNotice, NoNotice> {
        let told = match limit {
            None => self.notices.recv().map_err(|_| NoNotice::Over),
            Some(limit) => self.notices.recv_timeout(limit).map_err(|error| match error {
                RecvTimeoutError::Timeout => NoNotice::Late,
                RecvTimeoutError::Disconnected => NoNotice::Over,
            }),
        };
        told.map(DropNotice::from)
    }

    /// Returns the next notice, if one has come.
    pub fn try_next(&self) -> Option<DropNotice> {
        self.notices.try_recv().ok().map(DropNotice::from)
    }

    /// Lets what was told be told again.
    pub fn open_window(&self) {
        self.window.fetch_add(1, Ordering::Relaxed);
    }
}

impl From<Told> for DropNotice {
    fn from(told: Told) -> DropNotice {
        let Told { port, reason, len, kept, head } = told;
        DropNotice { port, reason, len, head: head[..kept].to_vec() }
    }
}

/// What an engine has to tell.
pub(crate) struct News {
    teller: Option<DropTeller>,
    /// What was told last at a place, and in which window.
    told: Box<[Cell<(usize, u32)>]>,
    /// Notices of this turn, by the address of the counters at which the frame was counted.
    pending: RefCell<Vec<(usize, Told)>>,
    has_pending: Cell<bool>,
}

impl News {
    pub(crate) fn new() -> News {
        News {
            teller: None,
            told: Box::default(),
            pending: RefCell::default(),
            has_pending: Cell::new(false),
        }
    }

    /// Tells this one from now on.
    pub(crate) fn set_teller(&mut self, teller: DropTeller) {
        self.teller = Some(teller);
        self.told = vec![Cell::default(); REMEMBERED].into();
        self.pending = RefCell::new(Vec::with_capacity(PENDING));
    }

    /// Notes that a frame was dropped and counted at these counters. `frame` returns its first
    /// bytes and its length.
    #[cold]
    #[inline(never)]
    pub(crate) fn note<'f>(
        &self,
        reason: DropReason,
        counters: &PortCounters,
        frame: impl FnOnce() -> (&'f [u8], usize),
    ) {
        let Some(teller) = &self.teller else { return };
        let window = teller.window.load(Ordering::Relaxed);
        let address = address(counters);
        // Counters are aligned to more than there are reasons.
        let key = address | reason as usize;
        let place = address / align_of::<PortCounters>() * DropReason::COUNT + reason as usize;
        let place = &self.told[place % REMEMBERED];
        let mut pending = self.pending.borrow_mut();
        if place.get() == (key, window) || pending.len() == PENDING {
            return;
        }
        place.set((key, window));
        let (whole, len) = frame();
        let kept = whole.len().min(PRIVATE_HEAD);
        let mut head = [0; PRIVATE_HEAD];
        head[..kept].copy_from_slice(&whole[..kept]);
        pending.push((address, Told { port: PortId(0), reason, len, kept, head }));
        self.has_pending.set(true);
    }

    /// Returns whether there is something to tell.
    #[inline(always)]
    pub(crate) fn has_pending(&self) -> bool {
        self.has_pending.get()
    }

    /// Tells what was noted; `port_of` finds the port whose counters have an address.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell(&self, port_of: impl Fn(usize) -> Option<PortId>) {
        self.has_pending.set(false);
        let Some(teller) = &self.teller else { return };
        for (address, told) in self.pending.borrow_mut().drain(..) {
            if let Some(port) = port_of(address) {
                // Without room, control has enough to read.
                let _ = teller.notices.try_send(Told { port, ..told });
            }
        }
    }
}

/// Returns what tells counters apart.
pub(crate) fn address(counters: &PortCounters) -> usize {
    std::ptr::from_ref(counters).addr()
}

const _: () = assert!(align_of::<PortCounters>() > DropReason::COUNT);
