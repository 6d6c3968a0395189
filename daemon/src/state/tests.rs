//! A switch is killed at each request that it makes of its keeper, from the first to the last one
//! of a life: it starts, a frontend connects, ports and networks come, change and go. The next
//! switch finds what was before the request or what was after it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, connect,
    recvmsg, sendmsg, socket_with,
};
use trama_keeper::{AttachError, Claim, Keeper, listen_at, serve};

use crate::crashes::Crashes;
use crate::events::By;

use super::*;

/// Names its directory to the process to be killed.
const DIRECTORY: &str = "TRAMA_TEST_DIRECTORY";
/// Ends a wait that would never end.
const PATIENCE: Duration = Duration::from_secs(60);
/// More requests than there are.
const MOST: usize = 500;
/// What a keeper may hold in this test.
const KEYS: [&str; 7] = [
    "counters",
    "macs/lab",
    "macs/more",
    "listen/{dir}/a.sock",
    "listen/{dir}/b.sock",
    "listen/{dir}/c.sock",
    "frontend/{dir}/b.sock",
];

/// The configurations of the life, one after the other.
fn configurations(dir: &Path) -> Vec<String> {
    let network =
        |name, entries| format!("[[network]]\nname = \"{name}\"\nmac-table-size = {entries}\n");
    let port = |name, network, more| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ntype = \"vhost-user\"\n\
             path = \"{}/{name}.sock\"\n{more}\n",
            dir.display()
        )
    };
    let daemon = format!("[daemon]\nstate = \"{}\"\n", dir.display());
    let lives = [
        vec![network("lab", 1024), port("a", "lab", ""), port("b", "lab", "")],
        vec![
            network("lab", 2048),
            network("more", 1024),
            port("b", "lab", "tag = 7"),
            port("c", "more", ""),
        ],
        vec![
            network("lab", 1024),
            port("b", "lab", "tag = 8"),
            port("a", "lab", "socket-mode = \"0600\""),
        ],
        vec![network("more", 1024), port("c", "more", "")],
    ];
    lives.into_iter().map(|parts| daemon.clone() + &parts.concat()).collect()
}

fn write(dir: &Path, text: &str) {
    let (new, file) = (dir.join("new"), dir.join("trama.toml"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < until, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a switch on the configuration that is on disk.
fn start(dir: &Path, keeper: &Keeper, resumes: bool) -> Arc<Daemon> {
    let mut source = Source::at(dir.join("trama.toml"));
    let config = source.read().unwrap();
    let rights = Rights::own(source.helper_setup(&config.daemon, false), "/bin/false");
    let rights = rights.with_keeper(Some(keeper.clone()), resumes);
    let daemon = Daemon::prepare(source, config, rights, Crashes::none()).unwrap();
    if resumes {
        daemon.hold();
    }
    daemon.build();
    daemon
}

/// The process to be killed.
#[test]
#[ignore = "the process that the other test starts and kills"]
fn life() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let keeper = Keeper::find(&dir.join("proxy")).unwrap().unwrap();
    keeper.attach(Claim::Main).unwrap();
    let lives = configurations(&dir);
    write(&dir, &lives[0]);
    let daemon = start(&dir, &keeper, false);
    wait_for("a frontend is served", || dir.join("served").exists());
    for text in &lives[1..] {
        write(&dir, text);
        daemon.reload(By::Signal).unwrap();
    }
    std::fs::write(dir.join("over"), "").unwrap();
    // Until it is killed.
    let _ = io::stdin().read(&mut [0]);
}

/// Passes one message on, with its descriptors; returns `false` at the end.
fn pass(from: &OwnedFd, to: &OwnedFd) -> bool {
    let mut bytes = vec![0; 128 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let Ok(received) = recvmsg(from, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) else {
        return false;
    };
    let length = received.bytes;
    let fds: Vec<OwnedFd> = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        })
        .collect();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    length > 0
        && sendmsg(to, &[IoSlice::new(&bytes[..length])], &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Passes this many requests of a process on, and all answers; kills it at the next request, or
/// when it has no more. Returns whether it had more.
fn cut(listener: &OwnedFd, keeper: &Path, requests: usize, child: &mut Child, over: &Path) -> bool {
    let switch = accept(listener).unwrap();
    let flags = SocketFlags::CLOEXEC;
    let server = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&server, &SocketAddrUnix::new(keeper).unwrap()).unwrap();
    let mut passed = 0;
    let more = loop {
        let mut fds = [PollFd::new(&switch, PollFlags::IN), PollFd::new(&server, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        poll(&mut fds, Some(&pause)).unwrap();
        let [asks, answers] = fds.map(|fd| !fd.revents().is_empty());
        if answers {
            assert!(pass(&server, &switch), "the keeper ends");
        } else if asks && passed == requests {
            break true;
        } else if asks {
            assert!(pass(&switch, &server), "the switch ends by itself");
            passed += 1;
        } else if over.exists() {
            break false;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    more
}

const GET_FEATURES: [u8; 12] = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// Asks a session for its features; returns whether it answers. An open connection that is silent
/// fails the test.
fn answers(mut frontend: &UnixStream) -> bool {
    frontend.set_read_timeout(Some(PATIENCE)).unwrap();
    if frontend.write_all(&GET_FEATURES).is_err() {
        return false;
    }
    let mut reply = [0; 20];
    match frontend.read_exact(&mut reply) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no answer"),
        result => result.is_ok(),
    }
}

/// What was true when the process was killed.
struct Killed {
    /// The frontend of port b, once it has connected, and whether it was answered.
    frontend: Option<(UnixStream, bool)>,
    had_more: bool,
}

/// Lives until the process has made this many requests.
fn live(dir: &Path, requests: usize) -> Killed {
    let proxy = listen_at(&dir.join("proxy")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::tests::life", "--ignored"])
        .env(DIRECTORY, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let frontend = scope.spawn(|| {
            let path = dir.join("b.sock");
            let stream = loop {
                match UnixStream::connect(&path) {
                    Ok(stream) => break stream,
                    Err(_) if is_over.load(Ordering::SeqCst) => return None,
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            (&stream).write_all(&GET_FEATURES).ok()?;
            let mut reply = [0; 20];
            while !is_over.load(Ordering::SeqCst) {
                match (&stream).read(&mut reply) {
                    Ok(0) => return None,
                    Ok(length) => {
                        assert_eq!(length, reply.len());
                        std::fs::write(dir.join("served"), "").unwrap();
                        return Some((stream, true));
                    }
                    Err(_) => {}
                }
            }
            Some((stream, false))
        });
        let had_more = cut(&proxy, &dir.join("keeper"), requests, &mut child, &dir.join("over"));
        is_over.store(true, Ordering::SeqCst);
        Killed { frontend: frontend.join().unwrap(), had_more }
    })
}

fn attach(path: &Path) -> Keeper {
    loop {
        let keeper = Keeper::find(path).unwrap().unwrap();
        match keeper.attach(Claim::StandIn) {
            Ok(_) => return keeper,
            Err(AttachError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks what the next switch makes of it; returns whether there was more to cut.
fn follow(requests: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let listener = listen_at(&dir.join("keeper")).unwrap();
    let server = std::thread::spawn(move || serve(listener, PATIENCE));
    let killed = live(dir, requests);

    let text = std::fs::read_to_string(dir.join("trama.toml"));
    let keeper = attach(&dir.join("keeper"));
    if let Ok(text) = text {
        assert!(configurations(dir).contains(&text));
        let daemon = start(dir, &keeper, true);
        let failed = daemon.lock().data_plane.failed.clone();
        assert!(failed.is_empty(), "request {requests}: {failed:?}");
        for key in KEYS {
            let key = key.replace("{dir}", &dir.display().to_string());
            let is_kept = keeper.get(&key).unwrap().is_some();
            let is_wanted = match key.split_once('/') {
                None => true,
                Some(("macs", network)) => {
                    text.contains(&format!("[[network]]\nname = \"{network}\""))
                }
                Some(("listen", path)) => text.contains(path),
                // Connections are no entries.
                _ => false,
            };
            assert_eq!(is_kept, is_wanted, "request {requests}: {key} of\n{text}");
        }
        match killed.frontend {
            Some((frontend, was_served)) if text.contains("b.sock") => {
                if !was_served {
                    // The reply to the first request, or the end.
                    frontend.set_read_timeout(Some(PATIENCE)).unwrap();
                    let first = (&frontend).read_exact(&mut [0; 20]);
                    let is_silent = first.is_err_and(|it| it.kind() == io::ErrorKind::WouldBlock);
                    assert!(!is_silent, "request {requests}: the frontend hangs");
                }
                let goes_on = answers(&frontend);
                assert!(goes_on || !was_served, "request {requests}: it was served before");
            }
            Some((frontend, _)) => assert!(!answers(&frontend), "request {requests}: no port"),
            None => {}
        }
        daemon.stop();
        drop(daemon);
        // The file of one that was removed just then stays: the helper removes it, if it lives.
        for name in ["a.sock", "b.sock", "c.sock"].iter().filter(|name| text.contains(**name)) {
            assert!(!dir.join(name).exists(), "request {requests}: {name}");
        }
    }
    keeper.end().unwrap();
    server.join().unwrap().unwrap();
    killed.had_more
}

#[test]
fn a_switch_that_is_killed_at_any_request_leaves_no_mixture() {
    let cuts = (0..MOST).take_while(|requests| follow(*requests)).count();
    println!("killed at each of {cuts} requests");
    assert!((15..MOST - 1).contains(&cuts), "{cuts} requests");
}
