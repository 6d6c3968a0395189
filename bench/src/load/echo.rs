//! Short connections and short requests through a NAT, to an echo server behind it.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use super::helpers::{connect, figures, helper, start};
use super::{Context, Measured};
use crate::host::Namespace;
use crate::peers::End;
use crate::process::Result;
use crate::usage::Window;

/// The hidden command that runs [`serve`].
pub(crate) const SERVER_COMMAND: &str = "echo-server";
/// The hidden command that runs [`connects`].
pub(crate) const CONNECT_COMMAND: &str = "echo-connects";
/// The hidden command that runs [`requests`].
pub(crate) const REQUEST_COMMAND: &str = "echo-requests";

/// The first of the server's L4 ports.
const PORT: u16 = 5100;
/// Number of server ports: after a connection to one, a client's port is unavailable there for a
/// minute.
const PORTS: u16 = 16;
/// Concurrent connections.
const PARALLEL: usize = 1000;
/// The message sent and echoed on each.
const MESSAGE: [u8; 64] = [0; 64];
/// Time limit after which a connection has failed.
const PATIENCE: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// Measures connections a second.
pub(super) fn measure_connects(context: &Context) -> Result<Measured> {
    let ([rate, failed], measured) = measure(context, CONNECT_COMMAND)?;
    let details = [("failed_per_second".to_owned(), failed)].into();
    Ok(Measured { value: rate, details, ..measured })
}

/// Measures round trips a second.
pub(super) fn measure_requests(context: &Context) -> Result<Measured> {
    let ([rate], measured) = measure(context, REQUEST_COMMAND)?;
    Ok(Measured { value: rate, ..measured })
}

/// Runs one of the clients below; returns its figures and their cost.
fn measure<const N: usize>(context: &Context, client: &str) -> Result<([f64; N], Measured)> {
    let [End::Host(near), End::Host(far)] = &context.switch.ends[..] else {
        return Err("this load needs a host behind the NAT and a server".into());
    };
    let address = Namespace::address(1);
    let _server = start(far, &[SERVER_COMMAND, &address])?;
    let pids = context.switch.pids();
    let window = Window::open(&pids);
    let client = helper(near, &[client, &address, &context.seconds.to_string()])?;
    let figures = figures(client, context)?;
    Ok((figures, Measured { usage: window.close(), ..Measured::default() }))
}

/// Returns the server's port for connection `number`.
pub(super) fn port(number: usize) -> u16 {
    PORT + (number % usize::from(PORTS)) as u16
}

fn describe(error: std::io::Error) -> String {
    format!("short connections: {error}")
}

/// Serves until terminated.
pub(crate) fn serve(address: Ipv4Addr) -> Result<()> {
    let mut poll = Poll::new().map_err(describe)?;
    let mut listeners = Vec::new();
    for number in 0..usize::from(PORTS) {
        let mut listener = TcpListener::bind((address, port(number)).into()).map_err(describe)?;
        let registry = poll.registry();
        registry.register(&mut listener, Token(number), Interest::READABLE).map_err(describe)?;
        listeners.push(listener);
    }
    println!("listening");
    let (mut streams, mut next) = (HashMap::new(), listeners.len());
    let mut events = Events::with_capacity(PARALLEL);
    loop {
        wait(&mut poll, &mut events)?;
        for Token(number) in events.iter().map(mio::event::Event::token) {
            if let Some(listener) = listeners.get(number) {
                while let Ok((mut stream, _)) = listener.accept() {
                    next += 1;
                    let registry = poll.registry();
                    registry
                        .register(&mut stream, Token(next), Interest::READABLE)
                        .map_err(describe)?;
                    streams.insert(next, stream);
                }
            } else if streams.get_mut(&number).is_some_and(|stream| !echo(stream)) {
                streams.remove(&number);
            }
        }
    }
}

/// Echoes what was received; returns whether the connection stays open.
fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = MESSAGE;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            // So few bytes always fit into the socket's buffer.
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn wait(poll: &mut Poll, events: &mut Events) -> Result<()> {
    match poll.poll(events, Some(TICK)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(describe(error)),
        _ => Ok(()),
    }
}

/// A connection in progress.
struct Connection {
    stream: TcpStream,
    begin: Instant,
    is_sent: bool,
    /// Bytes still to be echoed.
    missing: usize,
}

/// State of a connection after an event.
enum Progress {
    Open,
    Done,
    Failed,
}

impl Connection {
    fn start(to: SocketAddr, registry: &Registry, number: usize) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(to)?;
        registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, begin: Instant::now(), is_sent: false, missing: MESSAGE.len() })
    }

    fn advance(&mut self) -> Progress {
        if !self.is_sent {
            match self.stream.write(&MESSAGE) {
                Ok(length) => self.is_sent = length == MESSAGE.len(),
                Err(error) => return classify(&error),
            }
        }
        let mut buffer = MESSAGE;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Progress::Failed,
                Ok(length) => self.missing = self.missing.saturating_sub(length),
                Err(error) => return classify(&error),
            }
            if self.missing == 0 {
                return Progress::Done;
            }
        }
    }
}

/// Classifies an error: nothing to do yet, or failed.
fn classify(error: &std::io::Error) -> Progress {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::NotConnected => Progress::Open,
        _ => Progress::Failed,
    }
}

/// Connects, sends, waits for the echo and closes, on [`PARALLEL`] connections at once. Prints the
/// successful and the failed connections a second.
pub(crate) fn connects(address: Ipv4Addr, seconds: u64) -> Result<()> {
    drop(connect((address, PORT).into())?);
    let mut clients = Clients::new(address)?;
    clients.run(WARM_UP)?;
    (clients.done, clients.failed) = (0, 0);
    let begin = Instant::now();
    clients.run(Duration::from_secs(seconds))?;
    let each_second = |count: u32| f64::from(count) / begin.elapsed().as_secs_f64();
    println!("{} {}", each_second(clients.done), each_second(clients.failed));
    Ok(())
}

/// All concurrent connections, and counts of how they ended.
struct Clients {
    address: Ipv4Addr,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    started: usize,
    done: u32,
    failed: u32,
}

impl Clients {
    fn new(address: Ipv4Addr) -> Result<Self> {
        let (poll, connections) = (Poll::new().map_err(describe)?, (0..PARALLEL).map(|_| None));
        let connections = connections.collect();
        Ok(Self { address, poll, connections, started: 0, done: 0, failed: 0 })
    }

    fn run(&mut self, time: Duration) -> Result<()> {
        let (end, mut events) = (Instant::now() + time, Events::with_capacity(PARALLEL));
        let mut checked = None;
        while Instant::now() < end {
            if checked.is_none_or(|at: Instant| at.elapsed() > TICK) {
                checked = Some(Instant::now());
                (0..PARALLEL).for_each(|number| self.abort_or_start(number));
            }
            wait(&mut self.poll, &mut events)?;
            events.iter().for_each(|event| self.advance(event.token().0));
        }
        Ok(())
    }

    /// Aborts a connection that takes too long, and starts one that could not be started before.
    fn abort_or_start(&mut self, number: usize) {
        match &self.connections[number] {
            Some(connection) if connection.begin.elapsed() < PATIENCE => return,
            Some(_) => self.failed += 1,
            None => {}
        }
        self.restart(number);
    }

    fn advance(&mut self, number: usize) {
        match self.connections[number].as_mut().map(Connection::advance) {
            None | Some(Progress::Open) => return,
            Some(Progress::Done) => self.done += 1,
            Some(Progress::Failed) => self.failed += 1,
        }
        self.restart(number);
    }

    fn restart(&mut self, number: usize) {
        self.started += 1;
        let to = (self.address, port(self.started)).into();
        let new = Connection::start(to, self.poll.registry(), number);
        self.failed += u32::from(new.is_err());
        self.connections[number] = new.ok();
    }
}

/// Sends a byte and waits for its echo, repeatedly. Prints the round trips a second.
pub(crate) fn requests(address: Ipv4Addr, seconds: u64) -> Result<()> {
    let mut stream = connect((address, PORT).into())?;
    stream.set_nodelay(true).map_err(describe)?;
    let mut measure_for = |time: Duration| {
        let (begin, mut count) = (Instant::now(), 0_u32);
        while begin.elapsed() < time {
            stream.write_all(&[0]).and_then(|()| stream.read_exact(&mut [0])).map_err(describe)?;
            count += 1;
        }
        Ok::<_, String>(f64::from(count) / begin.elapsed().as_secs_f64())
    };
    measure_for(WARM_UP)?;
    println!("{}", measure_for(Duration::from_secs(seconds))?);
    Ok(())
}
