//! TCP streams through a switch or a NAT. Both ends share a core, so they are as light as possible
//! and the switch remains the bottleneck.
//!
//! On a vhost-user port trama's driver side sends or receives, with segments of 64 KiB. A receiving
//! host lets the kernel discard the bytes without copying them. A sending host writes the same
//! [`WRITE_SIZE`] repeatedly, which stays in its cache. Sending pages of a file was no lighter:
//! `sendfile` looks each page up and took half as long again; a pipe was no faster than the copy,
//! and the switch would find the data in its own cache, unlike that of any real program. TAPs copy
//! zero-copy sends.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};
use trama_bench::generator::{TcpEnd, TcpStream as DriverStream, Transfer};

use super::helpers::{START, WARM_UP, connect, figures, helper, start};
use super::{Context, Measured, Sender, idle, wait_for_reach};
use crate::host::Namespace;
use crate::peers::End;
use crate::process::{Process, Result, run, wait_until};
use crate::usage::Window;

/// The hidden commands that run [`source`] and [`sink`].
pub(crate) const SOURCE_COMMAND: &str = "stream-source";
/// See [`SOURCE_COMMAND`].
pub(crate) const SINK_COMMAND: &str = "stream-sink";

const PORT: u16 = 5001;
/// The locally administered address of the driver's port.
const DRIVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Printed by a sink when its measurement begins.
const COUNTING: &str = "counting";
/// Default size of a write, and size of a read, in bytes.
pub(crate) const WRITE_SIZE: usize = 256 << 10;
/// How long a receiver waits after it has read everything.
const POLL_INTERVAL: Duration = Duration::from_micros(50);
/// Size of a receiving socket's buffer in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Measures bits a second.
pub(super) fn tcp(context: &Context) -> Result<Measured> {
    let [from, to] = &context.switch.ends[..] else {
        return Err("this load needs two ports".into());
    };
    match (from, to) {
        (End::Vhost { .. }, End::Host(host)) => driver_sends(context, from, host),
        (End::Host(host), End::Vhost { .. }) => driver_receives(context, host, to),
        (End::Host(_), End::Host(_)) => fan_out(context),
        _ => Err("this load needs two hosts, or a host and a vhost-user port".into()),
    }
}

/// Measures streams from every other host to the first, in bits a second, all together.
pub(super) fn fan_in(context: &Context) -> Result<Measured> {
    let [first, others @ ..] = &context.switch.hosts()[..] else {
        return Err("this load needs hosts".into());
    };
    let (at, seconds) = (at(0), context.seconds.to_string());
    wait_for_first_host(others)?;
    let sink = start(first, &[SINK_COMMAND, &at, &seconds, &number_of(others)])?;
    let source = |host: &&Namespace| helper(host, &[SOURCE_COMMAND, &at, "--connect"]);
    let _sources = others.iter().map(source).collect::<Result<Vec<_>>>()?;
    count(context, vec![sink])
}

/// Measures streams from the first host to every other, in bits a second, all together.
pub(super) fn fan_out(context: &Context) -> Result<Measured> {
    let [first, others @ ..] = &context.switch.hosts()[..] else {
        return Err("this load needs hosts".into());
    };
    let (at, seconds) = (at(0), context.seconds.to_string());
    wait_for_first_host(others)?;
    let _source = start(first, &[SOURCE_COMMAND, &at, &number_of(others)])?;
    let sink = |host: &&Namespace| helper(host, &[SINK_COMMAND, &at, &seconds, "--connect"]);
    let sinks = others.iter().map(sink).collect::<Result<Vec<_>>>()?;
    count(context, sinks)
}

/// Waits until each of these hosts reaches the first one.
fn wait_for_first_host(hosts: &[&Namespace]) -> Result<()> {
    hosts.iter().try_for_each(|host| wait_for_reach(host, &Namespace::address(0)))
}

fn number_of(streams: &[&Namespace]) -> String {
    format!("--streams={}", streams.len())
}

/// Measures what these sinks receive, and its cost to the switch.
fn count(context: &Context, mut sinks: Vec<Process>) -> Result<Measured> {
    let pids = context.switch.pids();
    for sink in &mut sinks {
        sink.wait_for(COUNTING, START + WARM_UP)?;
    }
    let window = Window::open(&pids);
    let rates = sinks.into_iter().map(|sink| result(sink, context)).collect::<Result<Vec<_>>>()?;
    Ok(Measured::of(rates.iter().sum(), window.close()))
}

fn driver_sends(context: &Context, from: &End, to: &Namespace) -> Result<Measured> {
    let sink = start(to, &[SINK_COMMAND, &at(1), &context.seconds.to_string()])?;
    let mut stream = driver(from, 0, to, 1)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    // The sink closes the connection.
    stream.send(WARM_UP + Duration::from_secs(context.seconds) + START).map_err(describe)?;
    let usage = window.close();
    Ok(Measured::of(result(sink, context)?, usage))
}

fn driver_receives(context: &Context, from: &Namespace, to: &End) -> Result<Measured> {
    let _source = start(from, &[SOURCE_COMMAND, &at(0)])?;
    let mut stream = driver(to, 1, from, 0)?;
    stream.receive(WARM_UP).map_err(describe)?;
    let pids = context.switch.pids();
    let (window, begin) = (Window::open(&pids), Instant::now());
    let bytes = stream.receive(Duration::from_secs(context.seconds)).map_err(describe)?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Measured::of(bytes as f64 * 8.0 / seconds, window.close()))
}

/// Returns the address at which host `number` serves.
fn at(number: usize) -> String {
    format!("{}:{PORT}", Namespace::address(number))
}

/// Connects trama's driver side, as host `near`, to `host`, which is number `far`.
fn driver(port: &End, near: usize, host: &Namespace, far: usize) -> Result<DriverStream> {
    let End::Vhost { socket, backend_role } = port else {
        return Err("this load needs a vhost-user port".into());
    };
    // A static neighbour entry: this driver does not speak ARP.
    let (address, device) = (Namespace::address(near), "eth0");
    let mac = DRIVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let neighbour = ["neigh", "replace", &address, "lladdr", &mac, "dev", device];
    run("ip", &[&["-n", &host.0], &neighbour[..]].concat())?;
    let ends = [
        TcpEnd { mac: DRIVER_MAC, address: ipv4(near)?, port: PORT + 1 },
        TcpEnd { mac: mac_of(host, device)?, address: ipv4(far)?, port: PORT },
    ];
    // Host 0 sends: the ports are in that order.
    let transfer = if near == 0 { Transfer::Send } else { Transfer::Receive };
    DriverStream::connect(socket, *backend_role, ends, transfer).map_err(describe)
}

fn ipv4(number: usize) -> Result<Ipv4Addr> {
    Namespace::address(number).parse().map_err(|e| format!("host {number}'s address: {e}"))
}

fn mac_of(host: &Namespace, device: &str) -> Result<[u8; 6]> {
    let path = format!("/sys/class/net/{device}/address");
    let text = run("ip", &["netns", "exec", &host.0, "cat", &path])?;
    let bytes = text.trim().split(':').map(|part| u8::from_str_radix(part, 16));
    let bytes: Vec<u8> = bytes.collect::<std::result::Result<_, _>>().unwrap_or_default();
    bytes.try_into().map_err(|_| format!("{device} in {} has no MAC address: {text}", host.0))
}

/// Measures concurrent streams between the first host, behind a NAT, and the second, in writes of
/// this size. The first host opens the connections.
pub(super) fn through_nat(
    context: &Context,
    streams: usize,
    write: usize,
    sender: Sender,
) -> Result<Measured> {
    let [End::Host(client), End::Host(server)] = &context.switch.ends[..] else {
        return Err("this load needs a host behind the NAT and a server".into());
    };
    let _idle = idle::flows(context, client, server)?;
    let (streams, seconds) = (format!("--streams={streams}"), context.seconds.to_string());
    let (server_at, write) = (at(1), format!("--write={write}"));
    let sink = [SINK_COMMAND, &server_at, &seconds, &streams];
    let source = [SOURCE_COMMAND, &server_at, &streams, &write];
    let connecting = |arguments: &[&str]| helper(client, &[arguments, &["--connect"]].concat());
    let (_source, sink) = if sender == Sender::Server {
        (start(server, &source)?, connecting(&sink)?)
    } else {
        let sink = start(server, &sink)?;
        (connecting(&source)?, sink)
    };
    count(context, vec![sink])
}

/// Returns the rate that a sink prints when it ends.
fn result(sink: Process, context: &Context) -> Result<f64> {
    figures(sink, context).map(|[rate]| rate)
}

/// The connections of a helper.
#[derive(clap::Args)]
pub(crate) struct Streams {
    /// Where it connects to, or listens.
    address: SocketAddr,
    /// Whether it connects.
    #[arg(long)]
    connect: bool,
    /// How many there are.
    #[arg(long, default_value_t = 1)]
    streams: usize,
}

impl Streams {
    fn open(&self) -> Result<Vec<TcpStream>> {
        if self.connect {
            return (0..self.streams).map(|_| connect(self.address)).collect();
        }
        let listener = listen(self.address)?;
        let accept = |_| listener.accept().map(|(stream, _)| stream);
        let streams: std::io::Result<_> = (0..self.streams).map(accept).collect();
        streams.map_err(|e| format!("{}: {e}", self.address))
    }
}

/// Writes pieces of this size to every peer until the peer closes.
pub(crate) fn source(streams: &Streams, write: usize) -> Result<()> {
    let buffer = vec![0; write];
    thread::scope(|scope| {
        for mut stream in streams.open()? {
            // Small writes are sent as small segments.
            stream.set_nodelay(true).map_err(|e| format!("TCP_NODELAY: {e}"))?;
            let buffer = &buffer;
            scope.spawn(move || while stream.write_all(buffer).is_ok() {});
        }
        Ok(())
    })
}

/// Receives for a while and prints the bits a second, all streams together.
pub(crate) fn sink(streams: &Streams, seconds: u64) -> Result<()> {
    let streams = streams.open()?;
    let received = &AtomicU64::new(0);
    thread::scope(|scope| {
        let discard = |stream| scope.spawn(move || discard(stream, received));
        let threads: Vec<_> = streams.iter().map(discard).collect();
        let rate = rate(received, Duration::from_secs(seconds));
        let is_cut = threads.iter().any(ScopedJoinHandle::is_finished);
        for stream in &streams {
            // Fails if the peer closed first.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if is_cut {
            return Err("a stream closed early".into());
        }
        println!("{}", rate?);
        Ok(())
    })
}

/// Converts a byte count to bits a second.
fn rate(received: &AtomicU64, time: Duration) -> Result<f64> {
    wait_until("the first bytes", START, || received.load(Ordering::Relaxed) > 0)?;
    thread::sleep(WARM_UP);
    println!("{COUNTING}");
    let (begin, before) = (Instant::now(), received.load(Ordering::Relaxed));
    thread::sleep(time);
    let bytes = received.load(Ordering::Relaxed) - before;
    Ok(bytes as f64 * 8.0 / begin.elapsed().as_secs_f64())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))?;
    // A fixed size: the kernel's buffer tuning should not be measured.
    sockopt::set_socket_recv_buffer_size_force(&listener, RECEIVE_BUFFER)
        .map_err(|e| format!("SO_RCVBUFFORCE: {e}"))?;
    println!("listening");
    Ok(listener)
}

/// Lets the kernel discard received data (MSG_TRUNC copies none), and counts the bytes until the
/// end. Polls at intervals instead of waking for each segment: on another core than the switch's,
/// the wake-ups would be a third of the switch's measured work.
fn discard(stream: &TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; WRITE_SIZE];
    while let Ok((_, count @ 1..)) = recv(stream, &mut buffer[..], RecvFlags::TRUNC) {
        received.fetch_add(count as u64, Ordering::Relaxed);
        if count < WRITE_SIZE {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

fn describe(error: trama_bench::generator::Error) -> String {
    error.to_string()
}
