//! An impaired link: threads of the test drop, delay, duplicate, reorder and corrupt frames between
//! two TAPs.
//!
//! The seed alone decides the fate of the nth frame in each direction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use etherparse::{LaxNetSlice, LaxSlicedPacket, ip_number};
use tun_tap::Iface;

use crate::raw_tap::RawTap;
use crate::sim::rng::Rng;

/// Impairments: frames affected in a thousand, and the link's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairments {
    /// Dropped.
    pub lost: u64,
    /// Delayed beyond frames that are sent up to [`MAX_REORDER_DELAY`] later.
    pub reordered: u64,
    /// Duplicated.
    pub duplicated: u64,
    /// TCP segments with one bit flipped. Their checksum detects that; ARP has none.
    pub corrupted: u64,
    /// Delay of every frame.
    pub delay: Duration,
}

/// Upper bound of the extra delay of a late frame.
pub const MAX_REORDER_DELAY: Duration = Duration::from_millis(20);
/// The largest frame at MTU 1500.
const MAX_FRAME: usize = 1514;

/// Counters of a link.
#[derive(Default, Debug)]
pub struct LinkCounters {
    /// Frames received.
    pub received: AtomicU64,
    /// See [`Impairments`].
    pub lost: AtomicU64,
    /// See [`Impairments`].
    pub reordered: AtomicU64,
    /// See [`Impairments`].
    pub duplicated: AtomicU64,
    /// See [`Impairments`].
    pub corrupted: AtomicU64,
    /// Frames over the MTU, which are dropped.
    pub oversized: AtomicU64,
}

/// Joins two TAPs by an impaired link, until the namespaces of both are gone.
pub fn join(ends: [RawTap; 2], impairments: Impairments, seed: u64) -> Arc<LinkCounters> {
    let counters = Arc::new(LinkCounters::default());
    let [near, far] = ends;
    let directions = [(near.frames, far.tap.clone()), (far.frames, near.tap)];
    for (direction, (frames, to)) in directions.into_iter().enumerate() {
        let link = Link {
            impairments,
            rng: Rng::new(seed ^ direction as u64),
            counters: counters.clone(),
        };
        std::thread::spawn(move || link.carry(&frames, &to));
    }
    counters
}

/// One direction of a link.
struct Link {
    impairments: Impairments,
    rng: Rng,
    counters: Arc<LinkCounters>,
}

impl Link {
    fn carry(mut self, frames: &Receiver<Vec<u8>>, to: &Iface) {
        // Ordered by arrival; the number keeps the order of simultaneous arrivals.
        let mut in_flight: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
        for number in 0.. {
            let next = in_flight.keys().next().map(|(due, _)| *due);
            let wait =
                next.map_or(MAX_REORDER_DELAY, |due| due.saturating_duration_since(Instant::now()));
            match frames.recv_timeout(wait) {
                Ok(frame) => self.send(frame, number, &mut in_flight),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Some(first) = in_flight.first_entry()
                && first.key().0 <= Instant::now()
            {
                // An interface that is down loses frames, as a cable does.
                let _ = to.send(&first.remove());
            }
        }
    }

    fn send(
        &mut self,
        mut frame: Vec<u8>,
        number: u64,
        in_flight: &mut BTreeMap<(Instant, u64), Vec<u8>>,
    ) {
        let Link { impairments, rng, counters } = self;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&counters.received);
        // A fixed number of random draws for each frame makes the fates independent of each other.
        let mut happens = |part: u64| rng.below(1000) < part as usize;
        let [lost, reordered, duplicated, corrupted] = [
            impairments.lost,
            impairments.reordered,
            impairments.duplicated,
            impairments.corrupted,
        ]
        .map(&mut happens);
        let [held, place] =
            [rng.below(MAX_REORDER_DELAY.as_micros() as usize), rng.bits() as usize];
        if frame.len() > MAX_FRAME {
            count(&counters.oversized);
            return;
        }
        if lost {
            count(&counters.lost);
            return;
        }
        if corrupted && carries_tcp(&frame) {
            count(&counters.corrupted);
            let bit = place % ((frame.len() - HEADER) * 8);
            frame[HEADER + bit / 8] ^= 1 << (bit % 8);
        }
        let mut due = Instant::now() + impairments.delay;
        if duplicated {
            count(&counters.duplicated);
            in_flight.insert((due, 2 * number), frame.clone());
        }
        if reordered {
            count(&counters.reordered);
            due += Duration::from_micros(held as u64);
        }
        in_flight.insert((due, 2 * number + 1), frame);
    }
}

/// Size of the Ethernet header, which is not corrupted: on a real link the FCS protects it.
const HEADER: usize = 14;

fn carries_tcp(frame: &[u8]) -> bool {
    let net = LaxSlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.net);
    match net {
        Some(LaxNetSlice::Ipv4(ip)) => ip.payload().ip_number == ip_number::TCP,
        Some(LaxNetSlice::Ipv6(ip)) => ip.payload().ip_number == ip_number::TCP,
        _ => false,
    }
}
