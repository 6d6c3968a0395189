use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const FIRST: PortMark = PortMark(1);
const SECOND: PortMark = PortMark(2);

fn taken(flows: &mut NewFlows, now: Duration, port: PortMark, asked: usize) -> usize {
    (0..asked).filter(|_| flows.try_take(now, port)).count()
}

/// Uses up a port's burst allowance, which takes another port.
fn without_bursts(now: Duration, ports: &[PortMark]) -> NewFlows {
    let mut flows = NewFlows::default();
    for _ in 0..2 {
        for port in ports {
            taken(&mut flows, now, *port, 1000);
        }
    }
    flows.next_pass();
    flows
}

#[test]
fn a_port_that_is_alone_is_not_limited() {
    let mut flows = NewFlows::default();
    assert_eq!(taken(&mut flows, Duration::ZERO, FIRST, 10_000), 10_000);
}

#[test]
fn ports_that_ask_have_equal_parts_of_a_pass() {
    let now = Duration::ZERO;
    let mut flows = without_bursts(now, &[FIRST, SECOND]);
    let part = FLOWS_PER_PASS as usize / 2;
    for _ in 0..3 {
        // The one that comes first has no advantage.
        assert_eq!(taken(&mut flows, now, FIRST, 64), part);
        assert_eq!(taken(&mut flows, now, SECOND, 64), part);
        flows.next_pass();
    }
    // A connection counts, and is not refused.
    (0..part).for_each(|_| flows.count(now, FIRST));
    assert_eq!(taken(&mut flows, now, FIRST, 64), 0);
    flows.count(now, FIRST);
}

#[test]
fn each_port_may_open_a_flow_however_many_ask() {
    let now = Duration::ZERO;
    let ports: Vec<PortMark> = (0..1000).map(PortMark).collect();
    let mut flows = without_bursts(now, &ports);
    for port in ports {
        assert_eq!(taken(&mut flows, now, port, 5), 1);
    }
}

#[test]
fn a_burst_of_a_quiet_port_is_served() {
    let mut flows = NewFlows::default();
    let mut now = Duration::ZERO;
    assert_eq!(taken(&mut flows, now, FIRST, 1), 1);
    assert_eq!(taken(&mut flows, now, SECOND, 100), 100);
    flows.next_pass();
    // The allowance is used up, and comes back.
    taken(&mut flows, now, SECOND, 1000);
    flows.next_pass();
    let part = FLOWS_PER_PASS as usize / 2;
    assert_eq!(taken(&mut flows, now, SECOND, 100), part);
    flows.next_pass();
    now += 10 * BURST_REFILL;
    assert_eq!(taken(&mut flows, now, SECOND, 100), part + 10);
}

#[test]
fn a_port_that_has_stopped_asking_has_no_part() {
    let mut flows = without_bursts(Duration::ZERO, &[FIRST, SECOND]);
    let mut now = INTERVAL;
    assert!(taken(&mut flows, now, FIRST, 1000) < 1000, "the second has asked just before");
    now += INTERVAL;
    assert_eq!(taken(&mut flows, now, FIRST, 1000), 1000);
}

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Take(u64),
    Count(u64),
    /// After milliseconds.
    NextPass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..5).prop_map(Step::Take),
        2 => (0u64..5).prop_map(Step::Count),
        2 => Just(Step::NextPass(0)),
        1 => (0u64..250).prop_map(Step::NextPass),
    ]
}

proptest! {
    /// Who shares a pass is as a plain list of all asks has it.
    #[test]
    fn shares_agree_with_a_list_of_all_asks(steps in prop::collection::vec(step(), 1..400)) {
        let bursts = RateLimiter::new(0, BURST_REFILL);
        let mut flows = NewFlows { bursts, ..NewFlows::default() };
        let mut now = Duration::ZERO;
        let mut asks: Vec<(u64, u64)> = Vec::new();
        let mut opened: Vec<u64> = Vec::new();
        for step in steps {
            let (port, is_taken) = match step {
                Step::NextPass(millis) => {
                    flows.next_pass();
                    opened.clear();
                    now += Duration::from_millis(millis);
                    continue;
                }
                Step::Take(port) => (port, Some(flows.try_take(now, PortMark(port)))),
                Step::Count(port) => {
                    flows.count(now, PortMark(port));
                    (port, None)
                }
            };
            let interval = now.as_millis() as u64 / 100;
            asks.push((interval, port));
            let lately = asks.iter().filter(|(at, _)| at + 1 >= interval);
            let ports = lately.map(|(_, port)| port).collect::<HashSet<_>>().len();
            let own = opened.iter().filter(|other| **other == port).count();
            let part = (FLOWS_PER_PASS as usize / ports).max(1);
            let expected = ports == 1 || own < part;
            prop_assert!(is_taken.is_none_or(|is_taken| is_taken == expected), "{own} of {part}");
            if is_taken != Some(false) {
                opened.push(port);
            }
        }
    }
}
