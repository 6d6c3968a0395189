//! Sockets that have something, each in its turn.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

/// Numbers of flows in the order in which they asked, each at most once.
#[derive(Default)]
pub(crate) struct Turns {
    queue: VecDeque<u32>,
    waiting: HashSet<u32, RandomState>,
}

impl Turns {
    /// A flow wants a turn.
    pub fn ask(&mut self, number: u32) {
        if self.waiting.insert(number) {
            self.queue.push_back(number);
        }
    }

    /// Whose turn it is.
    pub fn next(&mut self) -> Option<u32> {
        let number = self.queue.pop_front()?;
        self.waiting.remove(&number);
        Some(number)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
