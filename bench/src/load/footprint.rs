//! Costs of the daemon apart from moving frames: idle, in memory, at its start.

use std::time::Duration;

use super::{Context, Measured, driven};
use crate::process::{Result, pause, run};
use crate::usage::{Usage, Window, own_memory, voluntary_switches};

/// Settling time after the start, for the daemon and for neighbour discovery on new devices.
const SETTLE: Duration = Duration::from_secs(3);
/// Duration of an idle measurement.
const IDLE: Duration = Duration::from_secs(10);
/// Ports added to measure the cost of one.
const ADDED_PORTS: usize = 100;
/// Addresses added to measure the cost of one.
const MACS: u32 = 1 << 20;

/// Measures the share of a core used with silent ports.
pub(super) fn idle_cpu(context: &Context) -> Result<Measured> {
    let (usage, _) = idle(context)?;
    Ok(Measured::of(usage.cores.unwrap_or_default(), usage))
}

/// Measures wake-ups a second with silent ports.
pub(super) fn idle_wakeups(context: &Context) -> Result<Measured> {
    let (usage, wakeups) = idle(context)?;
    Ok(Measured::of(wakeups as f64 / usage.seconds, usage))
}

fn idle(context: &Context) -> Result<(Usage, u64)> {
    let pid = daemon(context)?;
    pause(SETTLE)?;
    let pids = [pid];
    let before = voluntary_switches(pid);
    let window = Window::open(&pids);
    pause(IDLE)?;
    Ok((window.close(), voluntary_switches(pid) - before))
}

/// Measures the bytes of the daemon's memory, without that of guests.
pub(super) fn memory(context: &Context) -> Result<Measured> {
    pause(SETTLE)?;
    Ok(Measured::of(bytes(daemon(context)?)?, Usage::default()))
}

/// Measures the bytes that each additional TAP takes.
pub(super) fn memory_per_port(context: &Context) -> Result<Measured> {
    let pid = daemon(context)?;
    let before = memory(context)?.value;
    let ports = (0..ADDED_PORTS).map(|i| format!("f{i}")).collect::<Vec<_>>();
    let add = |port| ["--", "add-port", "bench", port, "--", "set", "Interface", port, "type=tap"];
    let arguments: Vec<_> = ports.iter().flat_map(|port| add(port.as_str())).skip(1).collect();
    tramactl(context, &arguments)?;
    pause(SETTLE)?;
    Ok(Measured::of((bytes(pid)? - before) / ADDED_PORTS as f64, Usage::default()))
}

/// Measures the bytes for each address, in a daemon whose small table is replaced by a large one.
pub(super) fn memory_per_mac(context: &Context) -> Result<Measured> {
    let pid = daemon(context)?;
    let before = memory(context)?.value;
    let size = format!("other_config:mac-table-size={MACS}");
    tramactl(context, &["set", "Bridge", "bench", &size])?;
    // One address fewer on each port than would fill the table, so that nothing is evicted.
    let _stations = driven::learn_stations(context, MACS / 2 - 1)?;
    pause(SETTLE)?;
    let added = bytes(pid)? - before;
    let known = tramactl(context, &["fdb/show", "bench"])?.lines().count();
    // Two stations may share a slot of the table.
    if known < (f64::from(MACS) * 0.95) as usize {
        return Err(format!("only {known} of {MACS} addresses were learned"));
    }
    Ok(Measured::of(added / known as f64, Usage::default()))
}

fn tramactl(context: &Context, arguments: &[&str]) -> Result<String> {
    let program = context.bin.join("tramactl");
    let socket = context.dir.join("control.sock");
    let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
    run(&program, &[&["--no-save", "--socket", &socket, "--"], arguments].concat())
}

/// Measures the seconds until the daemon reports that it is ready.
pub(super) fn ready(context: &Context) -> Result<Measured> {
    let time = context.switch.ready_after.ok_or("this switch does not report when it is ready")?;
    Ok(Measured::of(time.as_secs_f64(), Usage::default()))
}

fn daemon(context: &Context) -> Result<u32> {
    context.switch.pids().first().copied().ok_or_else(|| "this switch has no process".into())
}

fn bytes(pid: u32) -> Result<f64> {
    own_memory(pid).map(|n| n as f64).ok_or_else(|| format!("no /proc/{pid}/smaps_rollup"))
}
