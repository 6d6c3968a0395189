//! Storms at ports: logged when they begin and when they end.
//!
//! The switch drops the frames and remembers when it last did; see `switch/src/storm.rs`. It
//! reports a beginning by an event. While a storm lasts, [`Storms::follow`] is called each second
//! and sees its end.

use std::collections::BTreeMap;

use trama_switch::{FloodKind, StormLimits};

/// The storms that last, by port.
#[derive(Default)]
pub(crate) struct Storms(BTreeMap<String, Storm>);

/// The storm at a port.
struct Storm {
    kinds: Vec<FloodKind>,
    /// Frames that the port's limits had dropped when the storm was first seen.
    dropped_before: u64,
}

impl Storms {
    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the kinds of frames in a port's storm.
    pub(crate) fn of(&self, port: &str) -> impl Iterator<Item = FloodKind> {
        self.0.get(port).into_iter().flat_map(|storm| storm.kinds.iter().copied())
    }
}

/// A port as it is now.
pub(crate) struct Observed<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The kinds of frames of which it sends more than it may.
    pub(crate) kinds: Vec<FloodKind>,
    /// Its limits.
    pub(crate) limits: StormLimits,
    /// Frames that they have dropped.
    pub(crate) dropped: u64,
}

impl Storms {
    /// Logs the storms that have begun or ended since the last call. `ports` are all that run.
    pub(crate) fn follow<'a>(&mut self, ports: impl Iterator<Item = Observed<'a>>) {
        let mut known = std::mem::take(&mut self.0);
        for Observed { name, kinds, limits, dropped } in ports {
            let before = known.remove(name);
            if kinds.is_empty() {
                if let Some(Storm { dropped_before, .. }) = before {
                    let count = dropped.saturating_sub(dropped_before);
                    tracing::info!(
                        "port {name}: the storm is over; it cost at least {count} frames"
                    );
                }
                continue;
            }
            let is_new =
                |kind: &&FloodKind| !before.as_ref().is_some_and(|it| it.kinds.contains(kind));
            for kind in kinds.iter().filter(is_new) {
                let limit = limits.of(*kind);
                tracing::warn!(
                    "port {name}: a storm of {kind} frames; those beyond {limit} a second are \
                     dropped: look for a loop behind the port"
                );
            }
            let dropped_before = before.map_or(dropped, |storm| storm.dropped_before);
            self.0.insert(name.to_owned(), Storm { kinds, dropped_before });
        }
    }
}
