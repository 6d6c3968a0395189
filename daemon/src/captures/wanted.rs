//! What a client wants captured: from names and words to watches.

use std::collections::BTreeSet;
use std::time::Duration;

use trama_api::capture::{Direction, Request};
use trama_api::nearest::suggestion;
use trama_capture::filter::{Filter, Mistake};
use trama_capture::pcapng::MAX_SNAPLEN;
use trama_frame::vnet::PRIVATE_HEAD;
use trama_switch::watch::{self, Glimpse, ReasonSet, Record, Ways};
use trama_switch::{DropReason, NetworkId, PortId};

use crate::config::derived::running::is_part_of;
use crate::config::model::Config;
use crate::convert;

/// The ports of all networks.
const ANY: &str = "any";

/// Which ports are captured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    any: bool,
    networks: BTreeSet<String>,
    pub(super) ports: BTreeSet<String>,
}

impl Targets {
    /// Returns whether a port is one of them.
    pub(crate) fn include(&self, port: &str, network: &str) -> bool {
        self.any
            || self.ports.contains(port)
            || self.networks.iter().any(|name| is_part_of(network, name))
    }

    /// Returns whether they are stated ports, so that the capture ends with the last of them.
    pub(super) fn are_ports(&self) -> bool {
        !self.any && self.networks.is_empty()
    }
}

/// A port that can be watched.
#[derive(Clone, Debug)]
pub(crate) struct WatchedPort {
    pub name: String,
    pub id: PortId,
    pub network: NetworkId,
    pub network_name: String,
    /// Its network and VLANs, in words.
    pub description: String,
}

/// A capture that a client wants.
pub(crate) struct Wanted {
    /// The words of the client.
    pub(super) what: String,
    pub(super) targets: Targets,
    /// The ways of frames that pass.
    pub(super) frames: Ways,
    /// The ways of dropped frames.
    pub(super) dropped: Ways,
    pub(super) drops: ReasonSet,
    /// Bytes of a frame.
    pub(super) snaplen: u32,
    /// Frames after which it ends.
    pub(super) count: Option<u64>,
    /// How much of the time before it is wanted, if the ring has it.
    pub(super) last: Option<Duration>,
    filter: Option<Filter>,
}

impl Wanted {
    /// Reads a request.
    ///
    /// # Errors
    /// It names what there is not, or its filter has a mistake.
    pub(crate) fn read(request: &Request, config: &Config) -> Result<Wanted, String> {
        let (targets, rest) = targets(&request.words, config);
        let filter = filter(rest).map_err(|mistake| {
            let is_first = targets.is_none() && !rest.is_empty() && mistake.column == 1;
            explain(&mistake, is_first.then_some(config))
        })?;
        let targets = targets.unwrap_or(Targets { any: true, ..Targets::default() });
        let ways = |direction| Ways {
            received: direction != Direction::Out,
            sent: direction != Direction::In,
        };
        // Each frame once: where it enters. It may be dropped at any port that it was for.
        let passing = if targets.are_ports() { Direction::InOut } else { Direction::In };
        let passing = ways(request.direction.unwrap_or(passing));
        let dropped = request.direction.map_or(Ways::BOTH, ways);
        let drops = request.drops.as_deref().map_or(Ok(ReasonSet::NONE), reasons)?;
        if !request.frames && drops == ReasonSet::NONE {
            return Err("neither frames nor drops are wanted; use --drops with --no-frames".into());
        }
        Ok(Wanted {
            what: request.words.join(" "),
            targets,
            frames: if request.frames { passing } else { Ways::default() },
            dropped,
            drops,
            snaplen: if request.snaplen == 0 { MAX_SNAPLEN } else { request.snaplen }
                .min(MAX_SNAPLEN),
            count: request.count,
            last: request.last.as_deref().map(time).transpose()?,
            filter,
        })
    }

    /// Returns what the ring wants: all that passes or is dropped at any port.
    pub(super) fn everything(snaplen: u32) -> Wanted {
        Wanted {
            what: String::new(),
            targets: Targets { any: true, ..Targets::default() },
            frames: Ways::BOTH,
            dropped: Ways::BOTH,
            drops: ReasonSet::ALL,
            snaplen,
            count: None,
            last: None,
            filter: None,
        }
    }

    /// Returns whether a watch for it would copy a frame of one of its ports. `filter` is its
    /// filter.
    pub(super) fn takes(&self, record: &Record<'_>, filter: Option<&watch::Filter>) -> bool {
        let is_kind = match record.drop {
            None => self.frames.include(record.way),
            Some(reason) => self.dropped.include(record.way) && self.drops.contains(reason),
        };
        let head = &record.bytes[..record.bytes.len().min(PRIVATE_HEAD)];
        let glimpse = Glimpse { head, len: record.len, drop: record.drop };
        is_kind && filter.is_none_or(|takes| takes(&glimpse))
    }

    /// Returns the filter as a watch asks it.
    pub(super) fn filter(&self) -> Option<watch::Filter> {
        self.filter.clone().map(convert::frame_filter)
    }
}

/// Reads a time: seconds, or with a unit.
fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let fault = |error| format!(r#"--last {text}: {error}; write it as "30s", "5m" or "90""#);
    humantime::parse_duration(text).map_err(fault)
}

/// Takes the names at the beginning; `None` if there is none.
fn targets<'a>(words: &'a [String], config: &Config) -> (Option<Targets>, &'a [String]) {
    let mut targets = Targets::default();
    let is_name = |word: &&String| {
        *word == ANY || config.port(word).is_some() || config.network(word).is_some()
    };
    let count = words.iter().take_while(is_name).count();
    let (names, rest) = words.split_at(count);
    for name in names {
        if name == ANY {
            targets.any = true;
        } else if config.port(name).is_some() {
            targets.ports.insert(name.clone());
        } else {
            targets.networks.insert(name.clone());
        }
    }
    ((count > 0).then_some(targets), rest)
}

fn filter(words: &[String]) -> Result<Option<Filter>, Mistake> {
    let names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    match words {
        [] => Ok(None),
        words => Filter::parse(&words.join(" "), &names).map(Some),
    }
}

/// The message about a mistake. With a configuration, the word may be meant as a name in it.
fn explain(mistake: &Mistake, config: Option<&Config>) -> String {
    let mut known = mistake.known.clone();
    let mut names = Vec::new();
    if let Some(config) = config.filter(|_| !mistake.word.is_empty()) {
        names.extend(config.ports.iter().map(|port| port.name.as_str()));
        names.extend(config.networks.iter().map(|network| network.name.as_str()));
    }
    let what = match names.is_empty() {
        true => mistake.to_string(),
        false => format!("{mistake}, and it is neither a port nor a network"),
    };
    known.extend(names);
    match suggestion(&mistake.word, &known) {
        near if near.is_empty() && !known.is_empty() => {
            format!("{what}; docs/capture.md has the language of filters")
        }
        near => what + &near,
    }
}

/// Reads names of reasons; none stands for all.
fn reasons(names: &[String]) -> Result<ReasonSet, String> {
    if names.is_empty() {
        return Ok(ReasonSet::ALL);
    }
    let known: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let one = |name: &String| {
        let found = DropReason::ALL.iter().find(|reason| reason.name() == name);
        found.copied().ok_or_else(|| {
            let remedy = match suggestion(name, &known) {
                near if near.is_empty() => format!("; there are {}", known.join(", ")),
                near => near,
            };
            format!("{name:?} is not a drop reason{remedy}")
        })
    };
    names.iter().map(one).collect()
}
