//! Processes that loads start in the namespaces of hosts: hidden commands of this program.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Context;
use crate::cores::LOAD_CORE;
use crate::host::Namespace;
use crate::process::{Process, Result, pinned, this_program, wait_until};

/// Time limit for a helper to start or end, and for a host to be reachable.
pub(super) const START: Duration = Duration::from_secs(20);
/// Warm-up for both ends, which is not counted.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);

/// Starts a hidden command of this program on the load core in a host's namespace.
pub(super) fn helper(host: &Namespace, arguments: &[&str]) -> Result<Process> {
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &host.0]).arg(this_program()?).args(arguments);
    Process::spawn(arguments[0], command)
}

/// Starts a helper and waits until it listens.
pub(super) fn start(host: &Namespace, arguments: &[&str]) -> Result<Process> {
    let mut process = helper(host, arguments)?;
    process.wait_for("listening", START)?;
    Ok(process)
}

/// Returns the figures that a helper prints when it ends.
pub(super) fn figures<const N: usize>(helper: Process, context: &Context) -> Result<[f64; N]> {
    let text = helper.finish(WARM_UP + Duration::from_secs(context.seconds) + START)?;
    let last = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    figures.try_into().map_err(|_| format!("expected {N} figures, got: {text}"))
}

/// Connects as soon as `address` is reachable.
pub(super) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut last = Err(format!("cannot connect to {address}"));
    // The last attempt's error is more useful than the timeout.
    let _ = wait_until("a connection", START, || {
        last = TcpStream::connect_timeout(&address, START).map_err(|e| format!("{address}: {e}"));
        last.is_ok()
    });
    last
}
