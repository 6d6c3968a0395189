//! The difference of two views. A reader that applies it to the first has the second.

use std::collections::HashMap;
use std::sync::Arc;

use crate::view::{Change, Event, Network, Port, View};

/// Returns what is different in `new`. `events` are those that it has in addition.
pub(crate) fn change<'a>(
    old: &'a mut View,
    new: &'a View,
    events: &'a [Arc<Event>],
    lost_contact: Option<&'a str>,
) -> Change<'a> {
    let (mut rates, mut edges) = (Vec::new(), Vec::new());
    let ports = differing(&mut old.ports, &new.ports, |old, new| {
        if old.rate != new.rate {
            old.rate = new.rate;
            let rate = new.rate;
            rates.push((name(new), rate.rx_bps, rate.tx_bps, rate.rx_pps, rate.tx_pps));
        }
    });
    let networks = differing(&mut old.networks, &new.networks, |old, new| {
        if old.network.edge != new.network.edge {
            old.network.edge = new.network.edge;
            let [to, from] = new.network.edge;
            edges.push((name(new), to, from));
        }
    });
    Change {
        sequence: new.sequence,
        uptime_s: new.uptime_s,
        workers: &new.workers,
        rates,
        edges,
        networks,
        removed_networks: removed(&old.networks, &new.networks),
        ports,
        removed_ports: removed(&old.ports, &new.ports),
        reasons: (old.reasons != new.reasons).then_some(&new.reasons),
        attention: (old.attention != new.attention).then_some(&new.attention),
        events,
        lost_contact,
    }
}

/// What has a name.
pub(crate) trait Named {
    /// Returns it.
    fn name(&self) -> &str;
}

impl Named for Port {
    fn name(&self) -> &str {
        &self.port.name
    }
}

impl Named for Network {
    fn name(&self) -> &str {
        &self.network.name
    }
}

fn name(named: &impl Named) -> &str {
    named.name()
}

/// Returns the objects that differ. `level` takes over from the new one what is told apart from
/// whole objects, and is called for those alone that are in both lists.
fn differing<'a, T: Named + PartialEq>(
    old: &mut [T],
    new: &'a [T],
    mut level: impl FnMut(&mut T, &'a T),
) -> Vec<&'a T> {
    // Both lists have one order but for what was removed, so the next one is nearly always it.
    let mut at = 0;
    let mut differing = Vec::new();
    for new in new {
        let found = old.iter().skip(at).position(|old| old.name() == new.name());
        let Some(found) = found else {
            differing.push(new);
            continue;
        };
        at += found + 1;
        let old = &mut old[at - 1];
        level(old, new);
        if old != new {
            differing.push(new);
        }
    }
    differing
}

fn removed<'a, T: Named>(old: &'a [T], new: &[T]) -> Vec<&'a str> {
    let mut rest = new.iter().map(Named::name).peekable();
    let is_removed = |name: &&str| rest.next_if_eq(name).is_none();
    old.iter().map(Named::name).filter(is_removed).collect()
}

/// Puts objects into the order in which a reader has them: those that were there before stay, and
/// new ones follow. Of two with one name, the second is left out.
pub(crate) fn in_order<T: Named>(before: &[T], now: Vec<T>) -> Vec<T> {
    let is_same = now.len() == before.len()
        && now.iter().zip(before).all(|(now, before)| now.name() == before.name());
    if is_same {
        return now;
    }
    let places: HashMap<&str, usize> =
        before.iter().enumerate().map(|(place, object)| (object.name(), place)).collect();
    let place = |object: &T| places.get(object.name()).copied().unwrap_or(usize::MAX);
    let mut seen = std::collections::HashSet::new();
    let mut placed: Vec<_> = now.into_iter().map(|object| (place(&object), object)).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.retain(|(_, object)| seen.insert(object.name().to_owned()));
    placed.into_iter().map(|(_, object)| object).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;
    use trama_api::state::{self, LastDrop, State};
    use trama_api::top;

    use super::*;
    use crate::compose::{Composer, Now};

    /// What a page makes of a change: the slow and plain way.
    fn apply(view: &mut Value, change: &Value) {
        for key in ["sequence", "uptime_s", "workers", "reasons", "attention"] {
            if !change[key].is_null() {
                view[key] = change[key].clone();
            }
        }
        for key in ["networks", "ports"] {
            let objects = view[key].as_array_mut().unwrap();
            let removed = change[format!("removed_{key}")].as_array().unwrap();
            objects.retain(|object| !removed.contains(&object["name"]));
            for new in change[key].as_array().unwrap() {
                match objects.iter_mut().find(|old| old["name"] == new["name"]) {
                    Some(old) => *old = new.clone(),
                    None => objects.push(new.clone()),
                }
            }
        }
        let find = |view: &mut Value, key: &str, name: &Value, with: &dyn Fn(&mut Value)| {
            let objects = view[key].as_array_mut().unwrap();
            with(objects.iter_mut().find(|object| object["name"] == *name).unwrap());
        };
        for rate in change["rates"].as_array().unwrap() {
            find(view, "ports", &rate[0], &|port| {
                for (at, key) in ["rx_bps", "tx_bps", "rx_pps", "tx_pps"].iter().enumerate() {
                    port["rate"][*key] = rate[at + 1].clone();
                }
            });
        }
        for edge in change["edges"].as_array().unwrap() {
            find(view, "networks", &edge[0], &|network| {
                network["edge"] = Value::from(vec![edge[1].clone(), edge[2].clone()]);
            });
        }
    }

    fn ports() -> impl Strategy<Value = Vec<(state::Port, top::Port)>> {
        let name = prop::sample::select(vec!["a", "b", "c", "<img src=x>", "__proto__", "e"]);
        let network = prop::option::of(prop::sample::select(vec!["lab", "lan"]));
        let numbers = (0..3u64, 0..200u64, 0..3u64);
        let port = (name, network, numbers, prop::option::of(0..3u16), any::<bool>()).prop_map(
            |(name, network, (rx, tx, drops), tag, has_last)| {
                let network = network.map(str::to_owned);
                let last = LastDrop { reason: "loop".into(), at: rx, ..LastDrop::default() };
                let port = state::Port {
                    name: name.to_owned(),
                    network: network.clone(),
                    tag,
                    last_drops: has_last.then_some(last).into_iter().collect(),
                    ..state::Port::default()
                };
                let counted = top::Port {
                    name: name.to_owned(),
                    network,
                    rx_bytes: rx * 1000,
                    tx_frames: tx,
                    drops: vec![("loop".into(), drops)],
                    ..top::Port::default()
                };
                (port, counted)
            },
        );
        prop::collection::vec(port, 0..6)
    }

    fn states() -> impl Strategy<Value = State> {
        let networks = prop::collection::vec(
            (prop::sample::select(vec!["lab", "lan", "wan"]), 0..3u64, 0..2usize),
            0..3,
        );
        (ports(), networks, 0..3u64).prop_map(|(ports, networks, reasons)| {
            let mut state = State::default();
            for (port, counted) in ports {
                if state.ports.iter().all(|it| it.name != port.name) {
                    state.ports.push(port);
                    state.numbers.ports.push(counted);
                }
            }
            for (name, bytes, mac_entries) in networks {
                let edge = [bytes * 100, 7];
                if state.networks.iter().all(|it| it.name != name) {
                    let name = name.to_owned();
                    let network = state::Network { name, edge, mac_entries, ..Default::default() };
                    state.networks.push(network);
                }
            }
            state.reasons = [("loop".to_owned(), format!("remedy {reasons}"))].into();
            state.numbers.busy_nanos = vec![reasons];
            state
        })
    }

    proptest! {
        #[test]
        fn a_reader_that_applies_all_changes_has_the_view(states in prop::collection::vec(states(), 1..12)) {
            let mut composer = Composer::default();
            let mut view = View::default();
            let mut readers = serde_json::to_value(&view).unwrap();
            for (second, mut state) in states.into_iter().enumerate() {
                let second = second as u64 + 1;
                state.numbers.nanos = second * 1_000_000_000;
                state.uptime_s = second;
                let now = Now { monotonic: Duration::from_secs(second), unix: second };
                let mut next = composer.next(&view, state, now);
                next.sequence += 1;
                // What does not change while a page is open.
                readers["version"] = next.version.clone().into();
                let change = serde_json::to_value(change(&mut view, &next, &[], None)).unwrap();
                apply(&mut readers, &change);
                prop_assert_eq!(&readers, &serde_json::to_value(&next).unwrap());
                view = next;
            }
        }
    }

    #[test]
    fn a_rate_alone_sends_no_whole_port() {
        let port = |rx_bps| {
            let mut port = Port::default();
            port.port.name = "vm1".into();
            port.rate.rx_bps = rx_bps;
            port
        };
        let mut old = View { ports: vec![port(1)], ..View::default() };
        let new = View { ports: vec![port(2)], ..View::default() };
        let difference = change(&mut old, &new, &[], Some("why"));
        assert_eq!(difference.rates, [("vm1", 2, 0, 0, 0)]);
        assert!(difference.ports.is_empty() && difference.attention.is_none());
        let mut old = new.clone();
        let difference = serde_json::to_string(&change(&mut old, &new, &[], None)).unwrap();
        assert_eq!(
            difference,
            "{\"sequence\":0,\"uptime_s\":0,\"workers\":[],\"rates\":[],\"edges\":[],\"networks\":[],\
             \"removed_networks\":[],\"ports\":[],\"removed_ports\":[],\"events\":[],\
             \"lost_contact\":null}"
        );
    }
}
