//! The metrics of exports.

use prometheus::Result;

use super::Families;
use crate::export::{Exports, Protocol};

pub(super) fn add(families: &mut Families, exports: &Exports) -> Result<()> {
    let totals = Protocol::ALL.map(|protocol| (protocol, exports.totals(protocol)));
    // A protocol by which nothing was exported says nothing.
    let totals = || totals.iter().filter(|(_, totals)| *totals != (0, 0));
    families.counts(
        "trama_export_records_total",
        "Samples of sFlow and flow records of IPFIX that were sent to a collector.",
        ["protocol"],
        totals().map(|(protocol, (records, _))| ([protocol.name()], *records)),
    )?;
    families.counts(
        "trama_export_lost_total",
        "Samples and flow records that were lost: no room in a queue, or no collector took them.",
        ["protocol"],
        totals().map(|(protocol, (_, lost))| ([protocol.name()], *lost)),
    )
}
