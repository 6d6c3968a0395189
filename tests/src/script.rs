//! TCP by script: a machine every segment of which a test writes, and a program of the host at the
//! other end of the flow.
//!
//! Each line is a step:
//!
//! ```text
//! > syn 0 win=1000 mss=1000 scale=2     the machine sends this
//! < syn 0 ack=1 scale=5                 it receives this, and nothing before
//! host accepts                          and says DATA, urges DATA (urgently), hears DATA, ends,
//!                                       hears end, hears reset, resets, refuses (does not
//!                                       listen), calls (by a forward)
//! > 1:hello ack=1 win=250
//! < again 0 ack=6                       as `<`, though it has received it before
//! ```
//!
//! A segment is its first sequence number, counted from the SYN of its end (which is 0), and behind
//! a colon its data: letters as they are, or `1000*a`. Flags are syn, fin and rst; `urg=` is the
//! urgent pointer. Of what is received, flags, numbers and data have to be just these; window and
//! options too, if they are written: `scale=no` is none.
//!
//! Data that comes once more unasked is passed over: on a loaded machine its sender grows
//! impatient.

mod segment;
mod station;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendFlags, send};

use crate::host::Host;
use crate::nat::{HOST, NETWORK, NEXT, SOON, VM1, at, host_and_server, listen, tap_port};
use crate::netns::Netns;
use crate::process::{unique, wait_until};
use crate::raw_tap::RawTap;
use crate::tramad::Tramad;
pub use segment::Segment;
use segment::data;
use station::Station;

/// The machine's first sequence number: its numbers wrap early.
const OWN: u32 = u32::MAX - 2;
/// The port that [`Stage::forward`] leads to the machine.
const FORWARDED: u16 = 8080;

/// The NAT with a scripted machine, and a namespace for the program of the host.
pub struct Stage {
    station: Station,
    far: Netns,
    tramad: Tramad,
    // They end after the daemon.
    _others: [Netns; 2],
}

impl Stage {
    /// Sets it up.
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

    /// A flow to begin, over IPv4 (0) or IPv6 (1).
    pub fn flow(&self, version: usize) -> Flow<'_> {
        let listener = listen(&self.far, "[::]:0");
        let port = listener.local_addr().expect("listening").port();
        Flow {
            stage: self,
            version,
            guest: at(VM1[version], 20_000 + unique() as u16),
            remote: at(NEXT[version], port),
            theirs: 0,
            received: 0,
            listener: Some(listener),
            host: None,
        }
    }

    /// Ends the daemon in order.
    #[track_caller]
    pub fn end(self) {
        self.tramad.stop();
    }
}

/// A flow between the scripted machine and a program of the host.
pub struct Flow<'a> {
    stage: &'a Stage,
    version: usize,
    guest: SocketAddr,
    remote: SocketAddr,
    /// The sequence number of the gateway's SYN.
    theirs: u32,
    /// The end of what was received.
    received: u32,
    listener: Option<TcpListener>,
    host: Option<TcpStream>,
}

impl Flow<'_> {
    /// Does what a line says.
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
            Some(("host", words)) => self.tell_host(words),
            _ => panic!("{line} is not a step"),
        }
    }

    /// Has the machine send a segment.
    pub fn send(&self, segment: &Segment) {
        let header = segment.header(self.guest.port(), self.remote.port(), [OWN, self.theirs]);
        self.stage.station.send(self.guest.ip(), self.remote.ip(), header, &segment.data);
    }

    /// The next segment that the machine receives.
    #[track_caller]
    pub fn receive(&mut self) -> Segment {
        let frame = self.stage.station.receive(self.remote, self.guest, SOON);
        let (header, data) = frame.expect("the machine receives nothing");
        if header.syn && header.sequence_number != self.theirs {
            (self.theirs, self.received) = (header.sequence_number, 0);
        }
        Segment::read(&header, data, [OWN, self.theirs])
    }

    #[track_caller]
    fn expect(&mut self, wanted: &Segment, again: bool) {
        loop {
            let got = self.receive();
            let is_old = got.end() != got.sequence && got.end() <= self.received;
            if got.agrees_with(wanted) {
                self.received = self.received.max(got.end());
                return;
            }
            assert!(is_old && !again, "the machine received another segment: {got:?}");
        }
    }

    /// The program of the host.
    #[track_caller]
    pub fn host(&mut self) -> &mut TcpStream {
        self.host.as_mut().expect("the program has a connection")
    }

    #[track_caller]
    fn tell_host(&mut self, words: &str) {
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
            _ => panic!("the host does not know how to: {words}"),
        }
    }

    #[track_caller]
    fn accept(&mut self) {
        let listener = self.listener.as_ref().expect("the program listens");
        listener.set_nonblocking(true).expect("not waiting");
        let (stream, _) = wait_until("the host has connected", SOON, || listener.accept().ok());
        self.talk(stream);
    }

    /// Has a client call the machine by the forward.
    #[track_caller]
    fn call(&mut self) {
        let to = at(HOST[self.version], FORWARDED);
        let client = self.stage.far.inside(move || TcpStream::connect_timeout(&to, SOON));
        let client = client.join().expect("client").expect("connect to the forward");
        self.guest.set_port(FORWARDED);
        self.remote.set_port(client.local_addr().expect("connected").port());
        self.talk(client);
    }

    fn talk(&mut self, stream: TcpStream) {
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.set_write_timeout(Some(SOON)).expect("timeout");
        self.host = Some(stream);
    }
}
