//! The order of the dirty log's marks, over all interleavings of a device and a frontend whose
//! processor keeps stores in a buffer (x86's total store order).
//!
//! The device runs bursts. Burst `k` writes `k` to a page of data, publishes it by writing `k` to
//! the used index, and marks both pages in the order that `virtqueue/src/dirty_log.rs` gives. The
//! frontend harvests at any moments, and once more after the device has stopped. Then its copy must
//! equal the memory. In further runs the device's process is killed at any moment and another one
//! starts: each buffer that is published must then be in the copy.
//!
//! The planted breaks show that the model can fail: each is an order that loses a page.

use std::collections::HashSet;

/// Bursts of the device; the second finds the marks of the first.
const BURSTS: u8 = 2;
/// Harvests while the device runs.
const HARVESTS: u8 = 2;

/// Places in memory: two pages and their bits.
const DATA: usize = 0;
const INDEX: usize = 1;
const DATA_BIT: usize = 2;
const INDEX_BIT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Stores the burst's number.
    Store(usize),
    /// A sequentially consistent fence.
    Fence,
    /// Loads a bit; sets it by an atomic read-modify-write if it is clear.
    MarkIfClear(usize),
    /// Sets a bit by an atomic read-modify-write.
    Mark(usize),
}

use Step::{Fence, Mark, MarkIfClear, Store};

/// The order of the product.
const BURST: [Step; 5] = [Store(DATA), Fence, MarkIfClear(DATA_BIT), Store(INDEX), Mark(INDEX_BIT)];

/// What the second process does before its first burst.
const RESTART: [Step; 1] = [Mark(INDEX_BIT)];

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct State {
    memory: [u8; 4],
    /// The device's stores that are not visible yet, the oldest first.
    buffer: Vec<(usize, u8)>,
    burst: u8,
    step: usize,
    /// Whether the bit just loaded was clear, so that the step's second half is due.
    must_set: bool,
    /// The frontend: pages copied, harvests begun, and the accesses of this one that are done.
    copy: [u8; 2],
    harvests: u8,
    at: u8,
    found: bool,
}

impl State {
    fn read(&self, place: usize) -> u8 {
        let buffered = self.buffer.iter().rev().find(|(at, _)| *at == place);
        buffered.map_or(self.memory[place], |(_, value)| *value)
    }

    fn drain(&mut self) {
        for (place, value) in std::mem::take(&mut self.buffer) {
            self.memory[place] = value;
        }
    }

    /// Makes the device's next access.
    fn device(&mut self, burst: &[Step]) {
        match burst[self.step] {
            Store(place) => self.buffer.push((place, self.burst + 1)),
            Fence => self.drain(),
            MarkIfClear(bit) if !self.must_set => {
                self.must_set = self.read(bit) == 0;
                if self.must_set {
                    return;
                }
            }
            MarkIfClear(bit) | Mark(bit) => {
                self.drain();
                self.memory[bit] = 1;
                self.must_set = false;
            }
        }
        self.step += 1;
        if self.step == burst.len() {
            (self.step, self.burst) = (0, self.burst + 1);
        }
    }

    /// Makes the frontend's next access: it takes the bit of a page, then copies the page.
    fn frontend(&mut self) {
        let page = usize::from(self.at / 2);
        if self.at.is_multiple_of(2) {
            self.found = std::mem::take(&mut self.memory[DATA_BIT + page]) == 1;
        } else if self.found {
            self.copy[page] = self.memory[page];
        }
        self.at += 1;
        if self.at == 4 {
            (self.at, self.harvests) = (0, self.harvests + 1);
        }
    }

    fn harvest(&mut self) {
        let harvests = self.harvests;
        while self.harvests <= harvests + 1 {
            self.frontend();
        }
    }

    fn is_whole(&self) -> bool {
        self.copy == self.memory[..2]
    }
}

/// Returns a state in which a page is lost, if the device can reach one. With `restart` its process
/// may be killed, and the steps are those of the next one's start.
fn lost(burst: &[Step], restart: Option<&[Step]>) -> Option<State> {
    let mut seen = HashSet::new();
    let mut open = vec![State::default()];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        let mut go = |step: &dyn Fn(&mut State)| {
            let mut next = state.clone();
            step(&mut next);
            open.push(next);
        };
        if state.harvests < HARVESTS {
            go(&State::frontend);
        }
        if !state.buffer.is_empty() {
            go(&|state| {
                let (place, value) = state.buffer.remove(0);
                state.memory[place] = value;
            });
        }
        if state.burst < BURSTS {
            go(&|state| state.device(burst));
            if let Some(steps) = restart
                && let Some(end) = lost_by_kill(&state, steps)
            {
                return Some(end);
            }
        } else {
            let mut end = state;
            end.drain();
            end.harvest();
            if !end.is_whole() {
                return Some(end);
            }
        }
    }
    assert!(seen.len() > 100, "{} states", seen.len());
    None
}

/// Kills the process; returns the end if the copy then lacks something that is published.
fn lost_by_kill(state: &State, restart: &[Step]) -> Option<State> {
    let mut end = state.clone();
    // What a process has stored becomes visible, dead or not.
    end.drain();
    for step in restart {
        let Mark(bit) = step else { panic!("only marks before the first burst") };
        end.memory[*bit] = 1;
    }
    end.harvest();
    let has_index = end.copy[INDEX] == end.memory[INDEX];
    // A buffer that is not published has no content.
    let has_data = end.memory[INDEX] < end.memory[DATA] || end.copy[DATA] == end.memory[DATA];
    (!has_index || !has_data).then_some(end)
}

#[test]
fn no_page_is_lost() {
    assert_eq!(lost(&BURST, None), None);
    assert_eq!(lost(&BURST, Some(&RESTART)), None, "with a process that is killed");
}

#[test]
fn each_planted_break_loses_a_page() {
    let without = |step: Step| BURST.into_iter().filter(|other| *other != step).collect::<Vec<_>>();
    assert_ne!(lost(&without(Fence), None), None, "without the fence");
    assert_ne!(lost(&without(Mark(INDEX_BIT)), None), None, "without marks of the used ring");
    assert_ne!(lost(&without(MarkIfClear(DATA_BIT)), None), None, "without marks of data");
    let early = [MarkIfClear(DATA_BIT), Store(DATA), Fence, Store(INDEX), Mark(INDEX_BIT)];
    assert_ne!(lost(&early, None), None, "marks before data");
    let lazy = [Store(DATA), Fence, MarkIfClear(DATA_BIT), Store(INDEX), MarkIfClear(INDEX_BIT)];
    assert_ne!(lost(&lazy, None), None, "the used ring's mark loaded without a fence");
    let early = [Store(DATA), Fence, Mark(INDEX_BIT), MarkIfClear(DATA_BIT), Store(INDEX)];
    assert_ne!(lost(&early, None), None, "the used ring marked before the index");
}

#[test]
fn a_process_that_is_killed_needs_both_precautions() {
    let late = [Store(DATA), Store(INDEX), Fence, MarkIfClear(DATA_BIT), Mark(INDEX_BIT)];
    assert_eq!(lost(&late, None), None, "enough if no process is killed");
    assert_ne!(lost(&late, Some(&RESTART)), None, "buffers published before their marks");
    assert_ne!(lost(&BURST, Some(&[])), None, "the used ring not marked at the start");
}
