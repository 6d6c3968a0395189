//! The supervisor of a gateway, with programs that behave and programs that do not.
#![cfg(test)]

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use trama_daemon::events::Events;
use trama_daemon::gateway::{AskError, GatewayStatus, Starts, Supervisor};
use trama_dhcp::config::{Service, Settings};
use trama_gateway::Station;
use trama_gateway::control::{Channel, Command as Message, Report};
use trama_gateway::lifeline::Lifeline;
use trama_gateway::link::{self, Layout};
use trama_gateway::question::Question;
use trama_gateway::report::LeaseRow;
use trama_gateway::{Config, Dhcp};
use trama_helper::{Rights, Setup};
use trama_switch::{
    Device, HdrLen, NetworkSettings, PortFilter, PortSettings, Spin, VhostDevice, VlanMode,
    WorkerHandle, WorkerOptions,
};
use trama_vhost_net::SwitchPort;

/// Time limit for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(mtu: u16) -> Config {
    let ipv4 = "10.0.2.1/24".parse().ok();
    let (mac, ipv6, service_addresses) = ([2, 0, 0, 0, 0, 1], None, Vec::new());
    let station = Station { mac, mtu, ipv4, ipv6, service_addresses };
    let (hosts, tells_events, tells_answers) = (Vec::new(), true, true);
    Config { station, hosts, tftp: None, dhcp: None, nat: None, tells_events, tells_answers }
}

/// A worker with one network and a free port on it.
struct Lab {
    worker: WorkerHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    fn new() -> Lab {
        let options = WorkerOptions { spin: Spin::Never, name: "test".into(), seed: 1 };
        let (worker, thread) = WorkerHandle::spawn(options).unwrap();
        Lab { worker, thread: Some(thread) }
    }

    fn start(&self, program: impl Into<PathBuf>) -> Supervisor {
        self.start_as(program, config(1500))
    }

    fn start_as(&self, program: impl Into<PathBuf>, config: Config) -> Supervisor {
        let add = |engine: &mut trama_switch::Engine, _| {
            let network = engine.add_network(NetworkSettings {
                name: "lab".into(),
                mtu: 1500,
                mac_table_size: 64,
                mac_aging: Duration::from_secs(300),
            });
            let vlan = VlanMode::Access { tag: trama_frame::VlanId::NONE };
            let settings = PortSettings {
                name: "gateway".into(),
                network: Some(network),
                vlan,
                cable: true,
                filter: PortFilter::default(),
                mark: 0,
                hdr_len: HdrLen::Headers,
            };
            engine.add_port(settings, Device::Vhost(VhostDevice::new(1))).unwrap().0
        };
        let port = SwitchPort::new(self.worker.clone(), self.worker.call(add).unwrap()).unwrap();
        let starts = Starts::new(1);
        starts.open();
        let leases = config.dhcp.as_ref().and_then(|dhcp| dhcp.folder.parent());
        let state = leases.unwrap_or(Path::new("/none")).to_owned();
        let rights = Rights::own(Setup { state, ..Setup::default() }, program);
        let means = (rights, starts, Events::start(64).unwrap());
        Supervisor::start("lab", means, port, config).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.worker.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn wait_for(supervisor: &Supervisor, what: impl Fn(&GatewayStatus) -> bool) -> GatewayStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = supervisor.status();
        if what(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn programs_that_end_are_tried_again_after_longer_and_longer_pauses() {
    let lab = Lab::new();
    let began = Instant::now();
    let supervisor = lab.start("/bin/false");
    let status = wait_for(&supervisor, |status| status.restarts >= 4);
    // The fourth start comes after pauses of 100, 200 and 400 ms.
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(status.last_error.unwrap().contains("ended"));
    assert_eq!(status.process, None);
    supervisor.stop();

    let supervisor = lab.start("/none/such");
    let status = wait_for(&supervisor, |status| status.restarts >= 1);
    assert!(status.last_error.unwrap().contains("cannot be started"));
    supervisor.stop();
}

#[test]
fn another_mtu_makes_another_process_without_a_pause() {
    let lab = Lab::new();
    let supervisor = lab.start(env!("CARGO_BIN_EXE_tramad"));
    let first = wait_for(&supervisor, |status| status.process.is_some()).process;
    supervisor.configure(config(9000));
    let status = wait_for(&supervisor, |status| status.process != first);
    assert_eq!(status.restarts, 0, "that is no failure");
    let second = status.process.unwrap();
    supervisor.stop();
    assert!(!Path::new(&format!("/proc/{second}")).exists());
}

#[test]
fn a_program_that_does_not_end_is_ended() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let (script, pid) = (dir.path().join("deaf"), dir.path().join("pid"));
    // The program ends with the test, even if the test is killed.
    let text =
        format!("#!/bin/sh\necho $$ >{}\nwhile kill -0 $PPID; do sleep 1; done\n", pid.display());
    std::fs::write(&script, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let supervisor = lab.start(script);
    let id = wait_for_file(&pid);
    supervisor.stop();
    assert!(!Path::new(&format!("/proc/{id}")).exists());
}

fn stop_process(process: u32) {
    kill_process(Pid::from_raw(process as i32).unwrap(), Signal::STOP).unwrap();
}

#[test]
fn a_process_that_does_not_answer_is_replaced() {
    let lab = Lab::new();
    let supervisor = lab.start(env!("CARGO_BIN_EXE_tramad"));
    let first = wait_for(&supervisor, |status| status.process.is_some()).process.unwrap();
    stop_process(first);
    let status = wait_for(&supervisor, |status| status.restarts == 1);
    let reason = status.last_error.unwrap();
    assert!(reason.starts_with("does not answer for 3 s (state T, "), "{reason}");
    let status = wait_for(&supervisor, |status| status.process.is_some_and(|id| id != first));
    assert_eq!(status.restarts, 1);
    assert_eq!(supervisor.ask::<LeaseRow>().wait(PATIENCE), Ok(Vec::new()));
    supervisor.stop();
}

fn wait_for_file(path: &Path) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(id) = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()) {
            return id;
        }
        assert!(Instant::now() < deadline, "the program did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_question_is_answered_while_a_process_runs_and_refused_when_none_does() {
    let lab = Lab::new();
    let supervisor = lab.start(env!("CARGO_BIN_EXE_tramad"));
    let first = wait_for(&supervisor, |status| status.process.is_some()).process.unwrap();
    assert_eq!(supervisor.ask::<LeaseRow>().wait(PATIENCE), Ok(Vec::new()));
    stop_process(first);
    let pid = Pid::from_raw(first as i32).unwrap();
    let late = Duration::from_millis(20);
    assert_eq!(supervisor.ask::<LeaseRow>().wait(late), Err(AskError::Late(late)));
    let pending = supervisor.ask::<LeaseRow>();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(pending.wait(PATIENCE), Err(AskError::Gone));
    supervisor.stop();

    let supervisor = lab.start("/none/such");
    assert_eq!(supervisor.ask::<LeaseRow>().wait(PATIENCE), Err(AskError::Gone));
    supervisor.stop();
}

/// Returns the capabilities of each thread of a process.
fn capabilities(process: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let wanted = ["Name", "CapPrm", "CapEff", "NoNewPrivs"];
        let lines = status.lines().filter(|line| wanted.iter().any(|it| line.starts_with(it)));
        lines.collect::<Vec<_>>().join(" ")
    };
    tasks.map(|task| of_task(task.unwrap())).collect()
}

#[test]
fn no_thread_of_a_gateway_keeps_a_privilege() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        ranges: vec![[10, 0, 2, 101].into()..=[10, 0, 2, 254].into()],
        ..Settings::default()
    };
    let service = Service { settings, ipv6: false, host_search: false, ..Service::default() };
    let dhcp = Dhcp { folder: folder.path().join("leases"), seed: 1, service };
    let program = env!("CARGO_BIN_EXE_tramad");
    let supervisor = lab.start_as(program, Config { dhcp: Some(dhcp), ..config(1500) });
    let process = wait_for(&supervisor, |status| status.process.is_some()).process.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads = capabilities(process);
        // A thread has its name a moment after it exists.
        let has_names = threads.iter().any(|thread| thread.contains("leases"));
        let is_bare = |thread: &String| {
            thread.matches("0000000000000000").count() == 2 && thread.ends_with("NoNewPrivs:\t1")
        };
        if has_names && threads.iter().all(is_bare) {
            break;
        }
        assert!(Instant::now() < deadline, "{threads:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    supervisor.stop();
}

/// A gateway process without a supervisor.
struct Bare {
    lifeline: Lifeline,
    channel: Channel,
    process: Child,
}

impl Bare {
    fn start() -> Bare {
        let mut bare = Bare::start_with(&[]);
        bare.wait_for_ready();
        bare
    }

    /// The process finds these messages behind the first one.
    fn start_with(messages: &[Message]) -> Bare {
        let layout = Layout::of(&config(1500));
        let (_switch, cable) = link::wire(layout).unwrap();
        let (lifeline, its_end) = Lifeline::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let journal = rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        lifeline.start(theirs.as_fd(), &cable, journal.as_fd()).unwrap();
        let mut channel = Channel::new(ours).unwrap();
        channel.send(&Message::Start { layout, config: config(1500) }).unwrap();
        messages.iter().for_each(|message| channel.send(message).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tramad"));
        let process = command.arg("gateway").stdin(its_end).spawn().unwrap();
        Bare { lifeline, channel, process }
    }

    /// Returns the reports up to the one that says that it is ready.
    fn wait_for_ready(&mut self) {
        self.wait_for(|report| *report == Report::Ready { missing: Vec::new() });
    }

    fn wait_for(&mut self, what: impl Fn(&Report) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.channel.receive::<Report>().unwrap().unwrap().iter().any(&what) {
            assert!(Instant::now() < deadline, "it does not report");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Passes another channel, as the next daemon does.
    fn replace_channel(&mut self) -> Channel {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.lifeline.replace_channel(theirs.as_fd()).unwrap();
        std::mem::replace(&mut self.channel, Channel::new(ours).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until it has ended, which it must do well.
    fn finish(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || Instant::now() >= deadline {
                break ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let _ = self.process.kill();
        let _ = self.process.wait();
        assert!(ended.expect("it does not end").success());
    }
}

#[test]
fn a_gateway_ends_with_its_lifeline_even_if_it_was_told_something_just_before() {
    let mut gateway = Bare::start();
    // Stopped, so that the gateway sees all at once.
    gateway.signal(Signal::STOP);
    gateway.replace_channel();
    gateway.channel.send(&Message::Configure(config(1500))).unwrap();
    let copy = gateway.lifeline.as_fd().try_clone_to_owned().unwrap();
    gateway.lifeline = copy.into();
    gateway.lifeline.end();
    gateway.signal(Signal::CONT);
    gateway.finish();

    let mut gateway = Bare::start();
    gateway.lifeline = Lifeline::new().unwrap().0;
    gateway.finish();
}

#[test]
fn what_a_gateway_is_told_while_it_starts_is_not_lost() {
    let question = Message::Ask { id: 7, question: Question::Leases };
    let mut gateway =
        Bare::start_with(&[question, Message::Configure(config(1400)), Message::Ping]);
    let (mut heard, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let answers = |report: &Report| matches!(report, Report::Answer { id: 7, last: true, .. });
    while !heard.iter().any(answers) || !heard.contains(&Report::Pong) {
        heard.extend(gateway.channel.receive::<Report>().unwrap().unwrap());
        assert!(Instant::now() < deadline, "{heard:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(heard[0], Report::Ready { .. }), "{heard:?}");
    gateway.lifeline.end();
    gateway.finish();
}

#[test]
fn a_gateway_goes_on_without_a_daemon_and_with_the_next_one() {
    let mut gateway = Bare::start();
    let is_status = |report: &Report| matches!(report, Report::Status(_));
    // A daemon that ends in the middle of a line, and has not read the answer.
    gateway.channel.send(&Message::Ask { id: 1, question: Question::Flows }).unwrap();
    gateway.channel.send(&Message::Ping).unwrap();
    let before = gateway.replace_channel();
    gateway.wait_for_ready();
    drop(before);
    gateway.replace_channel();
    // Both are told: that it is ready, and its state, with new settings or the same.
    let ready = |report: &Report| *report == Report::Ready { missing: Vec::new() };
    let mut heard = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    gateway.channel.send(&Message::Configure(config(1500))).unwrap();
    gateway.channel.send(&Message::Ping).unwrap();
    while !(heard.iter().any(ready) && heard.iter().any(is_status) && heard.contains(&Report::Pong))
    {
        heard.extend(gateway.channel.receive::<Report>().unwrap().unwrap());
        assert!(Instant::now() < deadline, "{heard:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!heard.iter().any(|it| matches!(it, Report::Answer { .. })), "another one asked");
    gateway.lifeline.end();
    gateway.finish();
}

#[test]
fn a_gateway_whose_flows_take_all_descriptors_has_one_for_the_next_daemon() {
    let mut gateway = Bare::start();
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).unwrap();
    let open: HashSet<String> =
        open.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let free = (0..).find(|number: &u64| !open.contains(&number.to_string())).unwrap();
    let limit = Rlimit { current: Some(free), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(Pid::from_child(&gateway.process)), Resource::Nofile, limit).unwrap();
    for _ in 0..3 {
        gateway.replace_channel();
        gateway.wait_for_ready();
    }
    gateway.lifeline.end();
    gateway.finish();
}
