//! Docker's plug-in, and a dockerd of the test's own that uses it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::CommandResult;
use crate::netns::Netns;
use crate::process::{Process, SOON, tied_command, unique, wait_until};
use crate::tramad::{Tramad, binary};

/// How the names of control groups begin.
const GROUP: &str = "trama-docker-";

/// `trama-docker` in a namespace.
pub struct Plugin {
    process: Process,
    dir: TempDir,
    host: String,
    control: PathBuf,
}

impl Plugin {
    /// Starts it, for this daemon.
    #[track_caller]
    pub fn start(host: &Netns, tramad: &Tramad) -> Plugin {
        let dir = tempfile::tempdir().expect("temporary directory");
        let control = tramad.path("control.sock");
        let process = launch(&host.path(), dir.path(), &control);
        let plugin = Plugin { process, dir, host: host.path(), control };
        plugin.wait();
        plugin
    }

    /// Kills it and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.end(Signal::KILL, SOON);
        self.process = launch(&self.host, self.dir.path(), &self.control);
        self.wait();
    }

    fn wait(&self) {
        wait_until("the plug-in answers", SOON, || UnixStream::connect(self.socket()).ok());
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it; returns whether it succeeds.
    pub fn end(&mut self) -> bool {
        self.process.end(Signal::TERM, SOON).success()
    }

    /// Posts a body to a path as dockerd does; returns status and answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).expect("the plug-in");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        let length = body.len();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a request");
        // A body that is too large is refused before its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body =
            text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        (status.expect("a status"), body.unwrap_or_else(|| panic!("{path}: {text:?}")))
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("trama.sock")
}

fn launch(host: &str, dir: &Path, control: &Path) -> Process {
    let mut command = tied_command("nsenter");
    command.arg(format!("--net={host}")).arg(binary("trama-docker"));
    command.arg("--socket").arg(socket(dir)).env("TRAMA_SOCKET", control);
    Process::spawn("trama-docker", command, &dir.join("log"))
}

/// The shell stays, as init of its PID namespace, and reaps orphans. All of `/run` is private; `$0`
/// is the folder of the daemon, `$1` that of plug-ins.
const PRIVATE: &str = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && \
    mkdir -p /run/docker/plugins && mount --bind \"$1\" /run/docker/plugins && \
    { dockerd --config-file \"$0/config.json\" >\"$0/log\" 2>&1; exit; }";

/// An image of busybox, whose programs need the libraries of the machine.
const IMAGE: &str = "mkdir -p image/bin image/tmp image/www && cd image && \
    cp -L $(command -v busybox) bin && ln -s busybox bin/ping && echo hello >www/index.html && \
    for lib in $(ldd bin/busybox | grep -o '/[^ ]*'); do \
    mkdir -p .${lib%/*} && cp -L $lib .$lib; done && tar -c . | docker import - box";

/// A private dockerd, without a bridge and without firewall rules.
pub struct Docker {
    daemon: Process,
    dir: TempDir,
    group: String,
    host: String,
    control: PathBuf,
}

impl Docker {
    /// Starts it in a network namespace, with this plug-in and an image `box`, which is busybox;
    /// `None` if Docker is not installed.
    #[track_caller]
    pub fn start(host: &Netns, plugin: &Plugin) -> Option<Docker> {
        let is_there = |program: &str| {
            let found = Command::new(program).arg("--version").output();
            found.is_ok_and(|output| output.status.success())
        };
        if !is_there("dockerd") || !is_there("docker") {
            return None;
        }
        sweep_groups();
        let dir = tempfile::tempdir().expect("temporary directory");
        let group = format!("{GROUP}{}-{}", std::process::id(), unique());
        let at = |name: &str| dir.path().join(name);
        let config = serde_json::json!({
            "data-root": at("data"), "exec-root": "/run/docker", "pidfile": at("pid"),
            "hosts": [format!("unix://{}", at("docker.sock").display())],
            "iptables": false, "ip6tables": false, "bridge": "none", "storage-driver": "vfs",
            "cgroup-parent": format!("/{group}"),
        });
        fs::write(at("config.json"), config.to_string()).expect("config.json");
        // `ip netns exec` would hide the control groups.
        let mut command = tied_command("nsenter");
        command.arg(format!("--net={}", host.path()));
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", PRIVATE]).arg(dir.path());
        command.arg(plugin.dir.path());
        let daemon = Process::spawn("dockerd", command, &at("shell"));
        let (host, control) = (host.path(), plugin.control.clone());
        let docker = Docker { daemon, dir, group, host, control };
        wait_until("dockerd answers", SOON, || {
            (docker.try_run("version").status == 0).then_some(())
        });
        docker.shell(IMAGE);
        Some(docker)
    }

    /// Runs a script on the host, whose `docker` and `tramactl` speak with these daemons.
    pub fn try_shell(&self, script: &str) -> CommandResult {
        let mut command = tied_command("nsenter");
        command.arg(format!("--net={}", self.host));
        command.args(["timeout", "--kill-after=1", "120", "sh", "-ec", script]);
        command.current_dir(self.dir.path()).env("TRAMA_SOCKET", &self.control);
        command.env("DOCKER_HOST", format!("unix://{}/docker.sock", self.dir.path().display()));
        let output = command.output().expect("run a shell");
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        CommandResult { status: output.status.code().unwrap_or(-1), text: text.concat() }
    }

    /// The same; it must succeed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let answer = self.try_shell(script);
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert_eq!(answer.status, 0, "{script}: {}\n{log}", answer.text);
        answer.text
    }

    /// Runs `docker`.
    pub fn try_run(&self, line: &str) -> CommandResult {
        self.try_shell(&format!("docker {line}"))
    }

    /// The same; it must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.shell(&format!("docker {line}"))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Containers end with the daemon's PID namespace.
        self.daemon.end(Signal::KILL, SOON);
        let own = self.group.clone();
        wait_until("its control groups are gone", SOON, || {
            remove_groups(&|name| name == own).then_some(())
        });
    }
}

/// Removes the control groups of tests that were killed.
fn sweep_groups() {
    remove_groups(&|name| {
        let owner = name.strip_prefix(GROUP).and_then(|rest| rest.split('-').next()?.parse().ok());
        owner.and_then(Pid::from_raw).is_some_and(|owner| test_kill_process(owner).is_err())
    });
}

/// Removes groups without processes; returns whether all that are meant are gone.
fn remove_groups(is_meant: &dyn Fn(&str) -> bool) -> bool {
    let below = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    // The hierarchies of version 1 are one level below.
    let tops = below(Path::new("/sys/fs/cgroup"));
    let groups = tops.iter().cloned().chain(tops.iter().flat_map(|top| below(top)));
    let name =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.to_str().is_some_and(is_meant));
    let meant: Vec<PathBuf> = groups.filter(name).collect();
    for group in &meant {
        below(group).iter().chain([group]).for_each(|path| drop(fs::remove_dir(path)));
    }
    meant.iter().all(|group| !group.exists())
}
