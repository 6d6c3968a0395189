//! The metrics of events.

use prometheus::Result;

use super::Families;
use crate::events::Totals;

pub(super) fn add(families: &mut Families, Totals { counts, lost }: Totals) -> Result<()> {
    families.counts(
        "trama_events_total",
        "Events by type.",
        ["type"],
        counts.iter().map(|(kind, count)| ([*kind], *count)),
    )?;
    families.counts(
        "trama_events_lost_total",
        "Events that readers have missed, because they read too slowly, and that gateways have left \
         out, because there were too many.",
        [],
        [([], lost)],
    )
}
