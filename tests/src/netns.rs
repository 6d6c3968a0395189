//! A network namespace as a host: a separate network stack without a separate machine.
//!
//! Namespaces have names, which outlive a killed test. So the name contains the process id of its
//! creator, and creating a namespace removes those whose creator is gone.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::host::{CommandResult, Host};
use crate::process::{tied_command, unique};

const PREFIX: &str = "trama-t";

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
        netns.run("ip link set lo up");
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
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    for pid in inside.iter().flat_map(|o| o.stdout.split(|b| *b == b'\n')) {
        let pid = std::str::from_utf8(pid).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
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
