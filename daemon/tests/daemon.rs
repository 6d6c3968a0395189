//! The running daemon with real workers and vhost-user sockets in a temporary directory, without
//! privileges.
#![cfg(test)]

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use trama_api::transaction::{Kind, NotRunning};
use trama_daemon::config::model::{Config, Interface, Network, Promiscuous, VlanModeName};
use trama_daemon::config::parse;
use trama_daemon::descriptors::raise_limit;
use trama_daemon::events::By;
use trama_daemon::plan::Step;
use trama_daemon::state::{Committed, Daemon, Source, TransactError, TransactOptions};

const SAVE: TransactOptions = TransactOptions { dry_run: false, save: true };

/// A daemon in a temporary directory; dropping it ends the daemon and removes the directory.
struct Lab {
    directory: tempfile::TempDir,
    daemon: Arc<Daemon>,
}

impl Lab {
    /// Starts a daemon; `@` in the text stands for the directory.
    fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab.toml");
        fs::write(&file, text.replace('@', &directory.path().display().to_string())).unwrap();
        let daemon = Daemon::start(Source::at(file)).unwrap_or_else(|error| panic!("{error}"));
        Self { directory, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.daemon.file()).unwrap()
    }

    fn change(&self, mut edit: impl FnMut(&mut Config)) -> Committed<()> {
        let edit = |config: &mut Config| {
            edit(config);
            Ok::<(), String>(())
        };
        let done = self.daemon.transact(SAVE, edit).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parse(&self.text(), "saved").unwrap(), self.daemon.config());
        done
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.daemon.stop();
    }
}

/// Time limit for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const TWO_PORTS: &str = r#"# A lab.
[daemon]
control = "@/control.sock"

[[network]]
name = "lab"

# The first.
[[port]]
name = "vm1"
network = "lab"
type = "vhost-user"
path = "@/vm1.sock"
tag = 10 # students

[[port]]
name = "vm2"
network = "lab"
type = "vhost-user"
path = "@/vm2.sock"
role = "client"
"#;

fn steps(done: &Committed<()>) -> Vec<String> {
    done.steps.iter().map(Step::to_string).collect()
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn what_the_file_says_runs() {
    let lab = Lab::start(TWO_PORTS);
    let status = lab.daemon.status();
    assert_eq!(status.networks.len(), 1);
    assert_eq!(status.networks[0].mac_entries, 0);
    let vm1 = status.port("vm1").unwrap();
    assert_eq!(vm1.not_running, None);
    assert_eq!(vm1.vhost.as_ref().unwrap().state, "listening");
    assert!(!vm1.link, "nobody is connected");
    assert_eq!(status.port("vm2").unwrap().vhost.as_ref().unwrap().state, "connecting");
    assert_eq!(lab.daemon.fdb("lab").unwrap().len(), 0);
    assert!(lab.daemon.fdb("elsewhere").is_none());
    assert!(lab.daemon.fdb_flush(Some("lab")) && lab.daemon.fdb_flush(None));
    assert!(!lab.daemon.fdb_flush(Some("elsewhere")));
    UnixStream::connect(lab.path("vm1.sock")).unwrap();
    lab.daemon.stop();
    assert!(!lab.path("vm1.sock").exists(), "the socket goes with the daemon");
}

#[test]
fn a_client_port_connects_when_its_peer_appears() {
    let lab = Lab::start(TWO_PORTS);
    let listener = UnixListener::bind(lab.path("vm2.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut peer = None;
    wait_until("vm2 connects", || {
        peer = listener.accept().ok();
        peer.is_some()
    });
}

#[test]
fn live_changes_keep_the_socket_and_the_comments() {
    let lab = Lab::start(TWO_PORTS);
    let before = inode(&lab.path("vm1.sock"));
    let peer = UnixStream::connect(lab.path("vm1.sock")).unwrap();
    let connects = || lab.daemon.status().port("vm1").unwrap().vhost.as_ref().unwrap().connects;
    wait_until("vm1 is connected", || connects() == 1);
    let text = lab.text();
    let done = lab.change(|config| config.ports[0].vlan.tag = Some(20));
    assert_eq!(steps(&done), ["set port vm1: tag"]);
    assert_eq!(lab.text(), text.replace("tag = 10", "tag = 20"));
    let done = lab.change(|config| {
        config.networks.push(Network::new("other"));
        config.ports[0].network = Some("other".into());
        config.ports[0].vlan.mode = Some(VlanModeName::NativeTagged);
        config.ports[0].promiscuous = Promiscuous::AllowAll;
    });
    assert_eq!(
        steps(&done),
        ["add network other", "set port vm1: network, vlan-mode, promiscuous"]
    );
    let done = lab.change(|config| {
        config.ports[0].network = None;
        config.networks.pop();
    });
    assert_eq!(steps(&done), ["set port vm1: network", "remove network other"]);
    assert_eq!(inode(&lab.path("vm1.sock")), before, "the port was never made anew");
    assert_eq!(connects(), 1, "and its peer never noticed");
    assert!(lab.text().contains("# A lab.") && lab.text().contains("# The first."));

    let done = lab.change(|config| config.ports[0].cable = false);
    assert_eq!(steps(&done), ["set port vm1: cable"]);
    wait_until("the socket is gone", || !lab.path("vm1.sock").exists());
    lab.change(|config| config.ports[0].cable = true);
    wait_until("the socket is back", || lab.path("vm1.sock").exists());
    drop(peer);
}

#[test]
fn nothing_changes_when_anything_is_wrong() {
    let lab = Lab::start(TWO_PORTS);
    let (config, text) = (lab.daemon.config(), lab.text());
    let unchanged = || {
        assert_eq!(lab.daemon.config(), config);
        assert_eq!(lab.text(), text);
    };
    let refuse = |_: &mut Config| Err::<(), _>("no");
    assert!(matches!(lab.daemon.transact(SAVE, refuse), Err(TransactError::Edit("no"))));
    unchanged();
    let invalid = |config: &mut Config| {
        config.ports[0].vlan.tag = Some(5000);
        config.ports[1].network = Some("lob".into());
        Ok::<(), String>(())
    };
    let error = lab.daemon.transact(SAVE, invalid).unwrap_err().to_string();
    let wanted = "port.vm1.tag: 5000 is not a VLAN; use 0 to 4095\n\
                  port.vm2.network: there is no network \"lob\"; did you mean \"lab\"?";
    assert_eq!(error, wanted);
    unchanged();
    let dry = TransactOptions { dry_run: true, save: true };
    let clear = |config: &mut Config| {
        config.ports.clear();
        Ok::<(), String>(())
    };
    let done = lab.daemon.transact(dry, clear).unwrap();
    assert_eq!(steps(&done), ["remove port vm1", "remove port vm2"]);
    unchanged();
    assert!(lab.path("vm1.sock").exists());

    fs::write(lab.daemon.file(), text.replace("tag = 10", "tagg = 10")).unwrap();
    let faults = lab.daemon.reload(By::Signal).unwrap_err();
    assert_eq!(faults.len(), 1);
    let shown = faults[0].to_string();
    assert!(shown.ends_with("lab.toml:14:1: port.vm1.tagg: unknown key; did you mean \"tag\"?"));
    let error = lab.daemon.transact(SAVE, clear).unwrap_err().to_string();
    assert!(error.contains("was edited by hand and is invalid"), "{error}");
    assert_eq!(lab.daemon.config(), config);
    fs::remove_file(lab.daemon.file()).unwrap();
    let shown = lab.daemon.reload(By::Signal).unwrap_err()[0].to_string();
    assert!(shown.contains("cannot be read: No such file"), "{shown}");
}

#[test]
fn without_save_the_file_stays_as_it_is() {
    let lab = Lab::start(TWO_PORTS);
    let text = lab.text();
    let options = TransactOptions { dry_run: false, save: false };
    let edit = |config: &mut Config| {
        config.ports.pop();
        Ok::<(), String>(())
    };
    lab.daemon.transact(options, edit).unwrap();
    assert_eq!((lab.text(), lab.daemon.config().ports.len()), (text, 1));
    let done = lab.daemon.reload(By::Signal).unwrap();
    assert_eq!(steps(&done), ["add port vm2"]);
}

#[test]
fn a_port_that_cannot_be_made_is_stored_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken.sock");
    fs::write(&taken, "not a socket").unwrap();
    let lab = Lab::start(TWO_PORTS);
    let done = lab.change(|config| match &mut config.ports[1].interface {
        Interface::VhostUser(device) => {
            device.path.clone_from(&taken);
            device.role = trama_daemon::config::model::Role::Server;
        }
        _ => unreachable!("it is vhost-user"),
    });
    assert_eq!(steps(&done), ["remove port vm2", "add port vm2"]);
    assert_eq!(done.not_running.len(), 1);
    let NotRunning { kind: Kind::Port, name, runs: false, reason } = &done.not_running[0] else {
        panic!("{:?}", done.not_running);
    };
    assert_eq!(name, "vm2");
    assert!(reason.contains("taken.sock"), "{reason}");
    let reported = lab.daemon.status().port("vm2").unwrap().not_running.clone();
    assert_eq!(reported.as_ref(), Some(reason));
    assert_eq!(lab.daemon.status().port("vm1").unwrap().not_running, None);
    assert!(lab.daemon.retries_by_time());

    lab.daemon.retry();
    assert!(lab.daemon.retries_by_time(), "it is still in the way");
    fs::remove_file(&taken).unwrap();
    lab.daemon.retry();
    assert!(!lab.daemon.retries_by_time());
    assert!(UnixStream::connect(&taken).is_ok());
}

#[test]
fn sockets_can_be_swapped() {
    let lab = Lab::start(&TWO_PORTS.replace("role = \"client\"\n", ""));
    let done = lab.change(|config| {
        let (first, second) = config.ports.split_at_mut(1);
        std::mem::swap(&mut first[0].interface, &mut second[0].interface);
    });
    assert_eq!(done.not_running, []);
    assert!(!lab.daemon.retries_by_time());
}

#[test]
fn changes_of_the_daemon_itself_wait_for_a_restart() {
    let lab = Lab::start(TWO_PORTS);
    let text = lab.text().replace("[daemon]\n", "[daemon]\nworkers = 2\nspin = \"always\"\n");
    fs::write(lab.daemon.file(), text).unwrap();
    let done = lab.daemon.reload(By::Signal).unwrap();
    assert_eq!(steps(&done), ["restart needed for daemon.workers, daemon.spin"]);
    assert_eq!(lab.daemon.status().needs_restart, ["workers", "spin"]);
    assert_eq!(lab.daemon.status().workers.len(), 1);
}

#[test]
fn networks_spread_over_workers_and_ports_follow() {
    let text = TWO_PORTS.replace("[daemon]\n", "[daemon]\nworkers = 2\n");
    let lab = Lab::start(&text);
    lab.change(|config| config.networks.push(Network::new("other")));
    let status = lab.daemon.status();
    let workers: Vec<usize> = status.networks.iter().map(|network| network.worker).collect();
    assert_eq!(workers, [0, 1]);
    let done = lab.change(|config| config.ports[0].network = Some("other".into()));
    assert_eq!(steps(&done), ["set port vm1: network"]);
    assert!(!lab.daemon.retries_by_time());
    assert!(UnixStream::connect(lab.path("vm1.sock")).is_ok());
}

#[test]
fn a_hundred_ports_start_and_end() {
    let mut text = String::from("[[network]]\nname = \"lab\"\n");
    for index in 0..100 {
        text.push_str(&format!(
            "[[port]]\nname = \"vm{index}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"@/{index}.sock\"\n"
        ));
    }
    let begun = Instant::now();
    let lab = Lab::start(&text);
    println!("100 ports started after {:?}", begun.elapsed());
    assert!(!lab.daemon.retries_by_time());
    lab.change(|config| config.ports.truncate(1));
    assert!(lab.path("0.sock").exists() && !lab.path("1.sock").exists());
    let begun = Instant::now();
    lab.daemon.stop();
    println!("ended after {:?}", begun.elapsed());
}

const TWO_WORKERS: &str = r#"[daemon]
control = "@/control.sock"
workers = 2

[[network]]
name = "large"

[[network]]
name = "small"

[[network]]
name = "second"

[[port]]
name = "vm1"
network = "large"
type = "vhost-user"
path = "@/vm1.sock"

[[port]]
name = "vm2"
network = "large"
type = "vhost-user"
path = "@/vm2.sock"

[[port]]
name = "vm3"
network = "small"
type = "vhost-user"
path = "@/vm3.sock"
"#;

#[test]
fn ports_leave_descriptors_to_the_daemon_itself() {
    raise_limit().unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit { current: Some(open() + 100), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut text = String::from("[[network]]\nname = \"lab\"\n");
    for index in 0..60 {
        text.push_str(&format!(
            "[[port]]\nname = \"vm{index}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"@/{index}.sock\"\n"
        ));
    }
    let lab = Lab::start(&text);
    let status = lab.daemon.status();
    let reasons = status.ports.iter().map(|port| port.not_running.as_deref());
    let refused: Vec<&str> = reasons.flatten().collect();
    assert!((30..60).contains(&refused.len()), "{} of 60 do not run", refused.len());
    let is_told = |reason: &&str| reason.starts_with("no descriptors are left: the process may");
    assert!(refused.iter().all(is_told), "{refused:?}");
    let kept: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null")).collect();
    assert!(kept.iter().all(Result::is_ok), "there are some for other work");
}

/// Returns how long the threads of this process have run so far, those that still exist.
fn threads_ran() -> Duration {
    let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(stat);
    let ran = tasks.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap());
    Duration::from_nanos(ran.sum())
}

/// Starts networks with some ports each, whose sockets are in a folder; returns how long all
/// threads ran for it, and the daemon.
fn start_many(networks: usize, ports: usize, folder: &str) -> (Duration, Lab) {
    let mut text = "[daemon]\ncontrol = \"@/c\"\nworkers = 4\n".to_owned();
    for network in 0..networks {
        text.push_str(&format!("[[network]]\nname = \"n{network}\"\nmac-table-size = 64\n"));
        for port in 0..ports {
            text.push_str(&format!(
                "[[port]]\nname = \"n{network}-{port}\"\nnetwork = \"n{network}\"\n\
                 type = \"vhost-user\"\npath = \"{folder}/{network}-{port}\"\n"
            ));
        }
    }
    let before = threads_ran();
    let lab = Lab::start(&text);
    (threads_ran() - before, lab)
}

#[test]
fn a_start_grows_with_the_number_of_networks() {
    // The folder is missing: the ports are tried and left out, which takes no thread of each.
    // The least of three: other load adds to a time.
    let [few, many] = [300, 1200].map(|networks| {
        let times = (0..3).map(|_| {
            let (ran, lab) = start_many(networks, 1, "@/missing");
            assert_eq!(lab.daemon.status().networks.len(), networks);
            ran
        });
        times.min().expect("three times")
    });
    println!("300 networks: {few:?}, four times as many: {many:?}");
    // A loop over all networks and ports for each network makes 64 times as much of it.
    assert!(many < few * 9, "300 networks: {few:?}, four times as many: {many:?}");
}

fn workers(lab: &Lab) -> Vec<(String, usize)> {
    lab.daemon.status().networks.into_iter().map(|n| (n.name, n.worker)).collect()
}

#[test]
fn networks_are_spread_by_their_ports_and_move_with_them() {
    let lab = Lab::start(TWO_WORKERS);
    let at = |name: &str, worker| (name.to_owned(), worker);
    assert_eq!(workers(&lab), [at("large", 0), at("small", 1), at("second", 1)]);
    let socket = inode(&lab.path("vm1.sock"));
    let peer = UnixStream::connect(lab.path("vm1.sock")).unwrap();
    let connects = || {
        let status = lab.daemon.status();
        let vhost = status.port("vm1").unwrap().vhost.clone().unwrap();
        (vhost.state, vhost.connects)
    };
    wait_until("the frontend is there", || connects() == ("connected", 1));
    for worker in [1, 0, 0, 1] {
        lab.daemon.move_network("large", worker).unwrap();
        assert_eq!(workers(&lab)[0], at("large", worker));
    }
    assert!(lab.daemon.move_network("large", 2).is_err() && workers(&lab)[0].1 == 1);
    assert!(lab.daemon.move_network("none", 0).is_err());
    // Another network on another worker is a move too.
    lab.daemon.move_network("small", 0).unwrap();
    let done = lab.change(|config| config.ports[0].network = Some("small".into()));
    assert_eq!(steps(&done), ["set port vm1: network"]);
    lab.change(|config| config.networks[1].mac_table_size = 1 << 20);
    assert_eq!(connects(), ("connected", 1), "the frontend did not notice");
    assert_eq!(inode(&lab.path("vm1.sock")), socket);
    // The session still reaches its port: when the frontend disconnects, the worker learns of it.
    drop(peer);
    wait_until("the frontend is gone", || connects() == ("listening", 1));
    lab.change(|config| drop(config.ports.remove(0)));
    lab.change(|config| config.ports.iter_mut().for_each(|port| port.network = None));
    lab.change(|config| config.networks.clear());
    assert!(!lab.daemon.retries_by_time());
}
