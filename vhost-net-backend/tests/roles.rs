//! Sessions that come and go: both roles, sockets that are in the way, and stopping at any moment.
#![cfg(test)]

use std::fs;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use trama_test_kit::requests::{GET_FEATURES, SET_FEATURES, SET_VRING_ENABLE, message};
use trama_test_kit::{MockRings, PATIENCE, RawFrontend, eventually};
use trama_vhost_net_backend::{
    Role, Session, SessionError, SessionOptions, SessionState, SocketError,
};

fn spawn(path: &Path, role: Role) -> Result<(Session, MockRings), SessionError> {
    let rings = MockRings::new();
    let session = Session::spawn(SessionOptions::new(path, role), rings.clone())?;
    Ok((session, rings))
}

/// Asserts that the session ends when it is stopped.
fn assert_stops(session: Session, when: &str) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        session.stop();
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(PATIENCE).is_ok(), "does not stop {when}");
}

#[test]
fn a_server_listens_again_after_each_disconnect() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, rings) = spawn(&path, Role::Server).unwrap();
    let waiting = rings.recorded().disconnects;
    for round in 1..=20 {
        let frontend = RawFrontend::connect(&path);
        frontend.negotiate();
        assert_eq!(session.status().state, SessionState::Connected);
        drop(frontend);
        eventually("the disconnect is noticed", || rings.recorded().disconnects == waiting + round);
    }
    eventually("it listens", || session.status().state == SessionState::Listening);
    assert_eq!(session.status().connects, 20);
    eventually("a frontend that leaves at once is named", || {
        drop(RawFrontend::connect(&path));
        session
            .status()
            .last_error
            .is_some_and(|error| error.contains("before it had set up its device"))
    });
}

#[test]
fn a_server_serves_a_limited_number_of_connections_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, _rings) = spawn(&path, Role::Server).unwrap();
    let (began, before) = (Instant::now(), session.status().connects);
    while began.elapsed() < Duration::from_millis(300) {
        RawFrontend::connect(&path).negotiate();
    }
    let limit = began.elapsed().as_millis() as u64 / 10 + 1;
    let connects = session.status().connects - before;
    assert!((2..=limit).contains(&connects), "{connects} connections, at most {limit}");
}

#[test]
fn a_client_reconnects_without_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, _) = spawn(&path, Role::Client).unwrap();
    eventually("it reports that no frontend is there", || session.status().last_error.is_some());
    assert_eq!(session.status().state, SessionState::Connecting);
    for round in 1..=3 {
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            RawFrontend::new(listener.accept().unwrap().0).negotiate();
        }
        drop(listener);
        let connects = || session.status().connects;
        eventually("both connections were counted", || connects() >= 2 * round);
        // Refused for a while before the file goes, too.
        eventually("it tries", || session.status().last_error.is_some());
        fs::remove_file(&path).unwrap();
    }
    assert_stops(session, "while it looks for a frontend");
}

#[test]
fn stopping_works_wherever_the_thread_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let half = message(SET_FEATURES, 1, &[0; 8]);
    let cases: [(&str, &[u8]); 4] = [
        ("between requests", &[]),
        ("in the middle of a header", &half[..5]),
        ("before a body", &half[..12]),
        // One of the requests that the session takes off the socket by itself.
        ("in the middle of an early enable", &message(SET_VRING_ENABLE, 1, &[0; 8])[..15]),
    ];
    assert_stops(spawn(&path, Role::Server).unwrap().0, "while it listens");
    for (when, bytes) in cases {
        let (session, rings) = spawn(&path, Role::Server).unwrap();
        let frontend = RawFrontend::connect(&path);
        frontend.negotiate();
        assert!(frontend.send_raw(bytes, &[]));
        let handle = session.handle();
        assert_stops(session, when);
        assert!(frontend.is_closed());
        assert_eq!(handle.status().state, SessionState::Stopped);
        assert!(rings.recorded().memory.is_none());
        assert!(!path.exists(), "the socket file is left behind");
    }
}

#[test]
fn stopping_works_while_the_frontend_reads_no_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, _) = spawn(&path, Role::Server).unwrap();
    let frontend = RawFrontend::connect(&path);
    frontend.negotiate();
    // Until both directions are full: then the session sits in its write.
    frontend.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = message(GET_FEATURES, 1, &[]);
    while frontend.send_raw(&ask, &[]) {}
    assert_stops(session, "while it writes");
}

#[test]
fn a_partial_message_blocks_no_other_session() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("1"), dir.path().join("2"));
    let (first, _) = spawn(&one, Role::Server).unwrap();
    let (_second, _) = spawn(&other, Role::Server).unwrap();
    let stuck = RawFrontend::connect(&one);
    assert!(stuck.send_raw(&[1, 0, 0], &[]));
    RawFrontend::connect(&other).negotiate();
    drop(stuck);
    eventually("the broken message is reported", || {
        first.status().last_error.is_some_and(|e| e.contains("in the middle"))
    });
    RawFrontend::connect(&one).negotiate();
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let refused = |path: &Path| match spawn(path, Role::Server) {
        Err(SessionError::Socket(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was taken", path.display()),
    };

    drop(UnixListener::bind(&path).unwrap());
    let (session, _) = spawn(&path, Role::Server).unwrap();
    RawFrontend::connect(&path).negotiate();

    // A second one does not take it away from the first.
    let error = refused(&path);
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    RawFrontend::connect(&path).negotiate();

    // A socket of another process at the same path survives the end of the session.
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert_stops(session, "without its file");
    assert!(path.exists());

    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(refused(&file), SocketError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(matches!(refused(&link), SocketError::NotASocket(_)));

    let nowhere = dir.path().join("no/such/directory");
    assert!(matches!(refused(&nowhere), SocketError::NoDirectory(_)));
    let long = dir.path().join("x".repeat(108));
    assert!(refused(&long).to_string().contains("a socket's may have at most 107"));
    let longest = dir.path().join("x".repeat(106 - dir.path().as_os_str().len()));
    assert_eq!(longest.as_os_str().len(), 107);
    spawn(&longest, Role::Server).unwrap();
    assert!(matches!(
        spawn(&long, Role::Client),
        Err(SessionError::Socket(SocketError::TooLong(_)))
    ));
}

#[test]
fn queue_pairs_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    for (queue_pairs, ok) in [(0, false), (1, true), (128, true), (129, false)] {
        let options = SessionOptions::new(dir.path().join("s"), Role::Server);
        let options = SessionOptions { queue_pairs, ..options };
        assert_eq!(Session::spawn(options, MockRings::new()).is_ok(), ok, "{queue_pairs}");
    }
}

/// A frontend that listens but never accepts must not hold the client in `connect`.
#[test]
fn a_client_stops_although_the_listener_does_not_accept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut queue = Vec::new();
    let full = rustix::net::SocketFlags::NONBLOCK;
    loop {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket_with};
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, full, None).unwrap();
        if connect(&socket, &SocketAddrUnix::new(&path).unwrap()).is_err() {
            break;
        }
        queue.push(socket);
    }
    let (session, _) = spawn(&path, Role::Client).unwrap();
    eventually("it finds the queue full", || {
        session.status().last_error.is_some_and(|e| e.contains("does not accept"))
    });
    assert_stops(session, "before a listener with a full queue");
    let (mut first, _): (UnixStream, _) = listener.accept().unwrap();
    drop(queue);
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
}

#[test]
fn without_a_cable_there_is_no_connection_in_either_role() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, rings) = spawn(&path, Role::Server).unwrap();
    for round in 1..=20 {
        let mut frontend = RawFrontend::connect(&path);
        frontend.negotiate();
        let before = rings.recorded().disconnects;
        session.set_cable(false);
        eventually("the session closes the connection", || {
            frontend.stream.read(&mut [0; 1]).is_ok_and(|n| n == 0)
        });
        eventually("the port is recorded", || rings.recorded().disconnects > before);
        eventually("connections are refused", || UnixStream::connect(&path).is_err());
        assert_eq!(session.status().state, SessionState::Unplugged);
        session.set_cable(true);
        eventually("it listens again", || UnixStream::connect(&path).is_ok());
        assert!(session.status().connects >= round);
    }
    session.set_cable(false);
    assert_stops(session, "without a cable");

    let path = dir.path().join("c");
    let listener = UnixListener::bind(&path).unwrap();
    let options = SessionOptions { cable: false, ..SessionOptions::new(&path, Role::Client) };
    let session = Session::spawn(options, MockRings::new()).unwrap();
    assert_eq!(session.status().state, SessionState::Unplugged);
    for round in 1..=20 {
        session.set_cable(true);
        let (mut stream, _) = listener.accept().unwrap();
        eventually("it is connected", || session.status().connects == round);
        session.set_cable(false);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is hung up on");
    }
    assert_stops(session, "without a cable");
}
