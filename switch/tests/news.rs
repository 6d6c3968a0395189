//! Control is told of dropped frames: one a second for each reason and port.
#![cfg(test)]

use trama_frame::{MacAddr, Offloads};
use trama_switch::news::{DropNotice, DropNotices, drop_notices};
use trama_switch::{DropReason, Engine, Time};
use trama_test_kit::{Station, access, c_tag, frame, mac, network, port, tagged};

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

struct Lab {
    engine: Engine,
    stations: Vec<Station>,
    notices: DropNotices,
    clock: u64,
}

impl Lab {
    fn new() -> Lab {
        let mut engine = Engine::new(7);
        let lab = network(&mut engine, 1500);
        let (teller, notices) = drop_notices();
        engine.set_drop_teller(teller);
        let add = |vlan| Station::add(&mut engine, port(lab, access(vlan)), Offloads::ALL);
        let stations = [10, 10, 20].into_iter().map(add).collect();
        Lab { engine, stations, notices, clock: 0 }
    }

    fn send(&mut self, from: usize, bytes: &[u8]) {
        self.stations[from].send(bytes);
        self.clock += 1000;
        while self.engine.poll(Time(self.clock)) {}
    }

    fn told(&self) -> Vec<DropNotice> {
        std::iter::from_fn(|| self.notices.try_next()).collect()
    }
}

#[test]
fn each_reason_is_told_once_a_second_with_the_frame() {
    let mut lab = Lab::new();
    let long = tagged(c_tag(30), &frame(mac(9), mac(1), 300));
    for _ in 0..1000 {
        lab.send(0, &long);
    }
    lab.send(2, &frame(MacAddr::BROADCAST, mac(3), 60));
    let ids = [0, 2].map(|place: usize| lab.stations[place].id);
    let told = lab.told();
    assert_eq!(told.len(), 2);
    let DropNotice { port, reason, len, head } = &told[0];
    assert_eq!((*port, *reason, *len), (ids[0], DropReason::VlanNotAllowed, 304));
    assert_eq!(head[..], long[..128]);
    assert_eq!((told[1].port, told[1].reason), (ids[1], DropReason::NoMember));
    // The number is in the counters; another second tells again.
    assert_eq!(lab.stations[0].counters.snapshot().dropped(DropReason::VlanNotAllowed), 1000);
    lab.clock += SECOND;
    lab.send(0, &long);
    lab.send(0, &long);
    assert_eq!(lab.told().len(), 1);
}

#[test]
fn what_a_receiver_refuses_is_told_of_its_port() {
    let mut lab = Lab::new();
    lab.send(1, &frame(mac(9), mac(2), 60));
    let there = frame(mac(2), mac(1), 60);
    // One more than a station's queue holds.
    for _ in 0..1025 {
        lab.send(0, &there);
    }
    let told = lab.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].port, told[0].reason), (lab.stations[1].id, DropReason::EgressFull));
    assert_eq!(told[0].head, there);
    // A reader that stalls costs nothing but notices.
    for second in 0..5000 {
        lab.clock += SECOND;
        lab.send(0, &[second as u8; 10]);
    }
    assert_eq!(lab.stations[0].counters.snapshot().dropped(DropReason::Runt), 5000);
    assert!(lab.told().len() < 5000);
}
