//! What the daemon's processes cannot do, each tried in a process that is restricted as they are.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use trama_keeper::{Claim, Keeper, LONGEST_VALUE, listen_at};
use trama_test_kit::requests::{GET_FEATURES, message};
use trama_tests::tramad::binary;
use trama_tests::{SOON, wait_until};

/// How an attempt ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Done,
    /// The call fails with this error.
    Refused(i32),
    /// The process is killed for the call.
    Killed,
}

use End::{Done, Killed, Refused};

/// EPERM, EACCES, ENOSYS.
const PERM: End = Refused(1);
const ACCESS: End = Refused(13);
const UNKNOWN: End = Refused(38);
/// The signal of a filter that kills.
const SIGSYS: i32 = 31;

/// What is tried, and how it ends in a switch, a gateway, a helper and a keeper.
const ATTEMPTS: &[(&str, End, End, End, End)] = &[
    ("exec", Killed, Killed, Done, UNKNOWN),
    ("spawn", PERM, PERM, Done, UNKNOWN),
    ("thread", Done, Done, Done, UNKNOWN),
    ("ptrace", Killed, Killed, Killed, Killed),
    ("exec-memory", PERM, PERM, Done, PERM),
    ("unshare", Killed, Killed, Done, Killed),
    ("socket-unix", PERM, PERM, Done, UNKNOWN),
    ("socket-netlink", Done, PERM, Done, UNKNOWN),
    // A helper without capabilities.
    ("socket-packet", PERM, PERM, PERM, UNKNOWN),
    ("socket-raw", PERM, PERM, PERM, UNKNOWN),
    ("socket-tcp", PERM, Done, Done, UNKNOWN),
    ("socket-udp6", PERM, Done, Done, UNKNOWN),
    ("listen", PERM, Done, Done, UNKNOWN),
    ("bind-udp", PERM, Done, Done, UNKNOWN),
    ("open-shadow", ACCESS, ACCESS, Done, UNKNOWN),
    ("open-program", ACCESS, ACCESS, Done, UNKNOWN),
    ("write-file", ACCESS, ACCESS, Done, UNKNOWN),
    ("signal", UNKNOWN, UNKNOWN, Done, UNKNOWN),
    ("unlisted", UNKNOWN, UNKNOWN, Done, UNKNOWN),
];

/// The end of an attempt in a process of its own.
#[track_caller]
fn attempt(process: &str, what: &str) -> End {
    let mut command = Command::new(binary("tramad"));
    // A trap would end each attempt in the same way.
    command.args(["probe-sandbox", process, what]).env_remove("TRAMA_SANDBOX");
    let output = command.output().expect("run tramad");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.signal() == Some(SIGSYS) {
        return Killed;
    }
    // The program that was executed prints nothing.
    if output.status.success() && matches!(text.trim(), "done" | "") {
        return Done;
    }
    let number = text.trim().rsplit_once("(os error ").and_then(|(head, number)| {
        let number = number.strip_suffix(')')?.parse().ok()?;
        head.starts_with("refused: ").then_some(number)
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    Refused(number.unwrap_or_else(|| panic!("{process} {what}: {text}{errors}{:?}", output.status)))
}

#[test]
fn restricted_processes_cannot_do_what_they_never_need() {
    for (what, switch, gateway, helper, keeper) in ATTEMPTS {
        let ends = [("switch", switch), ("gateway", gateway), ("helper", helper)];
        for (process, end) in ends.into_iter().chain([("keeper", keeper)]) {
            assert_eq!(attempt(process, what), *end, "{what} in a {process}");
        }
    }
}

#[test]
fn under_a_trap_a_call_that_is_not_on_the_list_is_named() {
    // A keeper may not ask for its name either.
    for (process, place) in [("gateway", ", in tramad\n"), ("keeper", "\n")] {
        let mut command = Command::new(binary("tramad"));
        command.args(["probe-sandbox", process, "unlisted"]).env("TRAMA_SANDBOX", "trap");
        let output = command.output().expect("run tramad");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.starts_with("sandbox: system call "), "{errors}");
        assert!(errors.ends_with(&format!(" is not on the list{place}")), "{errors}");
        assert_eq!(output.status.code(), Some(159), "{errors}");
    }
}

#[test]
fn a_keeper_needs_only_the_calls_on_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keeper");
    let mut command = Command::new(binary("tramad"));
    command.arg("keeper").stdin(Stdio::from(listen_at(&path).unwrap()));
    // The switch that has started it ends at once, and this process is the next one.
    let flags = SocketFlags::CLOEXEC;
    let (_, first) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    command.stdout(Stdio::from(first));
    let mut process = command.env("TRAMA_SANDBOX", "trap").spawn().expect("run tramad");
    let keeper = Keeper::find(&path).unwrap().expect("it listens");
    keeper.attach(Claim::Main).unwrap();
    let value = vec![7; LONGEST_VALUE];
    for number in 0..200 {
        keeper.put(&number.to_string(), &value, &[folder_of(&path).as_fd()]).unwrap();
    }
    assert_eq!(keeper.get("7").unwrap().expect("an entry").fds.len(), 1);
    let (mut frontend, theirs) = UnixStream::pair().unwrap();
    let mut stream = keeper.relay("vm1", b"", theirs).unwrap();
    let (asks, reply) = (message(GET_FEATURES, 1, b""), message(GET_FEATURES, 5, &[0; 8]));
    frontend.write_all(&asks).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    stream.write_all(&reply).unwrap();
    keeper.done("vm1").unwrap();
    frontend.read_exact(&mut [0; 20]).unwrap();
    assert_eq!(keeper.resume("vm1").unwrap().expect("a connection").messages, 1);
    keeper.close("vm1").unwrap();
    // A successor that tells it to freeze, and is gone.
    let freeze = keeper.freeze_event().expect("it has attached");
    let successor = Keeper::find(&path).unwrap().expect("it listens");
    successor.attach(Claim::TakeOver).unwrap();
    std::thread::scope(|scope| {
        let goes = scope.spawn(|| successor.go());
        poll(&mut [PollFd::new(&freeze, PollFlags::IN)], None).unwrap();
        successor.leave();
        goes.join().unwrap().unwrap_err();
    });
    wait_until("it is not told any more", SOON, || (!keeper.is_followed()).then_some(()));
    assert!(!keeper.forget_freeze());
    keeper.end().unwrap();
    let status = process.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// An open folder.
fn folder_of(path: &std::path::Path) -> std::fs::File {
    std::fs::File::open(path.parent().expect("a folder")).expect("it is there")
}
