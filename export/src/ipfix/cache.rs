//! The flows that go on.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::flow::{Counted, EndReason, Flow, Key};
use crate::Sample;

/// What a cache holds, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most flows; before one more is added, the oldest one ends.
    pub flows: usize,
    /// Time after which a flow that goes on is exported.
    pub active: Duration,
    /// Time without a sample after which a flow ends.
    pub idle: Duration,
}

/// The flows of sampled frames.
pub struct Cache {
    limits: Limits,
    /// Frames that one sample stands for.
    sampling: u32,
    flows: HashMap<Key, Flow>,
    /// Keys in the order in which their flows began, with that time; some have ended.
    order: VecDeque<(Key, u64)>,
}

impl Cache {
    /// Returns an empty cache; of the frames of each port, one in `sampling` is sampled.
    pub fn new(limits: Limits, sampling: u32) -> Cache {
        Cache { limits, sampling, flows: HashMap::new(), order: VecDeque::new() }
    }

    /// Adds a frame that was sampled at a time, in milliseconds since the Unix epoch. Returns the
    /// flow that had to make room for its flow.
    pub fn frame(&mut self, sample: &Sample<'_>, time: u64) -> Option<(Flow, EndReason)> {
        let Counted { key, packets, frame_octets, ip_octets, tcp_flags } =
            Counted::read(sample, self.sampling)?;
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.end = flow.end.max(time);
            flow.packets += packets;
            flow.frame_octets += frame_octets;
            flow.ip_octets += ip_octets;
            flow.tcp_flags |= tcp_flags;
            return None;
        }
        let is_full = self.flows.len() >= self.limits.flows.max(1);
        let oldest = if is_full { self.take_oldest() } else { None };
        let (start, end) = (time, time);
        let flow = Flow { key, start, end, packets, frame_octets, ip_octets, tcp_flags };
        self.flows.insert(key, flow);
        self.order.push_back((key, start));
        oldest.map(|flow| (flow, EndReason::LackOfResources))
    }

    /// Takes the flows whose time is over at `now`, in the order in which they began.
    pub fn expire(&mut self, now: u64) -> Vec<(Flow, EndReason)> {
        let [active, idle] =
            [self.limits.active, self.limits.idle].map(|limit| limit.as_millis() as u64);
        let reason = |flow: &Flow| {
            if now.saturating_sub(flow.end) >= idle {
                Some(EndReason::Idle)
            } else {
                (now.saturating_sub(flow.start) >= active).then_some(EndReason::Active)
            }
        };
        self.take(reason)
    }

    /// Takes all flows.
    pub fn end(&mut self) -> Vec<(Flow, EndReason)> {
        self.take(|_| Some(EndReason::Forced))
    }

    /// Returns the number of flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn take(&mut self, reason: impl Fn(&Flow) -> Option<EndReason>) -> Vec<(Flow, EndReason)> {
        let mut taken = Vec::new();
        self.order.retain(|(key, start)| {
            let Some(flow) = self.flows.get(key).filter(|flow| flow.start == *start) else {
                return false;
            };
            let Some(reason) = reason(flow) else { return true };
            taken.push((*flow, reason));
            self.flows.remove(key);
            false
        });
        taken
    }

    fn take_oldest(&mut self) -> Option<Flow> {
        let (key, _) = self.order.pop_front()?;
        self.flows.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::Interface;
    use crate::sample::tests::sample;

    const LIMITS: Limits =
        Limits { flows: 3, active: Duration::from_secs(60), idle: Duration::from_secs(15) };

    /// A TCP segment of 14 + 40 + 6 bytes from an L4 port.
    fn segment(port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(port, 80, 1, 1000)
            .syn();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[7; 6]).unwrap();
        bytes
    }

    fn add(cache: &mut Cache, port: u16, time: u64) -> Option<(Flow, EndReason)> {
        let bytes = segment(port);
        cache.frame(&sample(&bytes, bytes.len()), time)
    }

    #[test]
    fn frames_of_a_flow_add_up_and_stand_for_their_part() {
        let mut cache = Cache::new(LIMITS, 10);
        assert!(add(&mut cache, 1000, 5).is_none() && add(&mut cache, 1000, 9).is_none());
        let bytes = segment(1000);
        let large = Sample { parts: 3, part_header: 54, ..sample(&bytes, 54 + 3000) };
        cache.frame(&large, 12);
        let dropped = Sample { output: Interface::Dropped, ..sample(&bytes, 60) };
        cache.frame(&dropped, 13);
        let ended = cache.end();
        let [(flow, EndReason::Forced)] = ended[..] else { panic!("{ended:?}") };
        assert_eq!((flow.start, flow.end, flow.tcp_flags), (5, 12, 2));
        assert_eq!(flow.packets, 10 * (1 + 1 + 3));
        assert_eq!(flow.frame_octets, 10 * (60 + 60 + 3 * 1054));
        assert_eq!(flow.ip_octets, 10 * (46 + 46 + 3 * 1040));
        assert_eq!((flow.key.source_port, flow.key.protocol), (1000, 6));
        assert!(cache.is_empty());
    }

    #[test]
    fn flows_end_when_they_are_idle_and_are_told_while_they_go_on() {
        let mut cache = Cache::new(LIMITS, 1);
        add(&mut cache, 1, 0);
        add(&mut cache, 2, 1000);
        for time in (0..60_000).step_by(1000) {
            add(&mut cache, 1, time);
        }
        let reasons = |ended: &[(Flow, EndReason)]| -> Vec<_> {
            ended.iter().map(|(flow, reason)| (flow.key.source_port, *reason)).collect()
        };
        assert_eq!(reasons(&cache.expire(15_999)), []);
        assert_eq!(reasons(&cache.expire(16_000)), [(2, EndReason::Idle)]);
        assert_eq!(reasons(&cache.expire(60_000)), [(1, EndReason::Active)]);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_oldest_flow_makes_room() {
        let mut cache = Cache::new(LIMITS, 1);
        for port in 1..=3 {
            assert!(add(&mut cache, port, port.into()).is_none());
        }
        // The second one ends and begins again: now the third is older.
        cache.expire(15_002);
        assert_eq!(cache.len(), 1);
        add(&mut cache, 2, 15_003);
        add(&mut cache, 1, 15_004);
        let (oldest, reason) = add(&mut cache, 4, 15_005).unwrap();
        assert_eq!((oldest.key.source_port, reason), (3, EndReason::LackOfResources));
        assert_eq!(cache.len(), 3);
    }
}
