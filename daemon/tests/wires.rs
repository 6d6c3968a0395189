//! Stream and datagram ports of a running daemon, with sockets in a temporary directory, without
//! privileges.
#![cfg(test)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use trama_daemon::config::model::socket::SocketMode;
use trama_daemon::config::model::{Config, Interface};
use trama_daemon::events::By;
use trama_daemon::state::{Daemon, Source, TransactOptions};
use trama_daemon::status::SocketStatus;

/// Time limit for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon in a temporary directory with a network `lab`.
struct Lab {
    directory: tempfile::TempDir,
    daemon: Arc<Daemon>,
}

impl Lab {
    /// Starts a daemon with these ports; `@` in the text stands for the directory.
    fn start(ports: &str) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let head = "[daemon]\ncontrol = \"@/control.sock\"\nstate = \"@/state\"\n\
                    [[network]]\nname = \"lab\"\n";
        let text = [head, ports].concat().replace('@', directory.path().to_str().unwrap());
        let file = directory.path().join("lab.toml");
        fs::write(&file, text).unwrap();
        let daemon = Daemon::start(Source::at(file)).unwrap_or_else(|error| panic!("{error}"));
        Lab { directory, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self, port: &str) -> SocketStatus {
        let status = self.daemon.status();
        let port = status.port(port).unwrap();
        let socket = port.socket.clone();
        let socket = socket.unwrap_or_else(|| panic!("{:?}", port.not_running));
        assert_eq!(port.link, socket.peer.is_some());
        socket
    }

    /// Waits until a port's socket is in this state; returns its status.
    #[track_caller]
    fn until(&self, port: &str, is_it: impl Fn(&SocketStatus) -> bool) -> SocketStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let socket = self.socket(port);
            if is_it(&socket) {
                return socket;
            }
            assert!(Instant::now() < deadline, "{port}: {socket:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn connected(&self, port: &str) -> SocketStatus {
        self.until(port, |socket| socket.state == "connected")
    }

    fn change(&self, edit: impl Fn(&mut Config)) {
        let options = TransactOptions { dry_run: false, save: true };
        let done = self.daemon.transact(options, |config| {
            edit(config);
            Ok::<(), String>(())
        });
        done.unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.daemon.stop();
    }
}

fn port(name: &str, keys: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\n{keys}\n")
}

fn stream(name: &str) -> String {
    port(name, &format!("type = \"stream\"\npath = \"@/{name}.sock\""))
}

/// A broadcast frame with its length in front.
fn framed(number: u8) -> Vec<u8> {
    let mut bytes = vec![0xff; 64];
    bytes[..4].copy_from_slice(&60u32.to_be_bytes());
    bytes[10..16].copy_from_slice(&[2, 0, 0, 0, 0, number]);
    bytes
}

#[track_caller]
fn read(peer: &mut impl Read) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn processes_connect_and_exchange_frames() {
    let lab = Lab::start(&[stream("a"), stream("b")].concat());
    assert_eq!(lab.socket("a").state, "listening");
    let [mut a, mut b] =
        ["a.sock", "b.sock"].map(|name| patient(UnixStream::connect(lab.path(name)).unwrap()));
    let status = lab.connected("a");
    lab.connected("b");
    let me = format!("pid {} uid ", std::process::id());
    assert!(status.peer.as_ref().unwrap().starts_with(&me), "{status:?}");
    a.write_all(&framed(1)).unwrap();
    assert_eq!(read(&mut b), framed(1));
    b.write_all(&framed(2)).unwrap();
    assert_eq!(read(&mut a), framed(2));
    assert_eq!(lab.daemon.fdb("lab").unwrap().len(), 2);
    // The next one is served as this one was.
    drop(a);
    lab.until("a", |socket| socket.state == "listening");
    assert_eq!(lab.daemon.fdb("lab").unwrap().len(), 1);
    let mut a = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    let status = lab.connected("a");
    assert_eq!(status.connects, Some(2));
    b.write_all(&framed(3)).unwrap();
    assert_eq!(read(&mut a), framed(3));
}

#[test]
fn a_second_connection_is_turned_away_and_the_first_goes_on() {
    let lab = Lab::start(&[stream("a"), stream("b")].concat());
    let [mut a, mut b] =
        ["a.sock", "b.sock"].map(|name| patient(UnixStream::connect(lab.path(name)).unwrap()));
    lab.connected("a");
    lab.connected("b");
    let mut second = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    assert_eq!(second.read(&mut [0]).unwrap(), 0, "closed");
    let error = lab.until("a", |socket| socket.last_error.is_some()).last_error.unwrap();
    assert!(error.contains("was turned away") && error.contains("raise connections"), "{error}");
    b.write_all(&framed(3)).unwrap();
    assert_eq!(read(&mut a), framed(3));
}

#[test]
fn each_of_many_connections_is_a_port_of_its_own() {
    const MOST: usize = 64;
    let many = format!("type = \"stream\"\npath = \"@/a.sock\"\nconnections = {MOST}");
    // The name of a port that exists is left out.
    let lab = Lab::start(&[port("a", &many), stream("a.3"), stream("b")].concat());
    let mut b = patient(UnixStream::connect(lab.path("b.sock")).unwrap());
    lab.connected("b");
    let text = fs::read_to_string(lab.daemon.file()).unwrap();
    let connect = || patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    let mut peers: Vec<UnixStream> = (1..MOST).map(|_| connect()).collect();
    let ports = || {
        lab.daemon.handle_events();
        let status = lab.daemon.status();
        status.ports.iter().filter(|port| port.link).count()
    };
    wait_until("all have ports", || ports() == MOST);
    // No name is left for more.
    for _ in 0..2 {
        let mut beyond = connect();
        beyond.set_nonblocking(true).unwrap();
        wait_until("it is closed", || {
            lab.daemon.handle_events();
            matches!(beyond.read(&mut [0]), Ok(0))
        });
    }
    b.write_all(&framed(99)).unwrap();
    for (peer, number) in peers.iter_mut().zip(1..) {
        assert_eq!(read(peer), framed(99));
        peer.write_all(&framed(number)).unwrap();
        assert_eq!(read(&mut b), framed(number));
    }
    let config = lab.daemon.config();
    let last = config.port(&format!("a.{MOST}")).unwrap();
    assert!(last.is_ephemeral() && last.is_on("lab"));
    // Settings of the port hold for its connections; a save leaves them out.
    lab.change(|config| config.ports[0].cable = false);
    let config = lab.daemon.config();
    assert!(config.ports.iter().filter(|port| !port.cable).count() == MOST - 1);
    let saved = fs::read_to_string(lab.daemon.file()).unwrap();
    assert_eq!(saved.lines().count(), text.lines().count() + 1, "{saved}");
    assert!(lab.daemon.reload(By::Signal).unwrap().steps.is_empty());
    // They end with their connections, or with fewer that are allowed.
    peers.truncate(MOST / 2);
    let count = || {
        lab.daemon.handle_events();
        lab.daemon.config().ports.iter().filter(|port| port.is_ephemeral()).count()
    };
    wait_until("half of them end", || count() == MOST / 2 - 1);
    lab.change(|config| {
        if let Interface::Stream(device) = &mut config.ports[0].interface {
            device.connections = 2;
        }
    });
    wait_until("one is left", || count() == 1);
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_length_that_lies_ends_the_connection_and_is_named() {
    let lab = Lab::start(&stream("a"));
    let mut a = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    a.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(a.read(&mut [0]), Ok(0) | Err(_)), "closed");
    let status = lab.until("a", |socket| socket.state == "listening" && socket.connects == Some(1));
    let error = status.last_error.unwrap();
    assert!(error.contains("frame length of 4294967295"), "{error}");
}

#[test]
fn a_client_connects_again_and_again() {
    let lab = Lab::start(
        &[stream("a"), port("c", "type = \"stream\"\npath = \"@/c.sock\"\nrole = \"client\"")]
            .concat(),
    );
    let status = lab.until("c", |socket| socket.last_error.is_some());
    assert_eq!((status.state, status.connects), ("connecting", Some(0)));
    let listener = UnixListener::bind(lab.path("c.sock")).unwrap();
    let mut a = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    lab.connected("a");
    for round in 1..3 {
        let mut c = patient(listener.accept().unwrap().0);
        assert_eq!(lab.connected("c").connects, Some(round));
        a.write_all(&framed(1)).unwrap();
        assert_eq!(read(&mut c), framed(1));
    }
}

#[test]
fn tcp_serves_both_roles() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = format!(
        "type = \"stream\"\nrole = \"client\"\naddress = \"{}\"",
        listener.local_addr().unwrap()
    );
    let server = format!("type = \"stream\"\naddress = \"{free}\"");
    let lab = Lab::start(&[port("s", &server), port("c", &client)].concat());
    let mut c = listener.accept().unwrap().0;
    let mut s = TcpStream::connect(free).unwrap();
    for peer in [&c, &s] {
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let status = lab.connected("s");
    assert_eq!(status.peer, Some(s.local_addr().unwrap().to_string()));
    lab.connected("c");
    c.write_all(&framed(1)).unwrap();
    assert_eq!(read(&mut s), framed(1));
    s.write_all(&framed(2)).unwrap();
    assert_eq!(read(&mut c), framed(2));
}

#[test]
fn datagrams_pass_over_unix_sockets_and_udp() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = format!(
        "type = \"dgram\"\nlocal = \"{free}\"\nremote = \"{}\"",
        peer.local_addr().unwrap()
    );
    let lab =
        Lab::start(&[port("u", &udp), port("d", "type = \"dgram\"\npath = \"@/d.sock\"")].concat());
    assert_eq!(lab.socket("d").state, "listening");
    assert_eq!(lab.socket("u").peer, Some(peer.local_addr().unwrap().to_string()));
    let guest = UnixDatagram::bind(lab.path("guest.sock")).unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    guest.connect(lab.path("d.sock")).unwrap();
    guest.send(b"VFKT").unwrap();
    guest.send(&framed(1)[4..]).unwrap();
    let mut room = [0; 100];
    assert_eq!(peer.recv_from(&mut room).unwrap(), (60, free));
    assert_eq!(room[..60], framed(1)[4..]);
    peer.send_to(&framed(2)[4..], free).unwrap();
    assert_eq!(guest.recv(&mut room).unwrap(), 60);
    assert_eq!(room[..60], framed(2)[4..]);
    let guest_path = lab.path("guest.sock").display().to_string();
    assert_eq!(lab.socket("d").peer, Some(guest_path));
    // Of someone else.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&framed(3)[4..], free).unwrap();
    wait_until("it is counted", || {
        lab.daemon.status().port("u").unwrap().counters.drops_for("wrong_peer") == 1
    });
}

#[test]
fn sockets_that_cannot_be_made_are_named_and_others_run() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keep = TcpListener::bind(taken).unwrap();
    let busy = format!("type = \"stream\"\naddress = \"{taken}\"");
    let lab = Lab::start(
        &[port("t", &busy), stream("lab.toml"), stream("a")]
            .concat()
            .replace("lab.toml.sock", "lab.toml"),
    );
    let status = lab.daemon.status();
    let reason = |port: &str| status.port(port).unwrap().not_running.clone().unwrap_or_default();
    assert!(reason("t").contains("choose another port"), "{}", reason("t"));
    let file = reason("lab.toml");
    assert!(
        file.ends_with(
            "a file that is not a socket exists there; remove it or choose another path"
        ),
        "{file}"
    );
    assert_eq!(reason("a"), "");
    drop(UnixStream::connect(lab.path("a.sock")).unwrap());
    drop(keep);
}

#[test]
fn access_and_removal_follow_the_configuration() {
    let lab =
        Lab::start(&[stream("a"), port("d", "type = \"dgram\"\npath = \"@/d.sock\"")].concat());
    let mode = |name: &str| fs::metadata(lab.path(name)).unwrap().permissions().mode() & 0o777;
    lab.change(|config| {
        config.ports.iter_mut().for_each(|port| port.socket.mode = Some(SocketMode(0o640)));
    });
    assert_eq!((mode("a.sock"), mode("d.sock")), (0o640, 0o640));
    let mut a = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    lab.connected("a");
    lab.change(|config| config.ports.clear());
    assert!(matches!(a.read(&mut [0]), Ok(0) | Err(_)), "closed");
    assert!(!lab.path("a.sock").exists() && !lab.path("d.sock").exists());
}

/// Processor time of this process's thread with a name.
fn time_of_thread(name: &str) -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_it = |thread: &fs::DirEntry| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|it| it.trim() == name)
    };
    let thread = threads.into_iter().find(is_it).unwrap();
    let times = fs::read_to_string(thread.path().join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_connection_that_cannot_be_accepted_waits_and_costs_nothing() {
    let lab = Lab::start(&stream("a"));
    let limit = getrlimit(Resource::Nofile);
    let first = patient(UnixStream::connect(lab.path("a.sock")).unwrap());
    lab.connected("a");
    // Made before descriptors run out.
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(lab.path("a.sock")).unwrap();
    let begin = time_of_thread("streams");
    // None is free below that, and poll(2) takes that many.
    setrlimit(Resource::Nofile, Rlimit { current: Some(8), ..limit }).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let refused = |it: &SocketStatus| {
        it.last_error.as_ref().is_some_and(|text| text.starts_with("cannot accept: "))
    };
    lab.until("a", refused);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    let spent = time_of_thread("streams") - begin;
    assert!(spent < Duration::from_millis(100), "{spent:?} in half a second");
    drop(first);
    let connects = |it: &SocketStatus| it.connects == Some(2) || it.peer.is_some();
    lab.until("a", connects);
}
