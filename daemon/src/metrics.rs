//! The Prometheus text that a scrape answers with.

use crate::state::Daemon;

/// The metrics as they are now, in the Prometheus text format.
pub fn render(daemon: &Daemon) -> String {
    let _ = daemon;
    String::new()
}
