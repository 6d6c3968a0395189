//! Processes that loads start in the namespaces of hosts: hidden commands of this program.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Context;
use crate::cores::LOAD_CORE;
use crate::host::Namespace;
use crate::process::{Process, Result, pinned, this_program, wait_until};

/// How long a helper may take to start or end, and a host to be reached.
pub const START: Duration = Duration::from_secs(20);
/// Time for both ends to find their rate, which is not counted.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// A hidden command of this program, on the load core, in a host's namespace.
pub fn helper(host: &Namespace, arguments: &[&str]) -> Result<Process> {
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", &host.0]).arg(this_program()?).args(arguments);
    Process::spawn(arguments[0], command)
}

/// A helper that has said that it listens.
pub fn start(host: &Namespace, arguments: &[&str]) -> Result<Process> {
    let mut process = helper(host, arguments)?;
    process.wait_for("listening", START)?;
    Ok(process)
}

/// What a helper prints when it ends.
pub fn figures<const N: usize>(helper: Process, context: &Context) -> Result<[f64; N]> {
    let text = helper.finish(WARM_UP + Duration::from_secs(context.seconds) + START)?;
    let last = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    figures.try_into().map_err(|_| format!("{N} figures were expected: {text}"))
}

/// Connects as soon as there is a way to `address`.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut last = Err(format!("no way to {address}"));
    // The last attempt's error says more than that time is up.
    let _ = wait_until("a connection", START, || {
        last = TcpStream::connect_timeout(&address, START).map_err(|e| format!("{address}: {e}"));
        last.is_ok()
    });
    last
}
