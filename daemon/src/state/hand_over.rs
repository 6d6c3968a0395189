//! How the daemon's process hands over to another one.

use super::Daemon;
use crate::Fault;
use crate::upgrade::HandOver;

impl Daemon {
    /// Sets how this process hands over to another one.
    pub fn set_hand_over(&self, hand_over: HandOver) {
        // It is set once, at the start.
        let _ = self.hand_over.set(hand_over);
    }

    /// Has another `tramad` take over, from the program's file as it is on disk: for good, or for
    /// this many seconds until the next one is started. Does not return if it does. Otherwise
    /// returns why not: this one goes on.
    pub fn upgrade(&self, bridges: Option<u64>) -> Fault {
        match self.hand_over.get() {
            Some(hand_over) => hand_over.upgrade(bridges),
            None => Fault::new("there is no keeper; the log says why", "restart tramad"),
        }
    }

    /// Returns whether another `tramad` is about to take over.
    pub fn is_followed(&self) -> bool {
        self.hand_over.get().is_some_and(HandOver::is_followed)
    }
}
