//! What happens by itself: devices vanish and come back, links and namespaces change, connections
//! come and go.

use super::{Daemon, Inner};
use crate::config::model::Config;
use crate::plan::plan;
use crate::streams::Changes;

impl Daemon {
    /// Stops ports whose devices have vanished, follows storms and loops, namespaces that were
    /// created again, links that ports wait for and connections of stream ports, and moves a
    /// network off a loaded worker if that balances the load.
    pub fn handle_events(&self) {
        let mut inner = self.lock_to_change();
        let deleted = inner.data_plane.take_faults();
        inner.end_ports(&deleted);
        inner.data_plane.follow_floods(self.started.elapsed());
        inner.follow_namespaces();
        inner.follow_links();
        inner.follow_connections();
        inner.data_plane.balance(self.started);
    }
}

impl Inner {
    fn follow_namespaces(&mut self) {
        let Self { config, data_plane, .. } = self;
        data_plane.follow_namespaces(&config.expanded());
    }

    fn follow_links(&mut self) {
        let Self { config, data_plane, .. } = self;
        data_plane.follow_links(&config.expanded());
    }

    pub(super) fn try_waiting(&mut self) {
        let Self { config, data_plane, .. } = self;
        data_plane.try_waiting(&config.expanded());
    }

    /// Adds a port for each further connection that was accepted, and removes those that end with
    /// their connections.
    fn follow_connections(&mut self) {
        let Changes { arrivals, ended } = self.data_plane.streams.take_changes();
        if arrivals.is_empty() && ended.is_empty() {
            return;
        }
        let mut draft = self.config.clone();
        draft.ports.retain(|port| !(port.ends_with_connection() && ended.contains(&port.name)));
        let mut added = Vec::new();
        for arrival in arrivals {
            match draft.free_connection(&arrival.port) {
                Some(port) => {
                    added.push(port.name.clone());
                    self.data_plane.streams.give(&port.name, arrival);
                    draft.ports.push(port);
                }
                None => arrival.refuse(),
            }
        }
        self.change(draft);
        // One that cannot run has no connection, and so is none.
        let failed: Vec<_> =
            added.into_iter().filter(|it| self.data_plane.failed.contains_key(it)).collect();
        if !failed.is_empty() {
            let mut draft = self.config.clone();
            draft.ports.retain(|port| !failed.contains(&port.name));
            failed.iter().for_each(|name| self.data_plane.streams.remove(name));
            self.change(draft);
        }
    }

    fn change(&mut self, draft: Config) {
        let steps = plan(&self.config, &draft);
        self.change_to(draft, &steps);
    }

    pub(super) fn retry(&mut self) {
        let Self { config, data_plane, .. } = self;
        data_plane.retry(&config.expanded());
    }
}
