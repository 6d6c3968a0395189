//! What control is told of dropped frames besides their number: the beginning of one a second, for
//! each reason and port.
//!
//! The worker never waits: what finds no room in the channel is not told.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use trama_frame::vnet::PRIVATE_HEAD;

use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::time::Time;
use crate::types::PortId;

/// Time between two frames that are told of one reason at one port.
const PAUSE: Duration = Duration::from_secs(1);
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
pub struct DropTeller(Sender<Told>);

/// Control's end.
pub struct DropNotices(Receiver<Told>);

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
    (DropTeller(sender), DropNotices(receiver))
}

impl DropNotices {
    /// Waits for the next notice; `None` once every worker has ended.
    pub fn wait(&self) -> Option<DropNotice> {
        self.0.recv().ok().map(DropNotice::from)
    }

    /// Returns the next notice, if one has come.
    pub fn try_next(&self) -> Option<DropNotice> {
        self.0.try_recv().ok().map(DropNotice::from)
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
    /// What was told last at a place, and when.
    told: Box<[Cell<(usize, Time)>]>,
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
        now: Time,
        frame: impl FnOnce() -> (&'f [u8], usize),
    ) {
        if self.teller.is_none() {
            return;
        }
        let address = address(counters);
        // Counters are aligned to more than there are reasons.
        let key = address | reason as usize;
        let place = address / align_of::<PortCounters>() * DropReason::COUNT + reason as usize;
        let place = &self.told[place % REMEMBERED];
        let mut pending = self.pending.borrow_mut();
        let (last, at) = place.get();
        let is_early = last == key && now.saturating_sub(at) < PAUSE;
        if is_early || pending.len() == PENDING {
            return;
        }
        place.set((key, now));
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
                let _ = teller.0.try_send(Told { port, ..told });
            }
        }
    }
}

/// Returns what tells counters apart.
pub(crate) fn address(counters: &PortCounters) -> usize {
    std::ptr::from_ref(counters).addr()
}

const _: () = assert!(align_of::<PortCounters>() > DropReason::COUNT);
