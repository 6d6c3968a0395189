//! The agent's limits, its life without the store, and stations that two hosts claim.

use std::time::Duration;

use trama_frame::vxlan::Vni;
use trama_frame::{MacAddr, VlanId};

use super::*;
use crate::key::Key;
use crate::row::{Member, Net, Station};
use crate::store::memory::{Lease, Memory};
use crate::store::{Answer, Request, Revision};
use crate::testing::name;

/// An agent and a store that answers at once.
struct Bench {
    agent: Agent,
    store: Memory,
    now: Time,
    watches: BTreeMap<Scope, Revision>,
    steps: Vec<Step>,
    rows_written: Vec<usize>,
    is_connected: bool,
}

fn vni() -> Vni {
    Vni::new(77).unwrap()
}

fn station(number: u16) -> StationKey {
    let [a, b] = number.to_be_bytes();
    StationKey { vlan: VlanId::NONE, mac: MacAddr([2, 0, 0, 0, a, b]) }
}

impl Bench {
    fn new() -> Bench {
        let mut store = Memory::default();
        let net = Net { vni: vni(), subnet: None };
        store.put("net/blue", &row::encode(&net));
        let (vtep, spread) = (vec![[10, 0, 0, 5].into()], Duration::ZERO);
        let boot = "b".to_owned();
        let config = Config { host: name("h5"), vtep, port: 4789, boot, spread };
        Bench {
            agent: Agent::new(config, Cache::default()),
            store,
            now: Time(1000),
            watches: BTreeMap::new(),
            steps: Vec::new(),
            rows_written: Vec::new(),
            is_connected: false,
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Connected => self.is_connected = true,
            Input::Lost => {
                self.is_connected = false;
                self.watches.clear();
            }
            _ => {}
        }
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Outcome::default();
            self.agent.handle(self.now, input, &mut out);
            self.steps.append(&mut out.steps);
            let answers: Vec<Input> =
                out.requests.into_iter().filter_map(|request| self.answer(request)).collect();
            inputs.extend(answers.into_iter().rev());
            if inputs.is_empty() {
                inputs.extend(self.event());
            }
        }
    }

    fn answer(&mut self, request: Request) -> Option<Input> {
        match request {
            Request::Range { scope, at, after } => {
                let page = self.store.range(&scope, at, after.as_deref(), 100).unwrap();
                Some(Input::Page(scope, page))
            }
            Request::Watch { scope, from } => {
                self.watches.insert(scope, from);
                None
            }
            Request::Unwatch(scope) => {
                self.watches.remove(&scope);
                None
            }
            Request::Commit(txn) => {
                let answer = self.store.commit(Lease(1), &txn);
                self.rows_written.push(txn.operations.len());
                Some(Input::Answered(txn.id, answer))
            }
        }
    }

    fn event(&mut self) -> Option<Input> {
        let revision = self.store.revision();
        let late = self.watches.iter_mut().find(|(_, from)| **from <= revision)?;
        let rows = self.store.changes_in(late.0, *late.1).unwrap();
        *late.1 = revision.next();
        Some(Input::Changed(late.0.clone(), rows, revision))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            self.input(Input::Tick);
        }
    }

    fn plug(&mut self, port: &str) {
        let (port, network) = (name(port), name("blue"));
        self.input(Input::PortUp { port, network, stations: Vec::new() });
    }

    fn learn(&mut self, port: &str, number: u16) {
        self.input(Input::Learned { port: name(port), station: station(number) });
    }

    fn row(&self, number: u16) -> Option<Station> {
        let key = Key::Station(vni(), station(number)).to_string();
        row::parse(&self.store.get(&key).value?).ok()
    }

    /// Another host, a member, has the station.
    fn rival(&mut self, host: &str, last: u8, number: u16, seq: u32) {
        let vtep = vec![[10, 0, 0, last].into()];
        let member = Member { vtep, port: 4789, epoch: 1, unknown: false };
        self.store.put(&Key::Member(vni(), name(host)).to_string(), &row::encode(&member));
        let row = Station { host: name(host), port: None, seq, sticky: false };
        let key = Key::Station(vni(), station(number)).to_string();
        self.store.put(&key, &row::encode(&row));
    }
}

#[test]
fn a_port_publishes_64_learned_stations_at_100_a_second() {
    let mut bench = Bench::new();
    bench.input(Input::Connected);
    for port in 0..8 {
        bench.plug(&format!("p{port}"));
    }
    bench.pass(Duration::from_secs(5));
    bench.rows_written.clear();
    for port in 0..8 {
        for number in 0..100 {
            bench.learn(&format!("p{port}"), port * 100 + number);
        }
    }
    bench.pass(Duration::from_secs(2));
    let written: usize = bench.rows_written.iter().sum();
    assert!((200..=340).contains(&written), "{written} rows in 2 s, 128 of them at once");
    assert!(bench.rows_written.iter().all(|rows| *rows <= 128));
    bench.pass(Duration::from_secs(5));
    let published = (0..800).filter(|number| bench.row(*number).is_some()).count();
    assert_eq!(published, 8 * 64);
    let member = bench.store.get(&Key::Member(vni(), name("h5")).to_string()).value.unwrap();
    assert!(row::parse::<Member>(&member).unwrap().unknown);
}

#[test]
fn what_changed_without_the_store_is_written_on_return() {
    let mut bench = Bench::new();
    bench.input(Input::Connected);
    bench.plug("vm1");
    bench.learn("vm1", 1);
    bench.pass(Duration::from_secs(1));
    bench.learn("vm1", 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.row(1).unwrap().host, name("h5"));
    bench.input(Input::Lost);
    bench.steps.clear();
    bench.plug("vm2");
    let runs = Step::Port { port: name("vm2"), elsewhere: None };
    assert_eq!(bench.steps, [runs], "a port runs at once without the store");
    bench.learn("vm2", 2);
    bench.input(Input::PortDown(name("vm1")));
    bench.pass(Duration::from_secs(1));
    assert!(bench.row(1).is_some() && bench.row(2).is_none());
    bench.input(Input::Connected);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.row(2).unwrap().host, name("h5"));
    assert_eq!(bench.row(1), None);
    assert_eq!(bench.store.get("port/vm1").value, None);
    assert!(bench.store.get("port/vm2").value.is_some());
}

#[test]
fn of_two_claims_the_higher_number_counts_and_then_the_lower_address() {
    for (host, last, more, is_lost) in
        [("h4", 4, 0, true), ("h6", 6, 0, false), ("h6", 6, 1, true), ("h4", 4, 1, true)]
    {
        let mut bench = Bench::new();
        bench.input(Input::Connected);
        bench.plug("vm1");
        bench.pass(Duration::from_secs(1));
        bench.input(Input::Lost);
        bench.learn("vm1", 1);
        bench.rival(host, last, 1, 1 + more);
        bench.steps.clear();
        bench.input(Input::Connected);
        bench.pass(Duration::from_secs(1));
        let expected = if is_lost { host } else { "h5" };
        assert_eq!(bench.row(1).unwrap().host, name(expected), "{host} {more}");
        let is_told = |step: &Step| matches!(step, Step::Station { host: Some(_), .. });
        assert_eq!(bench.steps.iter().any(is_told), is_lost, "{:?}", bench.steps);
    }
}

#[test]
fn a_station_that_moves_too_often_stays_where_it_is() {
    let mut bench = Bench::new();
    bench.input(Input::Connected);
    bench.plug("vm1");
    bench.pass(Duration::from_secs(1));
    bench.rival("h4", 4, 1, 1);
    bench.pass(Duration::from_secs(1));
    let mut moves = 0;
    for seq in (2..40).step_by(2) {
        bench.learn("vm1", 1);
        bench.pass(Duration::from_secs(1));
        if bench.row(1).unwrap().host == name("h5") {
            moves += 1;
            bench.rival("h4", 4, 1, seq + 1);
            bench.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(moves, 3, "three to this host and two back are five");
    bench.pass(Duration::from_secs(60));
    bench.learn("vm1", 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.row(1).unwrap().host, name("h5"), "60 s later it moves again");
}

#[test]
fn a_name_that_another_host_has_is_not_run() {
    let mut bench = Bench::new();
    let other = row::Port { host: name("h4"), network: name("blue"), seq: 1, epoch: 1, to: None };
    bench.store.put("port/vm1", &row::encode(&other));
    bench.plug("vm1");
    bench.input(Input::Connected);
    bench.pass(Duration::from_secs(1));
    let held = Step::Port { port: name("vm1"), elsewhere: Some(name("h4")) };
    assert_eq!(bench.steps.last(), Some(&held));
    bench.learn("vm1", 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.row(1), None);
    let key = "port/vm1".parse().unwrap();
    let operations = vec![crate::store::Operation::Delete { key }];
    let txn = crate::store::Txn { operations, ..Default::default() };
    assert!(matches!(bench.store.commit(Lease(2), &txn), Answer::Done(_)));
    bench.pass(Duration::from_secs(2));
    let runs = Step::Port { port: name("vm1"), elsewhere: None };
    assert_eq!(bench.steps.last(), Some(&runs));
}
