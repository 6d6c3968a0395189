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
pub struct Harm {
    /// Dropped.
    pub lost: u64,
    /// Delayed beyond frames that are sent up to [`LATE`] later.
    pub late: u64,
    /// Duplicated.
    pub twice: u64,
    /// TCP segments with one bit flipped. Their checksum detects that; ARP has none.
    pub spoilt: u64,
    /// Delay of every frame.
    pub delay: Duration,
}

/// Upper bound of the extra delay of a late frame.
pub const LATE: Duration = Duration::from_millis(20);
/// The largest frame at MTU 1500.
const LARGEST: usize = 1514;

/// Counters of a link.
#[derive(Default, Debug)]
pub struct Tally {
    /// Frames received.
    pub taken: AtomicU64,
    /// See [`Harm`].
    pub lost: AtomicU64,
    /// See [`Harm`].
    pub late: AtomicU64,
    /// See [`Harm`].
    pub twice: AtomicU64,
    /// See [`Harm`].
    pub spoilt: AtomicU64,
    /// Frames over the MTU, which are dropped.
    pub oversized: AtomicU64,
}

/// Joins two TAPs by an impaired link, until the namespaces of both are gone.
pub fn join(ends: [RawTap; 2], harm: Harm, seed: u64) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let [near, far] = ends;
    let ways = [(near.frames, far.tap.clone()), (far.frames, near.tap)];
    for (way, (frames, to)) in ways.into_iter().enumerate() {
        let link = Link { harm, rng: Rng::new(seed ^ way as u64), tally: tally.clone() };
        std::thread::spawn(move || link.carry(&frames, &to));
    }
    tally
}

/// One direction of a link.
struct Link {
    harm: Harm,
    rng: Rng,
    tally: Arc<Tally>,
}

impl Link {
    fn carry(mut self, frames: &Receiver<Vec<u8>>, to: &Iface) {
        // Ordered by arrival; the number keeps the order of simultaneous arrivals.
        let mut flying: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
        for number in 0.. {
            let next = flying.keys().next().map(|(due, _)| *due);
            let wait = next.map_or(LATE, |due| due.saturating_duration_since(Instant::now()));
            match frames.recv_timeout(wait) {
                Ok(frame) => self.send(frame, number, &mut flying),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Some(first) = flying.first_entry()
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
        flying: &mut BTreeMap<(Instant, u64), Vec<u8>>,
    ) {
        let Link { harm, rng, tally } = self;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&tally.taken);
        // A fixed number of random draws for each frame makes the fates independent of each other.
        let mut happens = |part: u64| rng.below(1000) < part as usize;
        let [lost, late, twice, spoilt] =
            [harm.lost, harm.late, harm.twice, harm.spoilt].map(&mut happens);
        let [held, place] = [rng.below(LATE.as_micros() as usize), rng.bits() as usize];
        if frame.len() > LARGEST {
            count(&tally.oversized);
            return;
        }
        if lost {
            count(&tally.lost);
            return;
        }
        if spoilt && carries_tcp(&frame) {
            count(&tally.spoilt);
            let bit = place % ((frame.len() - HEADER) * 8);
            frame[HEADER + bit / 8] ^= 1 << (bit % 8);
        }
        let mut due = Instant::now() + harm.delay;
        if twice {
            count(&tally.twice);
            flying.insert((due, 2 * number), frame.clone());
        }
        if late {
            count(&tally.late);
            due += Duration::from_micros(held as u64);
        }
        flying.insert((due, 2 * number + 1), frame);
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
