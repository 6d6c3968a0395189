//! Flooding between hosts: one sends broadcast datagrams as fast as it can, all others count.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::{Context, Measured, wait_for_reach};
use crate::cores::LOAD_CORE;
use crate::host::Namespace;
use crate::process::{Process, Result, pause, pinned, run, this_program};
use crate::usage::Window;

/// The hidden command that runs [`broadcast_source`].
pub(crate) const COMMAND: &str = "broadcast-source";
/// With the headers, a frame of 60 bytes.
const PAYLOAD: [u8; 18] = [0; 18];
/// Datagrams between two clock readings.
const BATCH: u64 = 256;

/// Measures the frames a second that arrive, all receivers together.
pub(super) fn broadcast(context: &Context) -> Result<Measured> {
    let hosts = context.switch.hosts();
    let (sender, receivers) = (hosts[0], &hosts[1..]);
    wait_for_reach(sender, &Namespace::address(1))?;
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &sender.0]).arg(this_program()?);
    command.args([COMMAND, "10.77.0.255:9", &(context.seconds + 5).to_string()]);
    let _source = Process::spawn("the datagram generator", command)?;
    pause(Duration::from_millis(500))?;
    let pids = context.switch.pids();
    let before = (counter(sender, "tx")?, received(receivers)?);
    let window = Window::open(&pids);
    pause(Duration::from_secs(context.seconds))?;
    let after = (counter(sender, "tx")?, received(receivers)?);
    let usage = window.close();
    let sent = (after.0 - before.0) / usage.seconds;
    let value = (after.1 - before.1) / usage.seconds;
    if value == 0.0 {
        return Err("no broadcast arrived".into());
    }
    let details = [("sent_per_second".to_owned(), sent)].into();
    Ok(Measured { value, details, usage, ceiling: Some(sent * receivers.len() as f64) })
}

fn received(hosts: &[&Namespace]) -> Result<f64> {
    hosts.iter().map(|host| counter(host, "rx")).sum()
}

/// Returns the frames that a host's device sent ("tx", including those dropped at a full queue) or
/// received.
pub(super) fn counter(host: &Namespace, direction: &str) -> Result<f64> {
    let text = run("ip", &["-n", &host.0, "-s", "-j", "link"])?;
    let links: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| format!("`ip -s -j link`: {e}"))?;
    let device = links.as_array().into_iter().flatten().find(|link| link["ifname"] != "lo");
    let count = |name: &str| device.and_then(|d| d["stats64"][direction][name].as_f64());
    let lost = if direction == "tx" { count("dropped").unwrap_or(0.0) } else { 0.0 };
    count("packets").map(|n| n + lost).ok_or_else(|| format!("{} has no counters", host.0))
}

/// Sends datagrams to a broadcast address for this many seconds.
pub(crate) fn broadcast_source(to: &str, seconds: u64) -> Result<()> {
    let failed = |e| format!("datagrams to {to}: {e}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.set_broadcast(true).map_err(failed)?;
    socket.connect(to).map_err(failed)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for _ in 0..BATCH {
            // A full queue is back-pressure of the switch; the device counts the drop.
            let _ = socket.send(&PAYLOAD);
        }
    }
    Ok(())
}
