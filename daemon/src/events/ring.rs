//! The last events, by number.

use std::collections::VecDeque;
use std::sync::Arc;

use trama_api::event::{Event, Facts, Kind, Moment};

/// The last events. A new one takes the place of the oldest when all places are taken; who reads
/// them keeps none alive in here.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    /// The number of the first event that there was.
    first: u64,
    /// The number of the next event.
    next: u64,
}

/// What a reader finds.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// How many events before them are gone.
    pub(super) lost: u64,
    /// The events.
    pub(super) events: Vec<Arc<Event>>,
}

impl Ring {
    /// An empty ring, whose first event will have this number.
    pub(super) fn new(capacity: usize, first: u64) -> Ring {
        Ring { events: VecDeque::new(), capacity, first, next: first }
    }

    /// Changes how many events are kept; the oldest go.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        let excess = self.events.len().saturating_sub(capacity);
        self.events.drain(..excess);
        self.events.shrink_to(capacity);
    }

    /// Adds an event, with the next number.
    pub(super) fn push(&mut self, time: Moment, kind: Kind, facts: Facts) {
        if self.capacity == 0 {
            return;
        }
        if self.events.len() >= self.capacity {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(Event { id: self.next, time, kind, facts }));
        self.next += 1;
    }

    /// Returns the number of the oldest event that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    /// Returns the number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether an event of this number was in this ring.
    pub(super) fn had(&self, number: u64) -> bool {
        (self.first..self.next).contains(&number)
    }

    /// Returns the events from the number `from` on, at most `most`.
    pub(super) fn read(&self, from: u64, most: usize) -> Found {
        let lost = self.oldest().saturating_sub(from);
        let skipped = from.saturating_sub(self.oldest()) as usize;
        let events = self.events.iter().skip(skipped).take(most).cloned().collect();
        Found { lost, events }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What is done to a ring.
    #[derive(Clone, Debug)]
    enum Act {
        Push,
        Resize(usize),
        Read { back: u64, most: usize },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            5 => Just(Act::Push),
            1 => (0usize..9).prop_map(Act::Resize),
            3 => (0u64..12, 0usize..5).prop_map(|(back, most)| Act::Read { back, most }),
        ]
    }

    proptest! {
        /// The slow model keeps everything, and knows from which number on it counts.
        #[test]
        fn it_finds_what_a_list_of_all_events_has(
            capacity in 0usize..9, acts in vec(act(), 0..100),
        ) {
            const FIRST: u64 = 1000;
            let mut ring = Ring::new(capacity, FIRST);
            let (mut all, mut kept_from, mut capacity) = (Vec::new(), 0, capacity);
            for act in acts {
                match act {
                    Act::Push => {
                        ring.push(Moment(all.len() as u64), Kind::Link, Facts::default());
                        if capacity > 0 {
                            all.push(all.len() as u64);
                        }
                    }
                    Act::Resize(to) => {
                        capacity = to;
                        ring.set_capacity(to);
                    }
                    Act::Read { back, most } => {
                        let from = all.len().saturating_sub(back as usize);
                        let found = ring.read(FIRST + from as u64, most);
                        let start = from.max(kept_from);
                        prop_assert_eq!(found.lost, (start - from) as u64);
                        let wanted: Vec<u64> = all[start..].iter().copied().take(most).collect();
                        let times: Vec<u64> = found.events.iter().map(|it| it.time.0).collect();
                        prop_assert_eq!(&times, &wanted);
                        let ids: Vec<u64> = found.events.iter().map(|it| it.id - FIRST).collect();
                        prop_assert_eq!(ids, wanted);
                    }
                }
                kept_from = kept_from.max(all.len().saturating_sub(capacity));
                prop_assert_eq!(ring.oldest(), FIRST + kept_from as u64);
                prop_assert_eq!(ring.next(), FIRST + all.len() as u64);
            }
        }
    }

    #[test]
    fn a_number_of_another_ring_is_known_as_such() {
        let mut ring = Ring::new(2, 1000);
        (0..5).for_each(|_| ring.push(Moment(0), Kind::Link, Facts::default()));
        assert!(!ring.had(999) && ring.had(1000) && ring.had(1004) && !ring.had(1005));
    }
}
