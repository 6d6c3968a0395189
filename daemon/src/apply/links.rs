//! Ports on interfaces that exist without them: they join, lose and find them again.

use std::collections::HashSet;

use super::DataPlane;
use crate::config::model::{Config, Interface, Port};
use crate::links::Waits;

impl DataPlane {
    /// Watches what a port's device depends on: the links of its namespace, if it joins an
    /// interface, and the process whose namespace its path names. A port that cannot be watched is
    /// tried again by time.
    pub(super) fn watch_links(&mut self, port: &Port) {
        let joins = matches!(port.interface, Interface::System(_) | Interface::Uplink(_));
        let netns = port.interface.netns();
        if !joins && !netns.is_some_and(|netns| netns.starts_with('/')) {
            return;
        }
        let open = || self.rights.link_events(netns);
        let place = netns.unwrap_or_default();
        if let Err(reason) = self.links.watch(&port.name, place, &self.event, open) {
            tracing::debug!("port {}: its interface is tried by time: {reason}", port.name);
        }
    }

    /// Notes that a port waits for its link, unless no change of it would be heard.
    pub(super) fn wait_for_link(&mut self, port: &Port) {
        if self.links.is_watched(&port.name) {
            self.links.wait(&port.name, Waits::Link);
        }
    }

    /// Tries the ports again that wait for a link, after one has changed, and removes those whose
    /// namespace's process has ended.
    pub fn follow_links(&mut self, config: &Config) {
        let ended: HashSet<String> = self.links.take_ended().into_iter().collect();
        let due = self.links.take_due();
        if ended.is_empty() && due.is_empty() {
            return;
        }
        for port in config.all_ports() {
            let netns = port.interface.netns().filter(|netns| ended.contains(*netns));
            if let Some(netns) = netns {
                self.remove_port(&port.name);
                self.fail(
                    &port.name,
                    format_args!(
                        "the process of network namespace {netns} has ended; give options:netns \
                         that of one that runs"
                    ),
                );
                self.links.wait(&port.name, Waits::Command);
            } else if due.contains(&port.name) {
                self.add_port(&port);
            }
        }
    }

    /// Has all ports tried that wait for a link or a command.
    pub fn try_waiting(&mut self, config: &Config) {
        self.links.try_all_soon();
        self.follow_links(config);
    }

    /// Returns whether some port that does not run waits for time, and for no event.
    pub fn retries_by_time(&self) -> bool {
        self.failed.keys().any(|port| !self.links.is_waiting(port))
    }
}
