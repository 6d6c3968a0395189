//! The real daemon and `tramactl`.

mod launch;
mod service;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use launch::launch;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::family::{self, Member};
use crate::host::{CommandResult, Host};
use crate::netns::Netns;
use crate::process::{POLL, Process, SOON, child, unique, wait_until};

/// Metrics as scraped: name with labels to value.
pub type Metrics = BTreeMap<String, f64>;

/// The `[daemon]` table of a test.
const DAEMON: &str = "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
                      metrics = \"{metrics}\"\n\n";

/// What a stand-in logs before its process id.
const GOES_ON: &str = "going on as process ";
/// What a switch logs at the end of its start.
const READY: &str = "ready after ";
/// What a switch logs when it adds a port.
const STEP: &str = "add port ";
/// What a daemon logs that has taken over from another one.
const TOOK_OVER: &str = "took over from process ";
/// What a daemon logs before the process id of its successor.
const STARTED: &str = "started process ";
/// In the daemon's directory: its program, if it has one of its own.
pub const OWN_PROGRAM: &str = "tramad";
/// The same: the service manager's socket, if there is one.
const MANAGER: &str = "manager.sock";
/// The same: variables of the daemon's environment, one a line.
const VARIABLES: &str = "variables";
/// How long a killed daemon's other processes may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// Wrapper (file name and Python text) that runs a program and its children as on a host without
/// IPv6: a seccomp(2) filter makes sockets of that family (10) fail with `EAFNOSUPPORT` (97).
const WITHOUT_IPV6: (&str, &str) = (
    "without-ipv6.py",
    r#"
import ctypes, os, struct, sys
SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, FIRST_ARGUMENT, ERROR, ALLOW = 0, 16, 0x50000, 0x7FFF0000
steps = [(LOAD, 0, 0, NUMBER), (EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, FIRST_ARGUMENT),
         (EQUAL, 0, 1, 10), (RETURN, 0, 0, ERROR | 97), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
PR_SET_SECCOMP, FILTER = 22, 2
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_SECCOMP, FILTER, program) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#,
);

/// A running `tramad` with its own configuration; dropping it kills the daemon and all its
/// processes.
pub struct Tramad {
    process: Process,
    dir: TempDir,
    metrics: SocketAddr,
    /// The namespace that it runs in; `None` for the test's own.
    netns: Option<String>,
    /// The process that goes on after the last kill.
    stand_in: Option<Pid>,
}

impl Tramad {
    /// Starts the daemon and waits until it answers. In `configuration`, `{dir}` stands for a new
    /// directory and `{metrics}` for a free address; a `[daemon]` table is added if missing.
    #[track_caller]
    pub fn start(configuration: &str) -> Tramad {
        Tramad::start_on(None, configuration, |_| {})
    }

    /// As [`Tramad::start`], but does not wait for anything.
    #[track_caller]
    pub fn begin(configuration: &str) -> Tramad {
        Tramad::launch_on(None, configuration, |_| {})
    }

    /// As [`Tramad::start`], in a namespace as its host; its metrics are reachable only there.
    #[track_caller]
    pub fn start_in(host: &Netns, configuration: &str) -> Tramad {
        Tramad::start_on(Some(host), configuration, |_| {})
    }

    /// As [`Tramad::start_in`], with a private `/etc` whose only file is a `resolv.conf` with these
    /// DNS servers.
    #[track_caller]
    pub fn start_inside(netns: &Netns, resolvers: &[&str], configuration: &str) -> Tramad {
        Tramad::start_on(Some(netns), configuration, |dir| {
            std::fs::create_dir(dir.join("etc")).expect("its own /etc");
            write_resolvers(dir, resolvers);
        })
    }

    /// As [`Tramad::start_in`], as on a host booted without IPv6.
    #[track_caller]
    pub fn start_without_ipv6(host: &Netns, configuration: &str) -> Tramad {
        Tramad::start_on(Some(host), configuration, |dir| {
            std::fs::write(dir.join(WITHOUT_IPV6.0), WITHOUT_IPV6.1).expect("a program");
        })
    }

    #[track_caller]
    fn start_on(netns: Option<&Netns>, configuration: &str, prepare: impl FnOnce(&Path)) -> Tramad {
        let mut tramad = Tramad::launch_on(netns, configuration, prepare);
        tramad.wait_until_ready();
        tramad
    }

    /// `prepare` gets the daemon's directory before the daemon starts.
    #[track_caller]
    fn launch_on(
        netns: Option<&Netns>,
        configuration: &str,
        prepare: impl FnOnce(&Path),
    ) -> Tramad {
        let dir = tempfile::tempdir().expect("temporary directory");
        let metrics = free_address();
        let mut text = configuration.to_owned();
        if !text.contains("[daemon]") {
            text.insert_str(0, DAEMON);
        }
        let text = text
            .replace("{dir}", &dir.path().display().to_string())
            .replace("{metrics}", &metrics.to_string());
        std::fs::create_dir(dir.path().join("state")).expect("state directory");
        std::fs::write(dir.path().join("trama.toml"), text).expect("configuration file");
        prepare(dir.path());
        let netns = netns.map(|netns| netns.name().to_owned());
        let process = launch(dir.path(), netns.as_deref(), &[]);
        Tramad { process, dir, metrics, netns, stand_in: None }
    }

    /// As [`Tramad::start`], with these variables in its environment.
    #[track_caller]
    pub fn start_with(variables: &[(&str, &str)], configuration: &str) -> Tramad {
        Tramad::start_on(None, configuration, |dir| write_variables(dir, variables))
    }

    /// As [`Tramad::start`], from a copy of the program that the test may replace.
    #[track_caller]
    pub fn start_copy(configuration: &str) -> Tramad {
        Tramad::start_on(None, configuration, |dir| {
            std::fs::copy(binary("tramad"), dir.join(OWN_PROGRAM)).expect("a copy");
        })
    }

    /// As [`Tramad::start`], with a socket on which the service manager listens.
    #[track_caller]
    pub fn start_managed(configuration: &str) -> (Tramad, UnixDatagram) {
        Tramad::start_managed_with(&[], configuration)
    }

    /// The same, with these variables in its environment.
    #[track_caller]
    pub fn start_managed_with(
        variables: &[(&str, &str)],
        configuration: &str,
    ) -> (Tramad, UnixDatagram) {
        let mut manager = None;
        let tramad = Tramad::start_on(None, configuration, |dir| {
            write_variables(dir, variables);
            manager = UnixDatagram::bind(dir.join(MANAGER)).ok();
        });
        (tramad, manager.expect("a socket"))
    }

    /// Replaces the `resolv.conf` of a daemon started with [`Tramad::start_inside`], by a rename as
    /// system tools do.
    pub fn set_resolvers(&self, resolvers: &[&str]) {
        write_resolvers(self.dir.path(), resolvers);
    }

    /// Returns a path in the daemon's directory, where its sockets are.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the text of the configuration file.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.path("trama.toml")).expect("configuration file")
    }

    /// Replaces the configuration file; `reload` makes the daemon read it.
    pub fn write_configuration(&self, text: &str) {
        std::fs::write(self.path("trama.toml"), text).expect("configuration file");
    }

    /// Runs `tramactl` with these arguments.
    pub fn try_ctl(&self, arguments: &[&str]) -> CommandResult {
        let output = Command::new(binary("tramactl"))
            .arg("--socket")
            .arg(self.path("control.sock"))
            .args(arguments)
            .output()
            .expect("run tramactl");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        CommandResult { status: output.status.code().unwrap_or(-1), text }
    }

    /// Runs `tramactl` with the words of `line`, which must succeed.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        let answer = self.try_ctl(&line.split_whitespace().collect::<Vec<_>>());
        let log = self.log();
        assert!(answer.status == 0, "tramactl {line}: {}\ntramad's log:\n{log}", answer.text);
        answer.text
    }

    /// Waits until a network's gateway has applied the daemon's settings: settings and queries
    /// share one ordered channel, so an answer proves it.
    #[track_caller]
    pub fn wait_for_gateway(&self, network: &str) {
        self.ctl(&format!("flows {network}"));
    }

    /// Returns one of a port's counters, as printed by `tramactl`.
    #[track_caller]
    pub fn statistic(&self, port: &str, name: &str) -> u64 {
        let text = self.ctl(&format!("get Interface {port} statistics:{name}"));
        text.trim().parse().unwrap_or_else(|_| panic!("statistics:{name} of {port} is {text}"))
    }

    /// Returns the address to scrape metrics from.
    pub fn metrics_address(&self) -> String {
        self.metrics.to_string()
    }

    /// Scrapes the metrics.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let mut stream = TcpStream::connect(self.metrics).expect("metrics address");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("ask for metrics");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read metrics");
        assert!(text.starts_with("HTTP/1.1 200"), "metrics: {text}");
        text.lines()
            .filter(|line| !line.starts_with('#') && line.starts_with("trama_"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a metric's value")))
            .collect()
    }

    /// Returns the sum of the samples of `name` whose labels contain each of `labels`.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        sum(&self.metrics(), name, labels)
    }

    /// Returns the daemon's log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the daemon has logged `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        self.process.wait_for_log(text, limit);
    }

    /// Returns the daemon's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns all processes that the daemon and those after it have started, and itself.
    pub fn members(&self) -> Vec<Member> {
        family::of(self.dir.path())
    }

    /// Returns its only process of this name, once there is one.
    #[track_caller]
    pub fn member(&self, name: &str) -> Member {
        wait_until(&format!("there is one {name}"), SOON, || {
            let mut found = self.members().into_iter().filter(|member| member.name == name);
            found.next().filter(|_| found.next().is_none())
        })
    }

    /// Returns the gateway processes of the daemon, in order of their start.
    pub fn gateways(&self) -> Vec<Pid> {
        self.processes("gateway runs as process ")
    }

    /// Returns the processes that have served the page, in order of their start.
    pub fn pages(&self) -> Vec<Pid> {
        let gateways = self.gateways();
        let all = self.processes(" runs as process ").into_iter();
        all.filter(|it| !gateways.contains(it)).collect()
    }

    /// The processes whose start the log tells so.
    fn processes(&self, text: &str) -> Vec<Pid> {
        let log = self.log();
        let ids = log.split(text).skip(1);
        let number =
            |text: &str| text.split([' ', ';', '\n']).next().and_then(|id| id.parse().ok());
        ids.filter_map(number).filter_map(Pid::from_raw).collect()
    }

    /// Waits for the next gateway process after the first `known` ones.
    #[track_caller]
    pub fn gateway_after(&self, known: usize) -> Pid {
        wait_until("a gateway runs", SOON, || self.gateways().get(known).copied())
    }

    /// Ends the daemon that the test has started, which must end cleanly; another process may go
    /// on.
    #[track_caller]
    pub fn end_process(&mut self, signal: Signal) {
        let status = self.process.end(signal, SOON);
        assert!(status.success(), "tramad ended with {status}; its log:\n{}", self.log());
    }

    /// Returns whether the daemon still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("signal tramad");
    }

    /// Ends the daemon with `signal` and restarts it on the same files.
    #[track_caller]
    pub fn restart(&mut self, signal: Signal) {
        self.restart_after(signal, |_| {});
    }

    /// The same; does something in between.
    #[track_caller]
    pub fn restart_after(&mut self, signal: Signal, meanwhile: impl FnOnce(&Tramad)) {
        self.process.end(signal, SOON);
        meanwhile(self);
        self.start_again();
    }

    /// Starts another daemon, which is to take over; waits until it has begun to build, and ends
    /// this one then.
    #[track_caller]
    pub fn end_during_take_over(&mut self, signal: Signal) {
        let before = self.starts();
        let steps = self.log().matches(STEP).count();
        let new = launch(self.dir.path(), self.netns.as_deref(), &["--take-over"]);
        let mut old = std::mem::replace(&mut self.process, new);
        let until = Instant::now() + SOON;
        while self.log().matches(STEP).count() <= steps {
            assert!(Instant::now() < until, "{}", self.log());
        }
        let status = old.end(signal, SOON);
        assert!(status.success(), "tramad ended with {status}; its log:\n{}", self.log());
        self.wait_for_start(before);
    }

    /// Kills the daemon and waits until a stand-in serves; returns its process.
    #[track_caller]
    pub fn kill_and_follow(&mut self) -> Pid {
        self.end_and_follow(Signal::KILL)
    }

    /// The same by another signal, which the daemon does not handle.
    #[track_caller]
    pub fn end_and_follow(&mut self, signal: Signal) -> Pid {
        let known = self.log().matches(GOES_ON).count();
        match self.stand_in {
            Some(pid) => kill_process(pid, signal).expect("a stand-in"),
            None => drop(self.process.end(signal, SOON)),
        }
        self.wait_for_stand_in(known)
    }

    /// Waits until another stand-in serves after the first `known` ones; returns its process.
    #[track_caller]
    pub fn wait_for_stand_in(&mut self, known: usize) -> Pid {
        let pid = wait_until("a stand-in goes on", SOON, || {
            let log = self.log();
            let (_, new) = log.match_indices(GOES_ON).nth(known).map(|(at, _)| log.split_at(at))?;
            new.contains(READY).then_some(())?;
            let id: String =
                new[GOES_ON.len()..].chars().take_while(char::is_ascii_digit).collect();
            Pid::from_raw(id.parse().ok()?)
        });
        self.stand_in = Some(pid);
        pid
    }

    /// Kills the daemon and its helper, so that no stand-in follows.
    #[track_caller]
    pub fn kill_with_helper(&mut self) {
        let helper = child(self.id(), "trama:helper");
        kill_process(Pid::from_raw(helper as i32).expect("a process"), Signal::KILL).expect("kill");
        self.process.end(Signal::KILL, SOON);
    }

    /// Starts the daemon again on the same files; a stand-in, if there is one, ends.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    /// The same, with these options.
    #[track_caller]
    pub fn start_again_with(&mut self, options: &[&str]) {
        let before = self.starts();
        self.process = launch(self.dir.path(), self.netns.as_deref(), options);
        self.stand_in = None;
        self.wait_for_start(before);
    }

    /// As [`Tramad::start_again`], but does not wait until it answers.
    #[track_caller]
    pub fn begin_again(&mut self) {
        let before = self.starts();
        self.process = launch(self.dir.path(), self.netns.as_deref(), &[]);
        self.stand_in = None;
        wait_until("tramad is ready", SOON, || (self.starts() > before).then_some(()));
    }

    /// Starts another daemon on the same files, which takes over from this one; the old one must
    /// end cleanly.
    #[track_caller]
    pub fn take_over(&mut self) {
        let before = self.starts();
        let new = launch(self.dir.path(), self.netns.as_deref(), &["--take-over"]);
        let mut old = std::mem::replace(&mut self.process, new);
        let status = wait_until("the old daemon ends", SOON, || old.status());
        assert!(status.success(), "tramad ended with {status}; its log:\n{}", self.log());
        self.wait_for_start(before);
    }

    /// Starts another daemon on the same files, which must end by itself and fail; returns its log.
    #[track_caller]
    pub fn start_another(&self, options: &[&str]) -> String {
        let before = self.log().len();
        let mut other = launch(self.dir.path(), self.netns.as_deref(), options);
        let status = wait_until("the other daemon ends", SOON, || other.status());
        assert!(!status.success());
        self.log()[before..].to_owned()
    }

    /// Returns how many switches have finished their start.
    fn starts(&self) -> usize {
        self.log().matches(READY).count()
    }

    /// Waits until another switch than the first `before` ones is ready. The one before may answer
    /// on the control socket until then.
    #[track_caller]
    fn wait_for_start(&mut self, before: usize) {
        wait_until("tramad is ready", SOON, || {
            assert!(self.is_running(), "tramad ended at once:\n{}", self.log());
            (self.starts() > before).then_some(())
        });
        self.wait_until_ready();
    }

    /// Has a successor take over, which `ask` asks for; returns for how long frames have waited, in
    /// milliseconds.
    #[track_caller]
    pub fn upgrade(&mut self, ask: impl FnOnce(&Tramad)) -> f64 {
        let known = self.log().matches(TOOK_OVER).count();
        ask(self);
        let (process, waited) = wait_until("a successor takes over", SOON, || {
            let log = self.log();
            let (at, _) = log.match_indices(TOOK_OVER).nth(known)?;
            log[at..].contains("ready after").then_some(())?;
            let waited = log[at..].split_once("frames waited ")?.1.split_once(" ms")?.0;
            let process = log[..at].rsplit_once(STARTED)?.1.split_once(',')?.0;
            Some((Pid::from_raw(process.parse().ok()?)?, waited.parse().ok()?))
        });
        self.stand_in = Some(process);
        waited
    }

    /// Sends a signal to the process that moves the frames now.
    pub fn signal_current(&self, signal: Signal) {
        match self.stand_in {
            Some(process) => kill_process(process, signal).expect("signal tramad"),
            None => self.signal(signal),
        }
    }

    /// Stops the daemon, and checks that it ends cleanly.
    #[track_caller]
    pub fn stop(self) {
        self.stop_and_look(|_| {});
    }

    /// As [`Tramad::stop`]; then `look` may inspect what is left in its directory.
    #[track_caller]
    pub fn stop_and_look(mut self, look: impl FnOnce(&Path)) {
        let status = self.process.end(Signal::TERM, SOON);
        assert!(status.success(), "tramad ended with {status}; its log:\n{}", self.log());
        look(self.dir.path());
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        wait_until("tramad answers", SOON, || {
            assert!(self.is_running(), "tramad ended at once:\n{}", self.log());
            // The control socket answers before ports and networks are there.
            let is_over = self.log().contains("ready after");
            (is_over && self.try_ctl(&["version"]).status == 0).then_some(())
        });
    }
}

impl Drop for Tramad {
    fn drop(&mut self) {
        // Without a control socket no stand-in follows, and one that runs ends.
        let _ = std::fs::remove_file(self.path("control.sock"));
        self.process.kill();
        if let Some(pid) = self.stand_in.take() {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + ENDING;
        // A helper ends the keeper; if the test has failed or killed one, others may be left.
        while !self.members().is_empty() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        self.members().iter().for_each(Member::kill);
    }
}

/// Returns the sum of the samples of `name` whose labels contain each of `labels`.
pub fn sum(metrics: &Metrics, name: &str, labels: &[&str]) -> u64 {
    let matches = |key: &str| {
        let (found, rest) = key.split_once('{').unwrap_or((key, ""));
        found == name && labels.iter().all(|label| rest.contains(label))
    };
    metrics.iter().filter(|(key, _)| matches(key)).map(|(_, value)| *value as u64).sum()
}

/// Returns the path of a program of the workspace: beside this program, or above this test.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("path of this program");
    let mut paths = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    paths
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace --bins"))
}

/// Returns a loopback address without a listener, unique to this process because it is derived from
/// the process id. (A port that was free a moment ago may be taken.)
pub fn free_address() -> SocketAddr {
    // Process ids have at most 22 bits (`PID_MAX_LIMIT`). Other programs use addresses in
    // 127.0.0.0/10.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = u16::try_from(10_000 + unique()).expect("a port");
    SocketAddr::from(([127, 64 | high, middle, low], port))
}

fn write_variables(dir: &Path, variables: &[(&str, &str)]) {
    let lines: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(dir.join(VARIABLES), lines).expect("variables");
}

fn write_resolvers(dir: &Path, resolvers: &[&str]) {
    let lines: String = resolvers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let (new, file) = (dir.join("etc/resolv.conf.new"), dir.join("etc/resolv.conf"));
    std::fs::write(&new, lines).expect("resolv.conf");
    std::fs::rename(new, file).expect("resolv.conf");
}
