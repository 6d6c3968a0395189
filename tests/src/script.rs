//! Scripted TCP: a test writes every segment of a guest, and drives the host's program at the
//! other end of the flow.
//!
//! Each line is a step:
//!
//! ```text
//! > syn 0 win=1000 mss=1000 scale=2     the guest sends this segment
//! < syn 0 ack=1 scale=5                 it receives this one, and no other before
//! host accepts                          further: says DATA, urges DATA (urgent data),
//!                                       hears DATA, ends, hears end, hears reset, resets,
//!                                       refuses (does not listen), calls (by a forward)
//! > 1:hello ack=1 win=250
//! < again 0 ack=6                       as `<`, for a segment received before
//! ```
//!
//! A segment is its first sequence number, relative to its sender's SYN (number 0), then a colon
//! and its data: literal letters, or `1000*a`. Flags are syn, fin and rst; `urg=` is the urgent
//! pointer. In a received segment, flags, numbers and data must match exactly; window and options
//! only if written. `scale=no` means that the option is absent.
//!
//! Unexpected retransmissions are ignored: on a loaded machine the sender's timer may expire.

mod segment;
mod station;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendFlags, send};

use crate::host::Host;
use crate::nat::{HOST, NEIGHBOUR, NETWORK, SOON, VM1, at, host_and_server, listen, tap_port};
use crate::netns::Netns;
use crate::process::{unique, wait_until};
use crate::raw_tap::RawTap;
use crate::tramad::Tramad;
pub use segment::Segment;
use segment::data;
use station::Station;

/// The guest's initial sequence number, so that its numbers wrap early.
const GUEST_ISN: u32 = u32::MAX - 2;
/// The L4 port that [`Stage::set_up`] forwards to the guest.
const FORWARDED: u16 = 8080;

/// A NAT with a scripted guest, and a namespace for the host's program.
pub struct Stage {
    station: Station,
    far: Netns,
    tramad: Tramad,
    // They end after the daemon.
    _others: [Netns; 2],
}

impl Stage {
    /// Sets up the network.
    #[track_caller]
    pub fn set_up() -> Stage {
        let [host, far] = host_and_server();
        let vm = Netns::new("vm");
        let forwards = format!(
            "forward = [\"four,tcp,{},{FORWARDED},{},{FORWARDED}\", \
             \"six,tcp,{},{FORWARDED},{},{FORWARDED}\"]\n",
            HOST[0], VM1[0], HOST[1], VM1[1]
        );
        let port = tap_port("home", "vm", &vm, "ifname = \"port\"");
        let tramad = Tramad::start_in(&host, &format!("{NETWORK}{forwards}{port}"));
        wait_until("the port is there", SOON, || {
            (vm.try_run("ip link show port").status == 0).then_some(())
        });
        let station = Station::new(RawTap::bridge(&vm, "port"));
        Stage { station, far, tramad, _others: [host, vm] }
    }

    /// Plays a script over IPv4 and IPv6.
    #[track_caller]
    pub fn play(&self, script: &str) {
        for version in 0..2 {
            let mut flow = self.flow(version);
            script.lines().for_each(|line| flow.step(line.trim()));
        }
    }

    /// Returns a new flow, over IPv4 (0) or IPv6 (1).
    pub fn flow(&self, version: usize) -> Flow<'_> {
        let listener = listen(&self.far, "[::]:0");
        let port = listener.local_addr().expect("listening").port();
        Flow {
            stage: self,
            version,
            guest: at(VM1[version], 20_000 + unique() as u16),
            remote: at(NEIGHBOUR[version], port),
            gateway_isn: 0,
            received: 0,
            listener: Some(listener),
            host: None,
        }
    }

    /// Stops the daemon cleanly.
    #[track_caller]
    pub fn end(self) {
        self.tramad.stop();
    }
}

/// A flow between the scripted guest and the host's program.
pub struct Flow<'a> {
    stage: &'a Stage,
    version: usize,
    guest: SocketAddr,
    remote: SocketAddr,
    /// The initial sequence number of the gateway.
    gateway_isn: u32,
    /// The sequence number after the last byte received.
    received: u32,
    listener: Option<TcpListener>,
    host: Option<TcpStream>,
}

impl Flow<'_> {
    /// Executes a line.
    #[track_caller]
    pub fn step(&mut self, line: &str) {
        println!("IPv{} {line}", 4 + 2 * self.version);
        match line.split_once(' ') {
            None if line.is_empty() => {}
            Some((">", words)) => self.send(&Segment::parse(words)),
            Some(("<", words)) => match words.strip_prefix("again ") {
                Some(words) => self.expect(&Segment::parse(words), true),
                None => self.expect(&Segment::parse(words), false),
            },
            Some(("host", words)) => self.host_step(words),
            _ => panic!("not a step: {line}"),
        }
    }

    /// Sends a segment from the guest.
    pub fn send(&self, segment: &Segment) {
        let header =
            segment.header(self.guest.port(), self.remote.port(), [GUEST_ISN, self.gateway_isn]);
        self.stage.station.send(self.guest.ip(), self.remote.ip(), header, &segment.data);
    }

    /// Returns the next segment that the guest receives.
    #[track_caller]
    pub fn receive(&mut self) -> Segment {
        let frame = self.stage.station.receive(self.remote, self.guest, SOON);
        let (header, data) = frame.expect("the machine receives nothing");
        if header.syn && header.sequence_number != self.gateway_isn {
            (self.gateway_isn, self.received) = (header.sequence_number, 0);
        }
        Segment::read(&header, data, [GUEST_ISN, self.gateway_isn])
    }

    #[track_caller]
    fn expect(&mut self, wanted: &Segment, again: bool) {
        loop {
            let got = self.receive();
            let is_old = got.end() != got.sequence && got.end() <= self.received;
            if got.matches(wanted) {
                self.received = self.received.max(got.end());
                return;
            }
            assert!(is_old && !again, "the machine received another segment: {got:?}");
        }
    }

    /// Returns the connection of the host's program.
    #[track_caller]
    pub fn host(&mut self) -> &mut TcpStream {
        self.host.as_mut().expect("the program has a connection")
    }

    /// Executes a step of the host's program.
    #[track_caller]
    fn host_step(&mut self, words: &str) {
        let (verb, object) = words.split_once(' ').unwrap_or((words, ""));
        match (verb, object) {
            ("accepts", "") => self.accept(),
            ("calls", "") => self.call(),
            ("refuses", "") => self.listener = None,
            ("says", text) => self.host().write_all(&data(text)).expect("say"),
            ("urges", text) => {
                let sent = send(self.host(), &data(text), SendFlags::OOB);
                assert_eq!(sent, Ok(data(text).len()));
            }
            ("hears", "end") => assert_eq!(self.host().read(&mut [0]).expect("end"), 0),
            ("hears", "reset") => {
                let error = self.host().read(&mut [0]).expect_err("a reset");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            ("hears", text) => {
                let mut heard = vec![0; data(text).len()];
                self.host().read_exact(&mut heard).expect("hear");
                assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&data(text)));
            }
            ("ends", "") => self.host().shutdown(Shutdown::Write).expect("end"),
            ("resets", "") => {
                set_socket_linger(self.host(), Some(Duration::ZERO)).expect("linger");
                self.host = None;
            }
            _ => panic!("unknown step of the host: {words}"),
        }
    }

    #[track_caller]
    fn accept(&mut self) {
        let listener = self.listener.as_ref().expect("the program listens");
        listener.set_nonblocking(true).expect("not waiting");
        let (stream, _) = wait_until("the host has connected", SOON, || listener.accept().ok());
        self.use_connection(stream);
    }

    /// Connects a client to the guest through the forward.
    #[track_caller]
    fn call(&mut self) {
        let to = at(HOST[self.version], FORWARDED);
        let client = self.stage.far.inside(move || TcpStream::connect_timeout(&to, SOON));
        let client = client.join().expect("client").expect("connect to the forward");
        self.guest.set_port(FORWARDED);
        self.remote.set_port(client.local_addr().expect("connected").port());
        self.use_connection(client);
    }

    fn use_connection(&mut self, stream: TcpStream) {
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.set_write_timeout(Some(SOON)).expect("timeout");
        self.host = Some(stream);
    }
}
