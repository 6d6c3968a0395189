//! The table against a slow reference model.

use proptest::prelude::*;

use super::*;

const LIFETIMES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
const LIMITS: Limits = Limits { port: 4, total: 7 };

fn table(limits: Limits) -> FlowTable<u8, u8, 2> {
    FlowTable::new(LIFETIMES, limits)
}

/// Flows as (port, key, class, last use), sorted by last use.
#[derive(Default)]
struct Model(Vec<(u64, u8, usize, Duration)>);

impl Model {
    fn count(&self, port: u64) -> usize {
        self.0.iter().filter(|flow| flow.0 == port).count()
    }

    fn eviction_candidate(&self, port: u64) -> Option<u8> {
        let from = if self.count(port) >= LIMITS.port {
            port
        } else if self.0.len() >= LIMITS.total {
            (0..4).max_by_key(|port| (self.count(*port), *port))?
        } else {
            return None;
        };
        self.0.iter().find(|flow| flow.0 == from).map(|flow| flow.1)
    }

    fn end(&self, flow: &(u64, u8, usize, Duration)) -> Duration {
        flow.3 + LIFETIMES[flow.2]
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Use { port: u64, key: u8, class: usize },
    Remove { key: u8 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u64, 0..12u8, 0..2usize).prop_map(|(port, key, class)| Step::Use {
            port,
            key,
            class
        }),
        1 => (0..12u8).prop_map(|key| Step::Remove { key }),
        2 => (0..12u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #[test]
    fn it_equals_the_reference_model(steps in prop::collection::vec(step(), 1..200)) {
        let (mut table, mut model, mut now) = (table(LIMITS), Model::default(), Duration::ZERO);
        for step in steps {
            // No two uses at the same time, whose order would not be defined.
            now += Duration::from_millis(1);
            match step {
                Step::Use { port, key, class } => match table.find(&key) {
                    Some(number) => {
                        table.touch(now, number, class);
                        let at = model.0.iter().position(|flow| flow.1 == key).unwrap();
                        let (port, ..) = model.0.remove(at);
                        model.0.push((port, key, class, now));
                    }
                    None => {
                        let ends = table.eviction_candidate(PortMark(port));
                        let ended = ends.and_then(|number| table.remove(number));
                        let wanted = model.eviction_candidate(port);
                        prop_assert_eq!(ended.map(|(key, _)| key), wanted);
                        model.0.retain(|flow| Some(flow.1) != wanted);
                        table.insert(now, PortMark(port), key, key, class);
                        model.0.push((port, key, class, now));
                    }
                },
                Step::Remove { key } => {
                    let removed = table.find(&key).and_then(|number| table.remove(number));
                    let known = model.0.iter().any(|flow| flow.1 == key);
                    prop_assert_eq!(removed.is_some(), known);
                    model.0.retain(|flow| flow.1 != key);
                }
                Step::Wait { seconds } => now += Duration::from_secs(seconds),
            }
            while let Some(number) = table.expired(now) {
                let (key, _) = table.remove(number).unwrap();
                let at = model.0.iter().position(|flow| flow.1 == key).unwrap();
                let flow = model.0.remove(at);
                prop_assert!(model.end(&flow) <= now);
            }
            prop_assert_eq!(table.deadline(), model.0.iter().map(|flow| model.end(flow)).min());
            prop_assert_eq!(table.len(), model.0.len());
            prop_assert!(table.len() <= LIMITS.total);
            prop_assert!((0..4).all(|port| model.count(port) <= LIMITS.port));
        }
    }
}

#[test]
fn a_port_that_takes_all_it_can_leaves_the_others_theirs() {
    let mut table = table(Limits { port: 100, total: 100 });
    let mut add = |key, port| {
        if let Some(number) = table.eviction_candidate(PortMark(port)) {
            table.remove(number);
        }
        table.insert(Duration::from_millis(key), PortMark(port), key as u8, 0, 0);
        table.find(&0).is_some()
    };
    add(0, 1);
    for key in 1..=255 {
        assert!(add(key, 2), "the quiet port's flow had to end for the busy one");
    }
}
