//! A network namespace as a host: a separate network stack without a separate machine.
//!
//! Namespaces have names, which outlive a killed test. So the name contains the process id of its
//! creator, and creating a namespace removes those whose creator is gone.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::host::{CommandResult, Host};
use crate::process::{SOON, tied_command, unique};

const PREFIX: &str = "trama-t";
/// Time that killed processes have to go.
const PAUSE: Duration = Duration::from_millis(5);

/// A named network namespace with its loopback up. Needs root.
pub struct Netns {
    name: String,
    scratch: TempDir,
}

impl Netns {
    /// Creates a namespace; `label` makes messages readable.
    #[track_caller]
    pub fn new(label: &str) -> Netns {
        sweep();
        let name = format!("{PREFIX}{}-{}-{label}", std::process::id(), unique());
        ip(&["netns", "add", &name]);
        let netns = Netns { name, scratch: tempfile::tempdir().expect("temporary directory") };
        // Forwarding of IPv4 is otherwise as on the host, where Docker turns it on.
        netns.run("ip link set lo up; echo 0 >/proc/sys/net/ipv4/ip_forward");
        // Automatic addresses would send frames that distort the tests' counts.
        netns.run(
            "echo 1 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 \
                   /proc/sys/net/ipv6/conf/default/disable_ipv6",
        );
        netns
    }

    /// As [`Netns::new`], with IPv6 enabled and without duplicate address detection.
    #[track_caller]
    pub fn with_ipv6(label: &str) -> Netns {
        let netns = Netns::new(label);
        netns.run(
            "echo 0 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 \
                   /proc/sys/net/ipv6/conf/default/disable_ipv6; \
             echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad",
        );
        netns
    }

    /// Runs a thread inside the namespace. Sockets that it creates stay there.
    pub fn inside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = self.path();
        std::thread::spawn(move || {
            let namespace = File::open(path).expect("namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("enter the namespace");
            job()
        })
    }

    /// Returns a command that runs inside and is killed with the test.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tied_command("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Returns the path of the namespace's file.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Host for Netns {
    fn name(&self) -> &str {
        &self.name
    }

    fn scratch(&self) -> &str {
        self.scratch.path().to_str().expect("temporary paths are text")
    }

    fn try_run_for(&self, command: &str, limit: Duration) -> CommandResult {
        // A file, as background processes of the command would keep a pipe open.
        let file = format!("{}/answer-{}", self.scratch(), unique());
        let out = File::create(&file).expect("answer file");
        let limit = format!("{}", limit.as_secs_f64());
        let status = self
            .command("timeout")
            .args(["--kill-after=1", "--foreground", &limit, "sh", "-c", command])
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("answer file"))
            .stderr(out)
            .status()
            .expect("run ip netns exec");
        let text = std::fs::read(&file).expect("answer file");
        let _ = std::fs::remove_file(&file);
        CommandResult {
            status: status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

#[track_caller]
fn ip(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new("ip").args(arguments).output().expect("ip (package iproute2)");
    let complaint = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "ip {}: {complaint} (root is needed)", arguments.join(" "));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Kills the processes in a namespace and removes its name.
fn remove(name: &str) {
    end_processes(name);
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Kills the processes in a namespace until there are none: one may start another at the end of a
/// third, as a daemon's helper starts a stand-in.
fn end_processes(name: &str) {
    let limit = Instant::now() + SOON;
    while kill_all(name) && Instant::now() < limit {
        std::thread::sleep(PAUSE);
    }
}

/// Kills the processes in a namespace; returns whether there were any.
fn kill_all(name: &str) -> bool {
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let text = inside.map(|output| output.stdout).unwrap_or_default();
    let pids = String::from_utf8_lossy(&text);
    let mut is_empty = true;
    for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
        is_empty = false;
    }
    !is_empty
}

/// Removes the namespaces of killed tests.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_inside_and_nothing_stays() {
        let netns = Netns::new("self");
        assert!(netns.run("ip -o link").lines().count() >= 1);
        assert!(netns.pings("127.0.0.1", 1));
        assert_eq!(netns.try_run("exit 7").status, 7);
        netns.run("sleep 1000 >/dev/null 2>&1 & echo started");
        let path = netns.path();
        assert!(Path::new(&path).exists());
        drop(netns);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn what_is_started_at_the_end_of_another_is_killed() {
        let netns = Netns::new("heirs");
        // Those that wait read the end of the file once the first process is killed.
        netns.run(&format!(
            "cd {} && mkfifo end && (exec sleep 1000 <>end >end) & \
             for i in $(seq 300); do sleep 1000 & done; \
             for i in $(seq 50); do (read line <end; sleep 1000 & exec sleep 1000) & done",
            netns.scratch()
        ));
        end_processes(netns.name());
        assert_eq!(ip(&["netns", "pids", netns.name()]), "");
    }

    #[test]
    fn a_dead_makers_namespace_is_swept() {
        let mut child = Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let name = format!("{PREFIX}{dead}-0-left");
        ip(&["netns", "add", &name]);
        drop(Netns::new("sweeper"));
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}
