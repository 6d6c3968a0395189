//! A replica that is fed by events, or by a whole read after a compaction, knows what is there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trama_frame::{MacAddr, VlanId};

use super::*;
use crate::store::memory::Memory;
use crate::testing::name;

const HOSTS: u8 = 3;
const STATIONS: u8 = 6;

fn vni() -> Vni {
    Vni::new(77).unwrap()
}

fn station(number: u8) -> StationKey {
    StationKey { vlan: VlanId::NONE, mac: MacAddr([2, 0, 0, 0, 0, number]) }
}

fn host(number: u8) -> Name {
    name(&format!("h{number}"))
}

fn member_key(number: u8) -> String {
    Key::Member(vni(), host(number)).to_string()
}

fn station_key(number: u8) -> String {
    Key::Station(vni(), station(number)).to_string()
}

fn put_member(store: &mut Memory, number: u8) {
    let vtep = vec![[10, 0, 0, number].into()];
    let member = Member { vtep, port: 4789, epoch: 1, unknown: false };
    store.put(&member_key(number), &row::encode(&member));
}

fn put_station(store: &mut Memory, number: u8, at: u8) {
    let row = Station { host: host(at), port: None, seq: 1, sticky: false };
    store.put(&station_key(number), &row::encode(&row));
}

/// Writes that another host may make.
#[derive(Clone, Debug)]
enum Write {
    Join(u8),
    Leave(u8),
    Put(u8, u8),
    Remove(u8),
    /// A read of the whole range instead of the events since the last.
    Compact,
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (0..HOSTS).prop_map(Write::Join),
        (0..HOSTS).prop_map(Write::Leave),
        (0..STATIONS, 0..HOSTS).prop_map(|(station, host)| Write::Put(station, host)),
        (0..STATIONS).prop_map(Write::Remove),
        Just(Write::Compact),
    ]
}

/// Where each station is by the rows of the store: the slow, obvious way.
fn truth(store: &Memory) -> BTreeMap<StationKey, Name> {
    let is_there = |key: String| store.get(&key).value;
    let place = |number| {
        let row: Station = row::parse(&is_there(station_key(number))?).ok()?;
        is_there(Key::Member(vni(), row.host.clone()).to_string())?;
        Some((station(number), row.host))
    };
    (0..STATIONS).filter_map(place).collect()
}

/// A data plane, which does what the changes say.
fn apply(plane: &mut BTreeMap<StationKey, Name>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Station(station, Some(host)) => drop(plane.insert(station, host)),
            Change::Station(station, None) => {
                assert!(plane.remove(&station).is_some(), "{station:?} was not there");
            }
            Change::Member(..) | Change::Block(..) => {}
        }
    }
}

fn delete(store: &mut Memory, key: &str) {
    let key = key.parse().unwrap();
    let operations = vec![crate::store::Operation::Delete { key }];
    let txn = crate::store::Txn { operations, ..Default::default() };
    store.commit(crate::store::memory::Lease(1), &txn);
}

proptest! {
    #[test]
    fn the_data_plane_has_what_the_store_has(
        writes in prop::collection::vec(any_write(), 0..60)
    ) {
        let (mut store, mut replica) = (Memory::default(), Replica::new(vni()));
        let (mut plane, mut known) = (BTreeMap::new(), Revision::ABSENT);
        let scope = Scope::Network(vni());
        for write in writes {
            let mut out = Vec::new();
            match write {
                Write::Join(number) => put_member(&mut store, number),
                Write::Leave(number) => delete(&mut store, &member_key(number)),
                Write::Put(number, at) => put_station(&mut store, number, at),
                Write::Remove(number) => delete(&mut store, &station_key(number)),
                Write::Compact => {
                    store.compact(store.revision());
                    let before = plane.clone();
                    replica.mark();
                    for entry in store.range(&scope, None, None, 1000).unwrap().rows {
                        let _ = replica.take(&entry, &mut out);
                    }
                    replica.sweep(&mut out);
                    let truth = truth(&store);
                    let is_lost = |change: &Change| match change {
                        Change::Station(station, None) => {
                            before.contains_key(station)
                                && before.get(station) == truth.get(station)
                        }
                        _ => false,
                    };
                    prop_assert!(!out.iter().any(is_lost), "cleared and filled: {out:?}");
                    known = store.revision();
                }
            }
            // Some events arrive late, together with those after them.
            if known.0 % 3 != 1 || store.revision().0 > known.0 + 2 {
                for entry in store.changes_in(&scope, known.next()).unwrap_or_default() {
                    let _ = replica.take(&entry, &mut out);
                }
                known = store.revision();
            }
            apply(&mut plane, out);
            if known == store.revision() {
                prop_assert_eq!(&plane, &truth(&store));
            }
        }
    }
}

#[test]
fn hostile_rows_have_no_effect() {
    let (mut store, mut replica) = (Memory::default(), Replica::new(vni()));
    put_member(&mut store, 1);
    put_station(&mut store, 1, 1);
    put_station(&mut store, 2, 9);
    store.put(&station_key(1), b"{}");
    store.put("n/00004d/m/x", b"{}");
    store.put("n/00004d/later/x", b"{}");
    store.put("n/00004e/h/h1", b"{}");
    store.put(&station_key(3), &[b' '; row::MAX_LEN + 1]);
    let mut out = Vec::new();
    let entries: Vec<Entry> = store.changes(Revision(1)).unwrap().collect();
    let taken: Vec<_> = entries.iter().map(|entry| replica.take(entry, &mut out)).collect();
    let refused = [
        Ok(()),
        Ok(()),
        Err(Refusal::NotAMember),
        Err(Refusal::Value),
        Err(Refusal::Key),
        Ok(()),
        Err(Refusal::Key),
        Err(Refusal::TooLong),
    ];
    assert_eq!(taken, refused);
    assert_eq!(replica.host_of(station(1)), Some(&host(1)));
    assert_eq!(replica.host_of(station(2)), None);
    assert_eq!(out.len(), 2, "{out:?}");
}

#[test]
fn a_station_costs_little_memory() {
    assert!(size_of::<(StationKey, Place)>() <= 40);
}
