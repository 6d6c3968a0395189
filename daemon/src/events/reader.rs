//! What a reader of events wants, and how far it is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use trama_api::event::{Event, Facts, Kind, Moment, Query};
use trama_api::nearest::suggestion;

use super::Events;
use crate::config::model::Config;

/// Events that are looked at at once.
const AT_ONCE: usize = 256;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    kinds: Option<Vec<Kind>>,
    port: Option<String>,
    network: Option<String>,
    to: Option<To>,
    since: Option<Moment>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq)]
enum To {
    Prefix(IpNet),
    /// A name, in lower case.
    Name(String),
}

/// What a query asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    filter: Filter,
    last: Option<u64>,
    /// Whether the answer goes on.
    pub(crate) follows: bool,
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// It names what there is not; the text says what is wrong and what to do.
    pub(crate) fn read(query: &Query, config: &Config, now: Moment) -> Result<Wanted, String> {
        let kinds = query.types.as_deref().map(read_kinds).transpose()?;
        let networks = config.networks.iter().map(|it| it.name.as_str());
        check_name("network", query.network.as_deref(), &networks.collect::<Vec<_>>())?;
        let ports: Vec<String> = config.all_ports().map(|it| it.name.clone()).collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        check_name("port", query.port.as_deref(), &ports)?;
        let since = query.since.as_deref().map(read_time).transpose()?;
        let filter = Filter {
            kinds,
            port: query.port.clone(),
            network: query.network.clone(),
            to: query.to.as_deref().map(To::read).transpose()?,
            since: since.map(|time| Moment(now.0.saturating_sub(time.as_millis() as u64))),
        };
        Ok(Wanted { filter, last: query.last, follows: query.follow.unwrap_or(true) })
    }

    /// Whether it begins with events that there are already.
    fn looks_back(&self) -> bool {
        !self.follows || self.filter.since.is_some() || self.last.is_some()
    }
}

fn read_kinds(text: &str) -> Result<Vec<Kind>, String> {
    let names = Kind::ALL.map(Kind::name);
    let read = |word: &str| {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| match suggestion(word, &names) {
            near if near.is_empty() => {
                format!("type={word}: no type of events; there are {}", names.join(", "))
            }
            near => format!("type={word}: no type of events{near}"),
        })
    };
    text.split(',').map(read).collect()
}

fn check_name(what: &str, name: Option<&str>, known: &[&str]) -> Result<(), String> {
    match name.filter(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(format!("there is no {what} {name}{}", suggestion(name, known))),
    }
}

fn read_time(text: &str) -> Result<Duration, String> {
    let fault = |error| format!(r#"since={text}: {error}; write it as "90s", "5m" or "2h""#);
    humantime::parse_duration(text).map_err(fault)
}

impl To {
    fn read(text: &str) -> Result<To, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(To::Prefix(address.into()));
        }
        if let Ok(prefix) = text.parse() {
            return Ok(To::Prefix(prefix));
        }
        let is_name = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
        match !text.is_empty() && text.chars().all(is_name) {
            true => Ok(To::Name(text.trim_end_matches('.').to_ascii_lowercase())),
            false => Err(format!(
                "to={text}: neither an address, a prefix nor a name; write it as 192.0.2.7, \
                 192.0.2.0/24 or example.com"
            )),
        }
    }

    fn is_of(&self, facts: &Facts) -> bool {
        match self {
            To::Prefix(prefix) => {
                let address = facts.dst.as_deref().and_then(address_of);
                address.is_some_and(|address| prefix.contains(&address))
            }
            To::Name(wanted) => facts.name.as_deref().is_some_and(|name| {
                let above = name.strip_suffix(wanted.as_str());
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }),
        }
    }
}

/// The address of a destination with its port, or without one.
fn address_of(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|it: std::net::SocketAddr| it.ip());
    text.parse().ok().or_else(with_port)
}

impl Filter {
    /// Returns whether an event is wanted.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let Event { time, kind, facts, .. } = event;
        let is = |wanted: &Option<String>, of: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == of)
        };
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
            && is(&self.port, facts.port.as_deref())
            && is(&self.network, facts.network.as_deref())
            && self.since.is_none_or(|since| *time >= since)
            && self.to.as_ref().is_none_or(|to| to.is_of(facts))
    }
}

/// A reader's place among the events.
pub(crate) struct Reader {
    events: Arc<Events>,
    filter: Filter,
    /// The number of the next event to look at.
    next: u64,
    /// The number of the first one that is not wanted any more, unless it follows.
    end: Option<u64>,
    /// Whether to say that what came before is not known.
    is_after_another: bool,
    changed: watch::Receiver<u64>,
}

/// What a reader finds at once.
pub(crate) struct Step {
    /// Events that are wanted, and at the beginning how many were missed.
    pub(crate) events: Vec<Arc<Event>>,
    /// Whether there may be more already.
    pub(crate) has_more: bool,
}

impl Reader {
    /// Begins behind the event of this number, if there is one, and else as is wanted.
    pub(crate) fn new(events: Arc<Events>, wanted: &Wanted, after: Option<u64>) -> Reader {
        let changed = events.next.subscribe();
        let ring = events.ring();
        let (mut next, mut is_after_another) = (ring.next(), false);
        match after {
            Some(number) if ring.had(number) => next = number + 1,
            // Of another daemon, whose events are gone.
            Some(_) => (next, is_after_another) = (ring.oldest(), true),
            None if wanted.looks_back() => next = ring.oldest(),
            None => {}
        }
        if let Some(last) = wanted.last.filter(|_| after.is_none()) {
            let found = ring.read(next, usize::MAX).events;
            let taken = found.iter().rev().filter(|event| wanted.filter.takes(event));
            let first = taken.take(usize::try_from(last).unwrap_or(usize::MAX)).last();
            next = first.map_or(ring.next(), |event| event.id);
        }
        let end = (!wanted.follows).then(|| ring.next());
        drop(ring);
        Reader { events, filter: wanted.filter.clone(), next, end, is_after_another, changed }
    }

    /// Returns the next events.
    pub(crate) fn step(&mut self) -> Step {
        self.changed.mark_unchanged();
        let left = self.end.map_or(usize::MAX, |end| end.saturating_sub(self.next) as usize);
        let found = self.events.ring().read(self.next, AT_ONCE.min(left));
        let has_more = found.events.len() == AT_ONCE;
        let is_after_another = std::mem::take(&mut self.is_after_another);
        let mut events = Vec::new();
        if is_after_another || found.lost > 0 {
            self.next += found.lost;
            self.events.count_lost(found.lost);
            let count = (!is_after_another).then_some(found.lost);
            events.push(Arc::new(Event {
                id: self.next.saturating_sub(1),
                time: Moment::now(),
                kind: Kind::Lost,
                facts: Facts { count, ..Facts::default() },
            }));
        }
        self.next += found.events.len() as u64;
        events.extend(found.events.into_iter().filter(|event| self.filter.takes(event)));
        Step { events, has_more }
    }

    /// Returns the number of the last event that was looked at.
    pub(crate) fn seen(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Waits for another event. Returns false if there is none to come.
    pub(crate) async fn wait(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}
