//! How often the configuration was changed, for the metrics.

use std::time::{Duration, SystemTime};

/// Changes of the configuration since the daemon started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Reloads of the file that were carried out.
    pub reloaded: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// The time since 1970 when the configuration last changed; at first, when the daemon started.
    pub last: Duration,
}

impl Changes {
    /// The changes of a daemon that starts now.
    pub(crate) fn new() -> Changes {
        let mut changes = Changes::default();
        changes.record_change();
        changes
    }

    /// Counts a reload.
    pub(crate) fn record_reload(&mut self, is_done: bool) {
        match is_done {
            true => self.reloaded += 1,
            false => self.refused += 1,
        }
    }

    /// Notes that the configuration changes now.
    pub(crate) fn record_change(&mut self) {
        // A clock before 1970 is wrong either way.
        self.last = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    }
}
