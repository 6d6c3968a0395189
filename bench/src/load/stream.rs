//! One TCP stream through the switch, from the first port to the second: on a vhost-user port our own
//! driver side with segments of 64 KiB, on any other the host's TCP with large writes. A host that
//! receives has the kernel drop the bytes, so that nobody copies them out.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};
use trama_bench::generator::{TcpEnd, TcpStream as DriverStream};

use super::{Context, Measured};
use crate::host::Namespace;
use crate::peers::{End, LOAD_CORE};
use crate::process::{Process, Result, pinned, run, this_program, wait_until};
use crate::usage::Window;

/// The hidden command that [`source`]s, and the one that [`sink`]s.
pub const SOURCE_COMMAND: &str = "stream-source";
/// See [`SOURCE_COMMAND`].
pub const SINK_COMMAND: &str = "stream-sink";

const PORT: u16 = 5001;
/// The locally administered address of the driver's port.
const DRIVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const START: Duration = Duration::from_secs(20);
/// Time for both ends to find their rate, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of one write, and of one read.
const PIECE: usize = 256 << 10;
/// What a receiving socket may hold, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The figure is bits a second.
pub fn tcp(context: &Context) -> Result<Measured> {
    let [from, to] = &context.switch.ends[..] else {
        return Err("a stream has two ends".into());
    };
    match (from, to) {
        (End::Vhost { .. }, End::Host(host)) => driver_sends(context, from, host),
        (End::Host(host), End::Vhost { .. }) => driver_receives(context, host, to),
        (End::Host(from), End::Host(to)) => hosts(context, from, to),
        _ => Err("the ends of a stream are hosts, or one is a vhost-user port".into()),
    }
}

fn hosts(context: &Context, from: &Namespace, to: &Namespace) -> Result<Measured> {
    super::iperf::wait_for_reach(to, &Namespace::address(0))?;
    let _source = start(from, &[SOURCE_COMMAND, &at(0)])?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let sink = helper(to, &[SINK_COMMAND, &at(0), &context.seconds.to_string(), "--connect"])?;
    let value = result(sink, context)?;
    Ok(Measured::of(value, window.close()))
}

fn driver_sends(context: &Context, from: &End, to: &Namespace) -> Result<Measured> {
    let sink = start(to, &[SINK_COMMAND, &at(1), &context.seconds.to_string()])?;
    let mut stream = driver(from, 0, to, 1)?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    // The sink ends it.
    stream.send(WARM_UP + Duration::from_secs(context.seconds) + START).map_err(told)?;
    let usage = window.close();
    Ok(Measured::of(result(sink, context)?, usage))
}

fn driver_receives(context: &Context, from: &Namespace, to: &End) -> Result<Measured> {
    let _source = start(from, &[SOURCE_COMMAND, &at(0)])?;
    let mut stream = driver(to, 1, from, 0)?;
    stream.receive(WARM_UP).map_err(told)?;
    let pids = context.switch.pids();
    let (window, begin) = (Window::open(&pids), Instant::now());
    let bytes = stream.receive(Duration::from_secs(context.seconds)).map_err(told)?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Measured::of(bytes as f64 * 8.0 / seconds, window.close()))
}

/// Where host `number` serves.
fn at(number: usize) -> String {
    format!("{}:{PORT}", Namespace::address(number))
}

/// Connects our driver side, as host `near`, to `host`, which is number `far`.
fn driver(port: &End, near: usize, host: &Namespace, far: usize) -> Result<DriverStream> {
    let End::Vhost { socket, frontend_listens } = port else {
        return Err("a driver needs a vhost-user port".into());
    };
    // Told, not asked for: this driver does not speak ARP.
    let (address, device) = (Namespace::address(near), "eth0");
    let mac = DRIVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let neighbour = ["neigh", "replace", &address, "lladdr", &mac, "dev", device];
    run("ip", &[&["-n", &host.0], &neighbour[..]].concat())?;
    let ends = [
        TcpEnd { mac: DRIVER_MAC, address: ipv4(near)?, port: PORT + 1 },
        TcpEnd { mac: mac_of(host, device)?, address: ipv4(far)?, port: PORT },
    ];
    // Host 0 sends: the ports are in that order.
    DriverStream::connect(socket, *frontend_listens, ends, near == 0).map_err(told)
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

/// So many streams at once from the first host, behind a NAT, to the second, or `down` from there. It
/// is the first that connects.
pub fn through_nat(context: &Context, streams: usize, down: bool) -> Result<Measured> {
    let [End::Host(client), End::Host(server)] = &context.switch.ends[..] else {
        return Err("a host behind the NAT and a server are needed".into());
    };
    let (streams, seconds) = (format!("--streams={streams}"), context.seconds.to_string());
    let server_at = at(1);
    let sink = [SINK_COMMAND, &server_at, &seconds, &streams];
    let source = [SOURCE_COMMAND, &server_at, &streams];
    let connecting = |arguments: &[&str]| helper(client, &[arguments, &["--connect"]].concat());
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let (_source, sink) = if down {
        (start(server, &source)?, connecting(&sink)?)
    } else {
        let sink = start(server, &sink)?;
        (connecting(&source)?, sink)
    };
    Ok(Measured::of(result(sink, context)?, window.close()))
}

/// One of the helpers below, in a host's namespace.
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

/// The rate that a sink prints when it ends.
fn result(sink: Process, context: &Context) -> Result<f64> {
    figures(sink, context).map(|[rate]| rate)
}

/// What a helper prints when it ends.
pub fn figures<const N: usize>(helper: Process, context: &Context) -> Result<[f64; N]> {
    let text = helper.finish(WARM_UP + Duration::from_secs(context.seconds) + START)?;
    let last = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    figures.try_into().map_err(|_| format!("{N} figures were expected: {text}"))
}

/// Which connections a helper has.
#[derive(clap::Args)]
pub struct Streams {
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

/// Writes to each other end until that one has had enough.
pub fn source(streams: &Streams) -> Result<()> {
    let piece = vec![0; PIECE];
    thread::scope(|scope| {
        for mut stream in streams.open()? {
            let piece = &piece;
            scope.spawn(move || while stream.write_all(piece).is_ok() {});
        }
        Ok(())
    })
}

/// Receives for a while and prints the bits a second, all streams together.
pub fn sink(streams: &Streams, seconds: u64) -> Result<()> {
    let streams = streams.open()?;
    let rates: Result<Vec<f64>> = thread::scope(|scope| {
        let each = streams.iter().map(|stream| scope.spawn(move || received(stream, seconds)));
        let threads: Vec<_> = each.collect();
        let rate = |thread: ScopedJoinHandle<_>| thread.join().unwrap_or(Err("panicked".into()));
        threads.into_iter().map(rate).collect()
    });
    println!("{}", rates?.iter().sum::<f64>());
    Ok(())
}

/// Bits a second.
fn received(stream: &TcpStream, seconds: u64) -> Result<f64> {
    discard(stream, WARM_UP)?;
    let begin = Instant::now();
    let bytes = discard(stream, Duration::from_secs(seconds))?;
    Ok(bytes as f64 * 8.0 / begin.elapsed().as_secs_f64())
}

/// Connects as soon as there is a way to `address`.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut last = Err(format!("no way to {address}"));
    wait_until(&format!("a connection to {address}"), START, || {
        last = TcpStream::connect_timeout(&address, START).map_err(|e| format!("{address}: {e}"));
        last.is_ok()
    })?;
    last
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))?;
    // A fixed one: how fast the kernel would enlarge it is not what is measured.
    sockopt::set_socket_recv_buffer_size_force(&listener, RECEIVE_BUFFER)
        .map_err(|e| format!("SO_RCVBUFFORCE: {e}"))?;
    println!("listening");
    Ok(listener)
}

/// Has the kernel drop what comes for so long; returns the bytes. With MSG_TRUNC it copies none.
fn discard(stream: &TcpStream, time: Duration) -> Result<u64> {
    let (end, mut total) = (Instant::now() + time, 0);
    let mut piece = vec![0; PIECE];
    while Instant::now() < end {
        let (_, count) = recv(stream, &mut piece[..], RecvFlags::TRUNC)
            .map_err(|e| format!("the stream broke: {e}"))?;
        if count == 0 {
            return Err("the sender ended before its time".into());
        }
        total += count as u64;
    }
    Ok(total)
}

fn told(error: trama_bench::generator::Error) -> String {
    error.to_string()
}
