//! The connection against itself over a link that loses, delays, duplicates and reorders.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A link that loses, delays and duplicates as a seed says.
struct Link {
    random: u64,
    harm: u64,
    /// Segments in flight, by arrival; and for which end.
    flying: BTreeMap<(Duration, u64), (usize, Sent)>,
    count: u64,
}

impl Link {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    /// Sends the packets of a segment.
    fn send(&mut self, now: Duration, to: usize, sent: &Sent) {
        let packets = sent.data.chunks(MSS.into()).map(<[u8]>::to_vec);
        let packets: Vec<Vec<u8>> =
            if sent.data.is_empty() { vec![Vec::new()] } else { packets.collect() };
        let last = packets.len() - 1;
        for (index, data) in packets.into_iter().enumerate() {
            let sequence = sent.sequence + index * usize::from(MSS);
            let control = if index == last { sent.control } else { Control::None };
            let packet = Sent { sequence, control, data, ..sent.clone() };
            let copies = match self.random() % 100 {
                dice if dice < self.harm => 0,
                dice if dice < self.harm + self.harm / 2 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let late = if self.random() % 100 < self.harm { self.random() % 20_000 } else { 0 };
                let arrival = now + Duration::from_micros(5000 + late);
                self.count += 1;
                self.flying.insert((arrival, self.count), (to, packet.clone()));
            }
        }
    }
}

/// Sends a stream each way. Returns the time it took.
fn exchange(seed: u64, harm: u64, len: usize) -> Duration {
    let stream =
        |salt: usize| (0..len).map(|at| ((at * 31 + salt) % 251) as u8).collect::<Vec<_>>();
    let streams = [stream(1), stream(2)];
    let mut link = Link { random: seed, harm, flying: BTreeMap::new(), count: 0 };
    let mut ends = [
        End::new(Connection::connect(T0, OURS, MSS)),
        End::new(Connection::connect(T0, THEIRS, MSS)),
    ];
    let mut called = false;
    let mut pushed = [0, 0];
    let mut now = T0;
    for _ in 0..2_000_000 {
        let mut waits = false;
        for side in 0..2 {
            if side == 1 && !called {
                continue;
            }
            let end = &mut ends[side];
            end.now = now;
            end.takes = link.random() as usize % 5000;
            let has_drained = end.drain();
            waits |= !has_drained;
            let room = end.tcp.room().min(len - pushed[side]);
            if room > 0 {
                let count = 1 + link.random() as usize % room.min(9000);
                end.tcp.push(streams[side][pushed[side]..pushed[side] + count].to_vec());
                pushed[side] += count;
            } else if pushed[side] == len {
                end.tcp.close();
            }
            end.tcp.autotune();
            end.tcp.expire(now);
            for sent in end.output() {
                link.send(now, 1 - side, &sent);
            }
        }
        let over = |end: &End| matches!(end.tcp.state(), State::TimeWait | State::Closed);
        // An end whose last ACKs were all lost forgets the connection after a while, and resets
        // what comes then.
        let is_forgotten = ends.iter().any(|end| end.tcp.state() == State::Closed)
            && ends.iter().all(|end| end.received.len() == len);
        if ends.iter().all(over) || is_forgotten {
            assert!(
                ends[0].received == streams[1] && ends[1].received == streams[0],
                "seed {seed}"
            );
            return now;
        }
        let timers = ends.iter().filter_map(|end| end.tcp.deadline()).min();
        let next = link.flying.keys().next().map(|(at, _)| *at);
        // A host that did not take all data takes more soon.
        let host = waits.then_some(now + Duration::from_millis(1));
        let next = next.into_iter().chain(timers).chain(host).min().unwrap();
        now = next.max(now + Duration::from_micros(100));
        while let Some(entry) = link.flying.first_entry()
            && entry.key().0 <= now
        {
            let (to, sent) = entry.remove();
            if to == 1 && !called {
                called = true;
                ends[1] = End::new(Connection::accept(now, &sent.segment(), THEIRS, MSS));
                continue;
            }
            ends[to].now = now;
            ends[to].takes = link.random() as usize % 5000;
            ends[to].handle(&sent.segment());
        }
        for end in &ends {
            let is_reset = matches!(end.tcp.state(), State::Aborted | State::Reset);
            assert!(!is_reset, "seed {seed}: gave up at {now:?}");
        }
    }
    panic!("seed {seed}: does not end; {:?} received", ends.map(|end| end.received.len()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_exact_over_a_bad_link(seed: u64, harm in 0u64..20) {
        exchange(seed, harm, 60_000);
    }

    #[test]
    fn no_segment_makes_it_panic_or_invent_data(
        script in prop::collection::vec((0u32..5000, 0u32..3000, 0u8..64, 0usize..3000, any::<u16>()), 1..60)
    ) {
        let mut end = open();
        end.tcp.push(vec![3; 2000]);
        let bytes = [9; 3000];
        for (sequence, ack, flags, len, window) in script {
            let is = |bit: u8| flags >> bit & 1 == 1;
            end.ask(Segment {
                sequence: Seq(THEIRS.0.wrapping_add(sequence)),
                ack: (!is(0)).then_some(Seq(OURS.0.wrapping_add(ack))),
                window,
                syn: flags % 16 == 3,
                fin: flags % 8 == 5,
                rst: flags % 32 == 7,
                payload: &bytes[..len],
                ..data(0, &[], 0)
            });
            end.now += Duration::from_millis(u64::from(window) % 300);
            end.tcp.expire(end.now);
        }
        prop_assert!(end.received.iter().all(|byte| *byte == 9));
        prop_assert!(end.tcp.buffered() < 300_000);
    }
}

// spec-test: rfc9293 MUST-1 REC-1
#[test]
fn a_long_stream_fills_a_clean_link() {
    // 5 ms each way: a window of a megabyte moves 100 MB a second once it has grown.
    let time = exchange(1, 0, 8 << 20);
    assert!(time < Duration::from_secs(10), "{time:?}");
}
