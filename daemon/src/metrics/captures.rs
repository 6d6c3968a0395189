//! The metrics of captures.

use prometheus::Result;

use super::Families;
use crate::captures::Totals;

pub(super) fn add(families: &mut Families, totals: Totals) -> Result<()> {
    families.gauges("trama_captures", "Captures that run.", [], [([], totals.running)])?;
    families.counts(
        "trama_capture_frames_total",
        "Frames that captures have taken.",
        [],
        [([], totals.frames)],
    )?;
    families.counts(
        "trama_capture_missed_total",
        "Frames that captures have missed, because their clients read too slowly, or their ring.",
        [],
        [([], totals.missed)],
    )
}
