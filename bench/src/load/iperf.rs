//! iperf3: TCP streams between hosts. Clients and servers share the load core.

use std::time::Duration;

use serde_json::Value;

use super::{Context, Measured};
use crate::host::Namespace;
use crate::peers::LOAD_CORE;
use crate::process::{Process, Result, pause, pinned};
use crate::usage::Window;

const START: Duration = Duration::from_secs(15);
/// Time for TCP to find its rate, which iperf3 leaves out.
const WARM_UP: u64 = 1;
/// How often a client may find that its server cannot be reached yet.
const ATTEMPTS: usize = 10;

/// A stream from every other host to the first; the figure is bits a second, all together.
pub fn fan_in(context: &Context) -> Result<Measured> {
    let hosts = context.switch.hosts();
    streams(context, hosts.iter().skip(1).map(|client| (*client, hosts[0], 0)))
}

/// A stream from the first host to every other; the figure is bits a second, all together.
pub fn fan_out(context: &Context) -> Result<Measured> {
    let hosts = context.switch.hosts();
    streams(context, (1..hosts.len()).map(|server| (hosts[0], hosts[server], server)))
}

/// A stream for each client and server with the server's number.
fn streams<'a>(
    context: &Context,
    pairs: impl Iterator<Item = (&'a Namespace, &'a Namespace, usize)>,
) -> Result<Measured> {
    let (mut servers, mut plans) = (Vec::new(), Vec::new());
    for (i, (client, server, number)) in pairs.enumerate() {
        let port = 5201 + i as u16;
        servers.push(serve(Some(server), port)?);
        plans.push((client, Namespace::address(number), port));
    }
    for (client, address, _) in &plans {
        wait_for_reach(client, address)?;
    }
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let clients = plans.iter().map(|(client, address, port)| {
        let mut command = pinned(LOAD_CORE, "ip");
        command.args(["netns", "exec", &client.0, "iperf3", "-J", "-c", address]);
        command.args(["-p", &port.to_string(), "-t", &context.seconds.to_string()]);
        command.args(["-O", &WARM_UP.to_string()]);
        Process::spawn("iperf3 (client)", command)
    });
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let mut sum = Measured::default();
    for client in clients {
        let limit = Duration::from_secs(context.seconds + WARM_UP) + START;
        let report = report(&client.finish(limit)?)?;
        sum.value += report.value;
        *sum.details.entry("retransmits".into()).or_default() += report.details["retransmits"];
    }
    sum.usage = window.close();
    Ok(sum)
}

/// A server for one test; in the benchmark's own namespace if none is given.
pub fn serve(host: Option<&Namespace>, port: u16) -> Result<Process> {
    let port = port.to_string();
    let arguments = ["iperf3", "-s", "-1", "--forceflush", "-p", &port];
    let mut command = pinned(LOAD_CORE, if host.is_some() { "ip" } else { arguments[0] });
    match host {
        Some(host) => command.args(["netns", "exec", &host.0]).args(arguments),
        None => command.args(&arguments[1..]),
    };
    let mut server = Process::spawn("iperf3 (server)", command)?;
    server.wait_for("Server listening", START)?;
    Ok(server)
}

/// Waits until the host answers: ports of the bridge may still be learning.
pub fn wait_for_reach(from: &Namespace, address: &str) -> Result<()> {
    let ping = ["netns", "exec", &from.0, "ping", "-c", "1", "-W", "1", address];
    for _ in 0..ATTEMPTS {
        if crate::process::run("ip", &ping).is_ok() {
            return Ok(());
        }
        pause(Duration::from_millis(100))?;
    }
    Err(format!("{} cannot reach {address} through the switch", from.0))
}

/// The received rate in a client's JSON report.
pub fn report(text: &str) -> Result<Measured> {
    let report: Value = serde_json::from_str(text).map_err(|e| format!("iperf3's report: {e}"))?;
    let end = &report["end"];
    let value = end["sum_received"]["bits_per_second"]
        .as_f64()
        .ok_or_else(|| format!("iperf3's report names no received rate: {}", report["error"]))?;
    let retransmits = end["sum_sent"]["retransmits"].as_f64().unwrap_or(0.0);
    let details = [("retransmits".to_owned(), retransmits)].into();
    Ok(Measured { value, details, ..Measured::default() })
}
