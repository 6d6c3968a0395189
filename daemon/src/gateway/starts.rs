//! Limits how many gateways start at once.
//!
//! A process takes some milliseconds of a core to start. On a host with a thousand networks all at
//! once would keep the cores from the guests, so supervisors queue up: a few start, and each that
//! runs or has failed lets the next one go. Until [`Starts::open`] none goes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The queue of the gateways that want to start. Shared as `Arc<Starts>`.
#[derive(Debug)]
pub struct Starts {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    is_open: bool,
    /// How many more may start now.
    free: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    granted: Arc<AtomicBool>,
    /// The eventfd that wakes the supervisor.
    wake: Arc<OwnedFd>,
}

/// A supervisor's place in the queue. Dropping it lets the next one go.
#[derive(Debug)]
pub(super) struct Place {
    starts: Arc<Starts>,
    granted: Arc<AtomicBool>,
}

impl Starts {
    /// Returns a queue that lets `limit` gateways start at once, and none before [`Starts::open`].
    pub fn new(limit: usize) -> Arc<Starts> {
        let inner = Inner { is_open: false, free: limit, waiting: VecDeque::new() };
        Arc::new(Starts { inner: Mutex::new(inner) })
    }

    /// Lets the first ones go.
    pub fn open(&self) {
        let mut inner = self.lock();
        inner.is_open = true;
        inner.grant();
    }

    /// Queues up. `wake`, an eventfd, is written to when the place is granted.
    pub(super) fn queue(self: &Arc<Self>, wake: &Arc<OwnedFd>) -> Place {
        let granted = Arc::<AtomicBool>::default();
        let place = Place { starts: self.clone(), granted: granted.clone() };
        let mut inner = self.lock();
        inner.waiting.push_back(Waiting { granted, wake: wake.clone() });
        inner.grant();
        place
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn grant(&mut self) {
        while self.is_open
            && self.free > 0
            && let Some(next) = self.waiting.pop_front()
        {
            self.free -= 1;
            next.granted.store(true, Ordering::Release);
            // A full counter wakes the supervisor as well.
            let _ = rustix::io::write(&*next.wake, &1u64.to_ne_bytes());
        }
    }
}

impl Place {
    /// Returns whether its gateway may start.
    pub(super) fn is_granted(&self) -> bool {
        self.granted.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Places are granted under the lock, so this one is either granted or still waits.
        let mut inner = self.starts.lock();
        if self.is_granted() {
            inner.free += 1;
            inner.grant();
        } else {
            inner.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.granted, &self.granted));
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn wake() -> Arc<OwnedFd> {
        Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap())
    }

    fn was_woken(wake: &OwnedFd) -> bool {
        rustix::io::read(wake, &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_limited_number_start_at_once_and_in_order() {
        let (starts, wakes) = (Starts::new(2), [(); 5].map(|()| wake()));
        let mut places: Vec<Option<Place>> =
            wakes.iter().map(|wake| Some(starts.queue(wake))).collect();
        let granted = |places: &[Option<Place>]| -> Vec<bool> {
            places.iter().map(|place| place.as_ref().is_some_and(Place::is_granted)).collect()
        };
        assert_eq!(granted(&places), [false; 5], "none starts before the daemon is ready");
        starts.open();
        assert_eq!(granted(&places), [true, true, false, false, false]);
        places[2] = None;
        assert_eq!(
            granted(&places),
            [true, true, false, false, false],
            "it had no turn to pass on"
        );
        places[0] = None;
        assert_eq!(granted(&places), [false, true, false, true, false]);
        places[1] = None;
        assert_eq!(granted(&places), [false, false, false, true, true]);
        places.clear();
        let woken: Vec<bool> = wakes.iter().map(|wake| was_woken(wake)).collect();
        assert_eq!(woken, [true, true, false, true, true]);
        assert!(starts.queue(&wakes[2]).is_granted(), "all are free again");
    }
}
