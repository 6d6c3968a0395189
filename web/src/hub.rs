//! The view that all pages share, and the stream of its changes.
//!
//! Each change is serialised once, whatever the number of readers; the whole view at most once
//! between two changes, when a reader comes or has missed something.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use trama_api::state::State;

use crate::change::change;
use crate::compose::{Composer, Now};
use crate::history::Chart;
use crate::sse;
use crate::view::{EVENTS, Event, View};

/// Changes that a reader may be behind.
const BEHIND: usize = 8;

/// The view.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    changes: Sender<Bytes>,
}

struct Inner {
    view: View,
    composer: Composer,
    /// Events that no change has told of.
    news: Vec<std::sync::Arc<Event>>,
    /// The view as JSON, until it changes.
    json: Option<Bytes>,
}

impl Hub {
    /// Returns a view of nothing.
    pub(crate) fn new(write: bool) -> Hub {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let view = View { write, version, ..View::default() };
        let inner = Inner { view, composer: Composer::default(), news: Vec::new(), json: None };
        Hub { inner: Mutex::new(inner), changes: channel(BEHIND).0 }
    }

    /// Takes an answer of the daemon, and tells readers what has changed.
    pub(crate) fn renew(&self, state: State, now: Now) {
        let mut inner = self.lock();
        let Inner { view, composer, .. } = &mut *inner;
        let next = composer.next(view, state, now);
        self.tell(&mut inner, next, None);
    }

    /// Tells readers that the daemon does not answer.
    pub(crate) fn lost_contact(&self, why: &str) {
        let mut inner = self.lock();
        let next = inner.view.clone();
        self.tell(&mut inner, next, Some(why));
    }

    /// Takes an event, which readers are told with the next change. Of more than a view has, the
    /// first are left out.
    pub(crate) fn event(&self, event: Event) {
        let mut inner = self.lock();
        if inner.news.len() == EVENTS {
            inner.news.remove(0);
        }
        inner.news.push(event.into());
    }

    fn tell(&self, inner: &mut Inner, mut next: View, lost_contact: Option<&str>) {
        let news = std::mem::take(&mut inner.news);
        next.sequence += 1;
        next.events.extend(news.iter().cloned());
        let excess = next.events.len().saturating_sub(EVENTS);
        next.events.drain(..excess);
        let change = change(&mut inner.view, &next, &news, lost_contact);
        if self.changes.receiver_count() > 0 {
            // Without a reader, there is no error to report.
            let _ = self.changes.send(sse::write("change", Some(next.sequence), &change));
        }
        inner.view = next;
        inner.json = None;
    }

    /// Tells readers that the process ends.
    pub(crate) fn end(&self, reason: &str) {
        let _ = self.changes.send(sse::write("end", None, &serde_json::json!({"reason": reason})));
    }

    /// Returns the view as an event, and the changes that follow it.
    pub(crate) fn read(&self) -> (Bytes, Receiver<Bytes>) {
        let mut inner = self.lock();
        let state = inner.event();
        (state, self.changes.subscribe())
    }

    /// Returns the view as JSON.
    pub(crate) fn json(&self) -> Bytes {
        let event = self.lock().event();
        // The event's data is its last line but one.
        let begin = event.windows(6).position(|bytes| bytes == b"data: ").map_or(0, |at| at + 6);
        event.slice(begin..event.len() - 2)
    }

    /// Returns the last minutes of a port; `None` if there is no such port.
    pub(crate) fn port_chart(&self, name: &str) -> Option<Chart> {
        self.has_port(name).then(|| self.lock().composer.history.of_port(name))
    }

    /// Returns the last minutes of a worker.
    pub(crate) fn worker_chart(&self, id: usize) -> Option<Chart> {
        self.lock().composer.history.of_worker(id)
    }

    /// Returns whether there is a port of this name.
    pub(crate) fn has_port(&self, name: &str) -> bool {
        self.lock().view.ports.iter().any(|port| port.port.name == name)
    }

    /// Returns whether the page may change something.
    pub(crate) fn write(&self) -> bool {
        self.lock().view.write
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn event(&mut self) -> Bytes {
        let Inner { view, json, .. } = self;
        json.get_or_insert_with(|| sse::write("state", Some(view.sequence), view)).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use trama_api::{state, top};

    use super::*;

    /// A state of many ports, each with counters that grow by the second.
    fn state_at(second: u64, ports: u64) -> State {
        let mut state = State { uptime_s: second, ..State::default() };
        state.numbers.nanos = second * 1_000_000_000;
        for port in 0..ports {
            let (name, network) = (format!("port-{port}"), Some("lab".to_owned()));
            let count = second * second * (port + 1);
            state.numbers.ports.push(top::Port {
                name: name.clone(),
                network: network.clone(),
                rx_bytes: 1000 * count,
                rx_frames: count,
                drops: vec![("egress_full".into(), 7)],
                ..top::Port::default()
            });
            let path = Some(format!("/run/trama/lab/{name}.sock"));
            state.ports.push(state::Port { name, network, path, ..state::Port::default() });
        }
        state
    }

    fn now(second: u64) -> Now {
        Now { monotonic: Duration::from_secs(second), unix: second }
    }

    #[test]
    fn a_change_of_the_rates_of_1000_ports_costs_little() {
        let hub = Hub::new(false);
        hub.renew(state_at(1, 1000), now(1));
        let (_, mut changes) = hub.read();
        let states: Vec<_> = (2..22).map(|second| (second, state_at(second, 1000))).collect();
        let begin = Instant::now();
        for (second, state) in states {
            hub.renew(state, now(second));
            let change = changes.try_recv().unwrap();
            assert!(change.len() < 100_000, "{}", change.len());
        }
        let each = begin.elapsed() / 20;
        println!("a change of 1000 rates: {each:?}");
        // About 8 ms where this was written, with other work on the machine.
        assert!(each < Duration::from_millis(200), "{each:?}");
        let begin = Instant::now();
        let (view, _) = hub.read();
        println!("a view of 1000 ports: {} bytes in {:?}", view.len(), begin.elapsed());
        assert!(hub.read().0.as_ptr() == view.as_ptr(), "serialised again");
    }

    #[test]
    fn the_last_events_are_kept() {
        let hub = Hub::new(false);
        let event = |id| trama_api::event::Event {
            id,
            time: trama_api::event::Moment(0),
            kind: trama_api::event::Kind::Link,
            facts: Default::default(),
        };
        (0..500).for_each(|id| hub.event(event(id).into()));
        hub.lost_contact("why");
        (500..510).for_each(|id| hub.event(event(id).into()));
        hub.lost_contact("why");
        let view: serde_json::Value = serde_json::from_slice(&hub.json()).unwrap();
        let ids: Vec<_> = view["events"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
        assert_eq!((ids.len(), ids[0].as_u64(), ids[199].as_u64()), (200, Some(310), Some(509)));
        assert_eq!(view["sequence"], 2);
    }
}
