//! Faults on demand, for tests of programs: `TRAMA_FAULT="vm3 transmit segv"` crashes the thread
//! that has taken a frame from port `vm3`.
//!
//! They exist in builds with debug assertions only; in others these functions do nothing and leave
//! no instruction.

use crate::types::PortId;

/// What a thread must do for the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Switch a burst of its frames.
    Transmit,
    /// Deliver to it.
    Receive,
    /// Carry out a request of its frontend.
    Request,
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::Place;
    use crate::types::PortId;

    /// The id of the port at which the fault occurs; 0 for none.
    static PORT: AtomicU64 = AtomicU64::new(0);

    /// Reads the variable: port, place, and what happens there.
    fn wanted() -> Option<(String, String, String)> {
        let text = std::env::var("TRAMA_FAULT").ok()?;
        let mut words = text.split(' ').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    }

    pub(super) fn arm(id: PortId, name: &str) {
        if wanted().is_some_and(|(port, ..)| port == name) {
            PORT.store(id.0, Relaxed);
        }
    }

    #[inline]
    pub(super) fn strike(place: Place, port: PortId) {
        if PORT.load(Relaxed) == port.0 {
            occur(place);
        }
    }

    #[cold]
    fn occur(place: Place) {
        let Some((_, wanted, what)) = wanted() else { return };
        if format!("{place:?}").to_lowercase() != wanted {
            return;
        }
        match what.as_str() {
            "segv" => trama_virtqueue::crash_for_a_test(),
            "panic" => panic!("a fault on demand"),
            _ => loop {
                std::thread::park();
            },
        }
    }
}

/// The port is there: a fault may be wanted at it.
pub(crate) fn arm(_id: PortId, _name: &str) {
    #[cfg(debug_assertions)]
    armed::arm(_id, _name);
}

/// The fault occurs, if it is wanted here.
#[inline(always)]
pub(crate) fn strike(_place: Place, _port: PortId) {
    #[cfg(debug_assertions)]
    armed::strike(_place, _port);
}
