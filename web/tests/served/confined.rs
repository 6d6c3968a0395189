//! The process as it runs: with its sockets as descriptors, and without rights.

use std::io::IoSlice;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketType, sendmsg_addr, sendto, socket,
};
use rustix::process::geteuid;
use trama_sandbox::{Mode, TRAP_VARIABLE, probe};
use trama_web::link::pair;
use trama_web::process::{Options, confine, run};

use crate::Site;
use crate::browser::PATIENCE;
use crate::daemon::{Daemon, Inner};

/// MSG_FASTOPEN of tcp(7).
const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
/// Says in the process that is to be confined that it is.
const INSIDE: &str = "TRAMA_TEST_WEB";

/// The process; not a test unless another one has started it.
#[test]
fn confined_process() {
    if std::env::var_os(INSIDE).is_some() {
        let is_root = geteuid().is_root();
        let user = is_root.then_some((65534, 65534));
        let options = Options { user, own_mounts: is_root, sandbox: Mode::Enforce };
        run(options).unwrap();
    }
}

/// Things that it must not be able to do.
const ATTEMPTS: &[&str] = &[
    "socket-unix",
    "socket-netlink",
    "socket-tcp",
    "socket-udp6",
    "listen",
    "open-shadow",
    "open-program",
    "write-file",
    "signal",
    "unlisted",
];

#[test]
fn a_confined_thread_opens_nothing() {
    let confined = thread::spawn(|| {
        let missing = confine(Options { sandbox: Mode::Enforce, ..Options::default() }).unwrap();
        let attempt = |name: &&&str| probe::attempt(name).unwrap().is_ok();
        // Files are refused by a kernel that has Landlock.
        let is_file = |name: &str| name.starts_with("open") || name == "write-file";
        let tried = ATTEMPTS.iter().filter(|name| missing.is_empty() || !is_file(name));
        tried.filter(attempt).collect::<Vec<_>>()
    });
    assert_eq!(confined.join().unwrap(), [&""; 0]);
}

#[test]
fn a_confined_thread_connects_nothing_by_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let connect = move || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        move || {
            let (bytes, mut control) = ([IoSlice::new(b"x")], SendAncillaryBuffer::default());
            let by_message = sendmsg_addr(&socket, &to, &bytes, &mut control, FAST_OPEN);
            [by_message, sendto(&socket, b"x", FAST_OPEN, &to)]
        }
    };
    assert_eq!(connect()()[0], Ok(1), "a free thread can");
    let connect = connect();
    let confined = thread::spawn(move || {
        confine(Options { sandbox: Mode::Enforce, ..Options::default() }).unwrap();
        connect()
    });
    assert_eq!(confined.join().unwrap(), [Err(Errno::PERM); 2]);
}

/// Starts it with the link as descriptor 0 and the listening socket as descriptor 3.
fn start(link: std::os::fd::OwnedFd, listener: TcpListener) -> Child {
    let mut command = Command::new(if geteuid().is_root() { "unshare" } else { "sh" });
    if geteuid().is_root() {
        command.args(["--mount", "sh"]);
    }
    command.arg("-c").arg("exec \"$0\" \"$@\" 3>&1 1>&2").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "confined::confined_process", "--nocapture"]);
    command.env(INSIDE, "1").env(TRAP_VARIABLE, "trap");
    command.stdin(link).stdout(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    command.spawn().unwrap()
}

#[test]
fn the_confined_process_serves_all_and_ends_with_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (daemon, web) = pair().unwrap();
    let mut inner = Inner::default();
    inner.codes.insert("good".to_owned());
    inner.add_port("vm1");
    let daemon = Some(Daemon::start(daemon, inner));
    let mut process = start(web, listener);
    let mut site = Site { address, daemon, ended: mpsc::channel().1 };
    let cookie = site.get("/?code=good", "").cookie();
    let mut stream = site.stream(&cookie);
    stream.change(|_| true);
    assert_eq!(site.get("/", &cookie).status, 200);
    assert_eq!(site.get("/v1/history?port=vm1", &cookie).status, 200);
    assert_eq!(site.get("/v1/flows?network=lab", &cookie).status, 200);
    assert_eq!(site.get("/v1/capture?port=vm1&seconds=1", &cookie).text(), "frames;the end");
    assert_eq!(site.post("/v1/explain", &cookie, "{}").status, 422);
    drop(site.daemon.take());
    let begin = std::time::Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(status.success(), "{status}, signal {:?}", status.signal());
}
