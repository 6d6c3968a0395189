//! Datagrams through a NAT: its host sends as fast as it can, the server counts.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::flood::counter;
use super::stream::{figures, helper, start};
use super::{Context, Measured};
use crate::host::Namespace;
use crate::peers::End;
use crate::process::Result;
use crate::usage::Window;

/// The hidden command that [`source`]s, and the one that [`sink`]s.
pub const SOURCE_COMMAND: &str = "datagram-source";
/// See [`SOURCE_COMMAND`].
pub const SINK_COMMAND: &str = "datagram-sink";

const PORT: u16 = 5002;
const START: Duration = Duration::from_secs(20);
/// Time that is not counted, in which the NAT learns of the flow.
const WARM_UP: Duration = Duration::from_secs(1);
/// What the receiving socket may hold, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Datagrams between two looks at the clock.
const BATCH: u64 = 64;
const LARGEST: usize = 65_536;

/// The figure is bits a second of what was received; how much was lost is a detail.
pub fn measure(context: &Context, bytes: usize) -> Result<Measured> {
    let [End::Host(client), End::Host(server)] = &context.switch.ends[..] else {
        return Err("a host behind the NAT and a server are needed".into());
    };
    let (address, size) = (format!("{}:{PORT}", Namespace::address(1)), bytes.to_string());
    let mut sink = start(server, &[SINK_COMMAND, &address, &context.seconds.to_string()])?;
    let limit = START + WARM_UP + Duration::from_secs(context.seconds);
    let limit = limit.as_secs().to_string();
    let _source = helper(client, &[SOURCE_COMMAND, &address, &size, &limit])?;
    sink.wait_for("counting", START)?;
    let (pids, before) = (context.switch.pids(), counter(client, "tx")?);
    let window = Window::open(&pids);
    let [rate] = figures(sink, context)?;
    let usage = window.close();
    let sent = (counter(client, "tx")? - before) / usage.seconds;
    let lost = (1.0 - rate / sent).max(0.0) * 100.0;
    let details = [("sent_per_second".to_owned(), sent), ("lost_percent".to_owned(), lost)].into();
    Ok(Measured { value: rate * bytes as f64 * 8.0, details, usage, ceiling: None })
}

/// Sends for so many seconds, unless it is ended.
pub fn source(to: SocketAddr, bytes: usize, seconds: u64) -> Result<()> {
    let told = |e| format!("datagrams to {to}: {e}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(told)?;
    let (payload, end) = (vec![0; bytes], Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        for _ in 0..BATCH {
            // As long as there is no way, there is no harm in trying.
            let _ = socket.send_to(&payload, to);
        }
    }
    Ok(())
}

/// Counts what comes, from the first one on, and prints the datagrams a second.
pub fn sink(at: SocketAddr, seconds: u64) -> Result<()> {
    let told = |e: std::io::Error| format!("datagrams at {at}: {e}");
    let socket = UdpSocket::bind(at).map_err(told)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .map_err(|e| told(e.into()))?;
    socket.set_read_timeout(Some(START)).map_err(told)?;
    println!("listening");
    let mut buffer = vec![0; LARGEST];
    let mut count_for = |time: Duration| {
        let (begin, mut count) = (Instant::now(), 0_u32);
        while begin.elapsed() < time {
            socket.recv(&mut buffer).map_err(told)?;
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
