//! Datagrams through a NAT: a host sends at a rate or as fast as it can, the server counts.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::flood::counter;
use super::helpers::{figures, helper, start};
use super::{Context, Measured};
use crate::host::Namespace;
use crate::peers::End;
use crate::process::Result;
use crate::usage::Window;

/// The hidden commands that run [`source`] and [`sink`].
pub(crate) const SOURCE_COMMAND: &str = "datagram-source";
/// See [`SOURCE_COMMAND`].
pub(crate) const SINK_COMMAND: &str = "datagram-sink";

const PORT: u16 = 5002;
const START: Duration = Duration::from_secs(20);
/// Warm-up that is not counted, in which the NAT creates the flow.
const WARM_UP: Duration = Duration::from_secs(1);
/// Size of the receiving socket's buffer in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Datagrams between two clock readings.
const BATCH: u64 = 64;
const LARGEST: usize = 65_536;

/// Measures received bits a second; the loss is a detail. With `each_second`, measures the
/// percentage of those datagrams that arrived.
pub(super) fn measure(
    context: &Context,
    bytes: usize,
    each_second: Option<u32>,
) -> Result<Measured> {
    let [End::Host(client), End::Host(server)] = &context.switch.ends[..] else {
        return Err("this load needs a host behind the NAT and a server".into());
    };
    let (address, size) = (format!("{}:{PORT}", Namespace::address(1)), bytes.to_string());
    let mut sink = start(server, &[SINK_COMMAND, &address, &context.seconds.to_string()])?;
    let limit = START + WARM_UP + Duration::from_secs(context.seconds);
    let limit = limit.as_secs().to_string();
    let pace = each_second.map(|count| format!("--each-second={count}"));
    let mut source = vec![SOURCE_COMMAND, &address, &size, &limit];
    source.extend(pace.as_deref());
    let _source = helper(client, &source)?;
    sink.wait_for("counting", START)?;
    let (pids, before) = (context.switch.pids(), counter(client, "tx")?);
    let window = Window::open(&pids);
    let [rate] = figures(sink, context)?;
    let usage = window.close();
    let sent = (counter(client, "tx")? - before) / usage.seconds;
    let lost = (1.0 - rate / sent).max(0.0) * 100.0;
    let details = [("sent_per_second".to_owned(), sent), ("lost_percent".to_owned(), lost)].into();
    let value = if each_second.is_some() { 100.0 - lost } else { rate * bytes as f64 * 8.0 };
    Ok(Measured { value, details, usage, ceiling: None })
}

/// Sends for this many seconds, unless terminated.
pub(crate) fn source(
    to: SocketAddr,
    bytes: usize,
    seconds: u64,
    each_second: Option<u32>,
) -> Result<()> {
    let describe = |e| format!("datagrams to {to}: {e}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(describe)?;
    let (payload, mut due) = (vec![0; bytes], Instant::now());
    let (end, step) = (due + Duration::from_secs(seconds), each_second.map(step));
    while Instant::now() < end {
        if let Some(step) = step {
            // A pause of the machine is not made up for: that would be a burst.
            due = (due + step).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        for _ in 0..BATCH {
            // Errors do not matter while there is no route yet.
            let _ = socket.send_to(&payload, to);
        }
    }
    Ok(())
}

/// Returns the time from one batch to the next.
fn step(each_second: u32) -> Duration {
    Duration::from_secs_f64(BATCH as f64 / f64::from(each_second))
}

/// Counts datagrams from the first one on, and prints their rate a second.
pub(crate) fn sink(at: SocketAddr, seconds: u64) -> Result<()> {
    let describe = |e: std::io::Error| format!("datagrams at {at}: {e}");
    let socket = UdpSocket::bind(at).map_err(describe)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .map_err(|e| describe(e.into()))?;
    socket.set_read_timeout(Some(START)).map_err(describe)?;
    println!("listening");
    let mut buffer = vec![0; LARGEST];
    let mut count_for = |time: Duration| {
        let (begin, mut count) = (Instant::now(), 0_u32);
        while begin.elapsed() < time {
            socket.recv(&mut buffer).map_err(describe)?;
            count += 1;
        }
        Ok::<_, String>(f64::from(count) / begin.elapsed().as_secs_f64())
    };
    count_for(Duration::from_nanos(1))?;
    count_for(WARM_UP)?;
    println!("counting");
    println!("{}", count_for(Duration::from_secs(seconds))?);
    Ok(())
}
