//! The program itself: `--check`, start, signals, and a clean end.
#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const LAB: &str = r#"[daemon]
control = "@/run/control.sock"

[[network]]
name = "lab"

[[port]]
name = "vm1"
network = "lab"
type = "vhost-user"
path = "@/vm1.sock"
"#;

/// Writes a configuration into a temporary directory; `@` in the text stands for the directory.
fn lab(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lab.toml");
    write(&file, text, directory.path());
    (directory, file)
}

fn write(file: &Path, text: &str, directory: &Path) {
    fs::write(file, text.replace('@', &directory.display().to_string())).unwrap();
}

fn tramad(file: &Path) -> Command {
    // The daemon ends with the test, even if the test is killed. The wrapper execs it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_tramad")]);
    command.arg("--config").arg(file).env_remove("TRAMA_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// As [`tramad`], with the default file of a user whose folders are below this one.
fn of_user(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramad"));
    command.args(["--user", "--check"]).env_clear().env("HOME", folder);
    command.env("XDG_RUNTIME_DIR", folder);
    command
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_check_and_a_start_find_the_same_faults() {
    let text = LAB.replace("[daemon]\n", "[daemon]\ngroup = \"no-such-group\"\n");
    let (_directory, file) = lab(&text);
    let wanted = "lab.toml:2:9: daemon.group: there is no group \"no-such-group\"; make it with \
                  groupadd";
    for arguments in [&["--check"][..], &[]] {
        let (done, text) = said(&tramad(&file).args(arguments).output().unwrap());
        assert!(!done && text.contains(wanted), "{text}");
    }
}

#[test]
fn without_a_file_a_check_is_that_of_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let (done, text) = said(&of_user(folder.path()).output().unwrap());
    assert!(done && text.ends_with("trama.toml is not there: nothing is set up\n"), "{text}");
    // Not so if it was named.
    let named = tramad(&folder.path().join("trama.toml")).arg("--check").output();
    assert!(!said(&named.unwrap()).0);
    // There is no line to name.
    let (done, text) = said(&of_user(folder.path()).env_remove("HOME").output().unwrap());
    assert!(!done && text.starts_with("neither XDG_CONFIG_HOME nor HOME is set"), "{text}");
    let mut without_state = of_user(folder.path());
    without_state.env_remove("HOME").env("XDG_CONFIG_HOME", folder.path());
    let (done, text) = said(&without_state.output().unwrap());
    let wanted = "daemon.state: has no default: neither XDG_STATE_HOME nor HOME is set";
    assert!(!done && text.starts_with(wanted), "{text}");
}

/// A running daemon; killed if the test ends before it does.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    /// Starts the daemon and waits for its readiness message.
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut running = Self { child, log };
        running.wait_for("ready after");
        running
    }

    /// Reads the log up to a line that contains this text, and returns what was read.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).unwrap();
            seen.push_str(&line);
            assert!(length > 0, "{text:?} never came:\n{seen}");
            if line.contains(text) {
                return seen;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends the daemon by SIGTERM and expects a clean end.
    fn end(mut self) {
        self.signal(Signal::TERM);
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_says_what_would_be_built_or_what_is_wrong() {
    let (directory, file) = lab(LAB);
    let output = tramad(&file).arg("--check").output().unwrap();
    assert!(output.status.success());
    let wanted = "network lab: internal, MTU 1500\n\
                  port vm1: vhost-user, listens on @/vm1.sock; on lab, trunk\n";
    let wanted = wanted.replace('@', &directory.path().display().to_string());
    assert_eq!(text(&output).0, wanted);
    assert!(!directory.path().join("vm1.sock").exists(), "it only checks");

    write(&file, &LAB.replace("name = \"vm1\"", "tag = 5000"), directory.path());
    let output = tramad(&file).arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = file.display();
    let wanted = format!(
        "{shown}:7:1: port[0].name: is missing; give the port a name\n\
         {shown}:8:7: port[0].tag: 5000 is not a VLAN; use 0 to 4095\n"
    );
    assert_eq!(text(&output), (String::new(), wanted.clone()));
    let output = tramad(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "it does not start, either");
    assert!(wanted.lines().all(|line| text(&output).1.contains(line)));

    let missing = directory.path().join("missing.toml");
    let output = tramad(&missing).arg("--check").output().unwrap();
    let wanted =
        "No such file or directory (os error 2); make it, or name another one with --config FILE";
    assert!(text(&output).1.contains(wanted), "{}", text(&output).1);
}

#[test]
fn it_serves_and_ends_cleanly() {
    let (directory, file) = lab(LAB);
    let running = Running::start(tramad(&file));
    let control = directory.path().join("run/control.sock");
    assert_eq!(fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&control).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\ntrama_mac_entries{network=\"lab\"} 0\n"), "{answer}");

    let second = tramad(&file).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let wanted = "another tramad listens there; stop it first";
    assert!(text(&second).1.contains(wanted), "{}", text(&second).1);
    assert!(UnixStream::connect(directory.path().join("vm1.sock")).is_ok(), "undisturbed");

    running.end();
    assert!(!control.exists() && !directory.path().join("vm1.sock").exists());
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way_of_the_next() {
    let (directory, file) = lab(LAB);
    let mut first = Running::start(tramad(&file));
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let second = Running::start(tramad(&file));
    assert!(UnixStream::connect(directory.path().join("vm1.sock")).is_ok());
    second.end();
}

#[test]
fn hangup_applies_the_difference_of_the_file() {
    let (directory, file) = lab(LAB);
    let mut running = Running::start(tramad(&file));
    let more =
        format!("{LAB}tag = 7\n{}", LAB[LAB.find("[[port]]").unwrap()..].replace("vm1", "vm2"));
    write(&file, &more, directory.path());
    running.signal(Signal::HUP);
    let log = running.wait_for("reloaded: 2 steps");
    assert!(log.contains("set port vm1: tag") && log.contains("add port vm2"), "{log}");
    assert!(directory.path().join("vm2.sock").exists());
    write(&file, &more.replace("tag = 7", "tag = \"7\""), directory.path());
    running.signal(Signal::HUP);
    let log = running.wait_for("not reloaded: nothing has changed");
    assert!(log.contains("port.vm1.tag: is a string, not an integer"), "{log}");
    running.end();
}

#[test]
fn a_port_that_could_not_start_is_tried_again_by_itself() {
    let (directory, file) = lab(LAB);
    let blocked = directory.path().join("vm1.sock");
    fs::write(&blocked, "in the way").unwrap();
    let mut command = tramad(&file);
    command.stderr(Stdio::piped());
    let mut running = Running::start(command);
    fs::remove_file(&blocked).unwrap();
    running.wait_for("port vm1 runs now");
    running.end();
}

#[test]
fn the_service_manager_is_told() {
    let (directory, file) = lab(LAB);
    let path = directory.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let next = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = tramad(&file);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let running = Running::start(command);
    assert_eq!(next(), "READY=1");
    assert_eq!((next(), next()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    // Read while the daemon ends: the socket holds few messages, and a full one loses them.
    running.signal(Signal::TERM);
    let last = std::iter::repeat_with(next).find(|state| state != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    running.end();
}

#[test]
fn the_log_can_be_json() {
    let (_directory, file) = lab(LAB);
    let mut command = tramad(&file);
    command.args(["--log-format", "json"]).env("TRAMA_LOG", "info");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let is_found = std::iter::repeat_with(|| {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    })
    .any(|value| value["fields"]["message"] == "add network lab");
    assert!(is_found);
    let mut running = Running { child, log };
    running.wait_for("ready after");
    running.end();
}
