//! The metrics of networks, workers and the daemon itself.

use prometheus::Result;

use super::Families;
use crate::crashes::Restarts;
use crate::panics;
use crate::status::Status;

pub(super) fn add(families: &mut Families, status: &Status) -> Result<()> {
    add_networks(families, status)?;
    add_mirrors(families, status)?;
    add_workers(families, status)?;
    add_daemon(families, status)
}

fn add_networks(families: &mut Families, status: &Status) -> Result<()> {
    let networks = &status.networks;
    families.gauges(
        "trama_mac_entries",
        "MAC addresses that are known; a full table (`mac-table-size`) floods.",
        ["network"],
        networks.iter().map(|it| ([it.name.as_str()], it.mac_entries as u64)),
    )?;
    families.counts(
        "trama_mac_moves_total",
        "Times that a MAC address moved to another port; thousands a second are a loop.",
        ["network"],
        networks.iter().map(|it| ([it.name.as_str()], it.mac_moves)),
    )?;
    families.gauges(
        "trama_network_worker",
        "Number of the worker it is on.",
        ["network"],
        networks.iter().map(|it| ([it.name.as_str()], it.worker as u64)),
    )?;
    families.seconds(
        "trama_network_busy_seconds_total",
        "Time that workers spent on its frames.",
        ["network"],
        networks.iter().map(|it| ([it.name.as_str()], it.busy.as_secs_f64())),
    )
}

fn add_mirrors(families: &mut Families, status: &Status) -> Result<()> {
    let mirrors = || status.mirrors.iter().map(|it| ([&*it.network, &*it.name], it.counters));
    let labels = ["network", "mirror"];
    families.counts(
        "trama_mirror_frames_total",
        "Copies that the mirror's output took.",
        labels,
        mirrors().map(|(of, counters)| (of, counters.frames)),
    )?;
    families.counts(
        "trama_mirror_bytes_total",
        "Bytes of these copies.",
        labels,
        mirrors().map(|(of, counters)| (of, counters.bytes)),
    )?;
    families.counts(
        "trama_mirror_lost_total",
        "Copies that the output did not take; the drops of its port say why.",
        labels,
        mirrors().map(|(of, counters)| (of, counters.lost)),
    )
}

fn add_workers(families: &mut Families, status: &Status) -> Result<()> {
    let names: Vec<String> = status.workers.iter().map(|it| it.worker.to_string()).collect();
    let workers = || names.iter().map(String::as_str).zip(&status.workers);
    families.seconds(
        "trama_worker_busy_seconds_total",
        "Time that the worker spent on frames; near 1 a second it is at its limit: spread its \
         networks with more `workers`.",
        ["worker"],
        workers().map(|(name, it)| ([name], it.busy.as_secs_f64())),
    )?;
    families.counts(
        "trama_worker_wakeups_total",
        "Times the worker woke.",
        ["worker"],
        workers().map(|(name, it)| ([name], it.wakeups)),
    )?;
    families.counts(
        "trama_worker_bursts_total",
        "Bursts of frames taken.",
        ["worker"],
        workers().map(|(name, it)| ([name], it.bursts)),
    )
}

fn add_daemon(families: &mut Families, status: &Status) -> Result<()> {
    let Restarts { crash, killed, upgrade } = status.restarts;
    families.counts(
        "trama_switch_restarts_total",
        "Times that a process has followed another one as the switch, by the other one's end. \
         After a crash, the log has the cause.",
        ["reason"],
        [(["crash"], crash), (["killed"], killed), (["upgrade"], upgrade)],
    )?;
    let version = env!("CARGO_PKG_VERSION");
    let help = "1; the labels tell the build.";
    families.gauges("trama_build_info", help, ["version"], [([version], 1)])?;
    families.counts(
        "trama_api_failures_total",
        "Requests to the control API that failed inside the daemon; the log has each.",
        [],
        [([], panics::tolerated())],
    )?;
    let changes = &status.changes;
    families.counts(
        "trama_config_reloads_total",
        "Reloads of the configuration file; the log has what was wrong with those refused.",
        ["result"],
        [(["done"], changes.reloaded), (["refused"], changes.refused)],
    )?;
    families.gauges(
        "trama_config_last_change_timestamp_seconds",
        "When the configuration in force last changed, in seconds since 1970.",
        [],
        [([], changes.last.as_secs())],
    )
}
