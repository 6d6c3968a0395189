//! Sockets that are ready, served in turn.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

/// Numbers of flows in the order in which they became ready, each at most once.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    queue: VecDeque<u32>,
    waiting: HashSet<u32, RandomState>,
}

impl ReadyQueue {
    /// Adds a flow.
    pub(crate) fn push(&mut self, number: u32) {
        if self.waiting.insert(number) {
            self.queue.push_back(number);
        }
    }

    /// Takes the next flow.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let number = self.queue.pop_front()?;
        self.waiting.remove(&number);
        Some(number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
