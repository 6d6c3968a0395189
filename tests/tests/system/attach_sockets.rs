//! `POST /v1/attach` with sockets: a connected stream, a connected datagram socket, and a listening
//! socket for vhost-user frontends.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};
use trama_frame::MacAddr;
use trama_test_kit::{frame, mac};
use trama_tests::nat::tap_port;
use trama_tests::{Guest, Host, Netns, Nic, SOON, Tramad, wait_until};

use super::attach::ask;

const NETWORK: &str = "[[network]]\nname = \"lab\"\n";
const BROADCAST: MacAddr = MacAddr([0xff; 6]);

fn body(port: &str) -> String {
    format!("{{\"version\":1,\"network\":\"lab\",\"port\":\"{port}\"}}")
}

/// Hands a socket over for a port of this name.
#[track_caller]
fn attach(tramad: &Tramad, port: &str, socket: BorrowedFd<'_>) {
    let answer = ask(tramad, &body(port), &[socket]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{port}: {answer}\n{}", tramad.log());
}

fn column(tramad: &Tramad, port: &str, column: &str) -> String {
    tramad.ctl(&format!("get Interface {port} {column}")).trim().to_owned()
}

fn send(mut stream: impl Write, frame: &[u8]) {
    let len = u32::try_from(frame.len()).expect("a short frame");
    stream.write_all(&[&len.to_be_bytes(), frame].concat()).expect("it is sent");
}

fn receive(mut stream: impl Read) -> Vec<u8> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).expect("a length");
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut frame).expect("a frame");
    frame
}

fn datagram(receive: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> Vec<u8> {
    let mut bytes = vec![0; 2000];
    let len = receive(&mut bytes).expect("a datagram");
    bytes.truncate(len);
    bytes
}

fn wait_for_ports(tramad: &Tramad, ports: &str) {
    wait_until(&format!("there are {ports:?}"), SOON, || {
        (tramad.ctl("list-ports lab") == ports).then_some(())
    });
}

#[test]
fn connected_sockets_are_ports_and_a_stream_ends_with_its_connection() {
    let mut tramad = Tramad::start(NETWORK);
    let file = tramad.configuration();
    let (stream, theirs) = UnixStream::pair().expect("a pair");
    attach(&tramad, "stream", theirs.as_fd());
    drop(theirs);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let tcp = TcpStream::connect(listener.local_addr().expect("its address")).expect("a stream");
    attach(&tramad, "tcp", listener.accept().expect("a connection").0.as_fd());
    let (unix, theirs) = UnixDatagram::pair().expect("a pair");
    attach(&tramad, "unix", theirs.as_fd());
    let [udp, theirs] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    for (one, other) in [(&udp, &theirs), (&theirs, &udp)] {
        one.connect(other.local_addr().expect("an address")).expect("connect");
    }
    attach(&tramad, "udp", theirs.as_fd());
    drop(theirs);
    assert_eq!(tramad.ctl("list-ports lab"), "stream\ntcp\nudp\nunix\n");
    let set_limits = |limit| {
        stream.set_read_timeout(limit).expect("a limit");
        tcp.set_read_timeout(limit).expect("a limit");
        unix.set_read_timeout(limit).expect("a limit");
        udp.set_read_timeout(limit).expect("a limit");
    };
    set_limits(Some(SOON));

    // What each sends to all reaches each other.
    for sender in 0..4 {
        let sent = frame(BROADCAST, mac(sender), 100 + usize::from(sender));
        match sender {
            0 => send(&stream, &sent),
            1 => send(&tcp, &sent),
            2 => assert_eq!(unix.send(&sent).expect("it is sent"), sent.len()),
            _ => assert_eq!(udp.send(&sent).expect("it is sent"), sent.len()),
        }
        for receiver in (0..4).filter(|receiver| *receiver != sender) {
            let received = match receiver {
                0 => receive(&stream),
                1 => receive(&tcp),
                2 => datagram(|bytes| unix.recv(bytes)),
                _ => datagram(|bytes| udp.recv(bytes)),
            };
            assert_eq!(received, sent, "from {sender} to {receiver}");
        }
    }
    for (port, kind) in [("stream", "stream"), ("tcp", "stream"), ("unix", "dgram")] {
        assert_eq!(column(&tramad, port, "type"), kind);
        assert_eq!(column(&tramad, port, "status:state"), "connected", "{port}");
        assert_eq!(tramad.ctl(&format!("get Port {port} ephemeral")), "true\n");
    }
    let own = format!("pid {} uid 0", std::process::id());
    assert!(column(&tramad, "unix", "status:peer").contains(&own));
    let peer = column(&tramad, "tcp", "status:peer");
    assert!(peer.contains(&tcp.local_addr().expect("an address").to_string()), "{peer}");

    // A stream ends with its peer, a length that is none, or the switch that has read a part of it.
    drop(stream);
    wait_for_ports(&tramad, "tcp\nudp\nunix\n");
    let (bad, theirs) = UnixStream::pair().expect("a pair");
    attach(&tramad, "bad", theirs.as_fd());
    drop(theirs);
    (&bad).write_all(&[0, 0, 0, 1, 0xff]).expect("it is sent");
    wait_for_ports(&tramad, "tcp\nudp\nunix\n");
    assert!(tramad.log().contains("port bad: "), "{}", tramad.log());
    tramad.take_over();
    let end = (&tcp).read(&mut [0; 1]);
    assert!(end.as_ref().is_ok_and(|len| *len == 0) || is_reset(&end), "{end:?}");
    assert_eq!(tramad.ctl("list-ports lab"), "udp\nunix\n");
    assert_eq!(tramad.configuration(), file);
    let sent = frame(BROADCAST, mac(7), 200);
    unix.send(&sent).expect("it is sent");
    assert_eq!(datagram(|bytes| udp.recv(bytes)), sent);
    tramad.kill_and_follow();
    udp.send(&sent).expect("it is sent");
    assert_eq!(datagram(|bytes| unix.recv(bytes)), sent);
    // A peer that has gone away costs nothing but its frames, and the port waits for `detach`.
    drop(unix);
    udp.send(&sent).expect("it is sent");
    wait_until("the frame is counted", SOON, || {
        (tramad.statistic("unix", "tx_dropped") > 0).then_some(())
    });
    tramad.ctl("detach unix -- detach udp");
    assert_eq!(tramad.ctl("list-ports lab"), "");
}

fn is_reset(end: &std::io::Result<usize>) -> bool {
    end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_guest_connects_to_a_listener_that_was_handed_over() {
    let host = Netns::new("host");
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("vm.sock");
    let station = tap_port("lab", "s", &host, "ifname = \"tap0\"\naddress = \"10.1.0.9/24\"");
    let mut tramad = Tramad::start(&(NETWORK.to_owned() + &station));
    let listener = UnixListener::bind(&path).expect("a listener");
    attach(&tramad, "vm", listener.as_fd());
    assert_eq!(column(&tramad, "vm", "type"), "vhost-user");
    let again = ask(&tramad, &body("other"), &[listener.as_fd()]);
    assert!(again.contains("vm.sock") && again.contains("vm"), "{again}");
    drop(listener);
    assert_eq!(tramad.ctl("list-ports lab"), "s\nvm\n");

    let guest = Guest::boot("vm", Nic::connecting(&path, "52:54:00:00:00:01"));
    guest.address("10.1.0.1/24");
    guest.wait_for_ping("10.1.0.9", SOON);
    tramad.take_over();
    guest.wait_for_ping("10.1.0.9", SOON);
    tramad.kill_and_follow();
    guest.wait_for_ping("10.1.0.9", SOON);
    drop(guest);
    wait_until("it listens again", SOON, || {
        (column(&tramad, "vm", "status:state") == "listening").then_some(())
    });
    let guest = Guest::boot("vm", Nic::connecting(&path, "52:54:00:00:00:01"));
    guest.address("10.1.0.1/24");
    guest.wait_for_ping("10.1.0.9", SOON);
    tramad.ctl("detach vm");
    guest.wait_for_link("eth0", false);
    assert!(UnixStream::connect(&path).is_err(), "nobody listens");
    assert!(path.exists(), "the file is its owner's");
}

#[test]
fn a_socket_of_another_kind_is_refused_in_one_line() {
    let tramad = Tramad::start(NETWORK);
    let no_flags = SocketFlags::empty();
    let socket = |family, kind| socket_with(family, kind, no_flags, None).expect("a socket");
    let (packets, _peer) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, no_flags, None).expect("a pair");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW);
    let stream = socket(AddressFamily::INET, SocketType::STREAM);
    let datagrams = socket(AddressFamily::UNIX, SocketType::DGRAM);
    for (socket, part) in [
        (packets.as_fd(), "is neither a stream nor a datagram socket"),
        (tcp.as_fd(), "is a listening TCP socket"),
        (netlink.as_fd(), "is a socket of another family than Unix and IP"),
        (stream.as_fd(), "is a stream socket without a peer"),
        (datagrams.as_fd(), "is a datagram socket without a peer"),
    ] {
        let answer = ask(&tramad, &body("p"), &[socket]);
        assert!(answer.contains(part) && answer.contains("pass a TAP"), "{part}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(tramad.ctl("list-ports lab"), "");
    tramad.stop();
}
