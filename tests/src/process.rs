//! Child processes that end with the test, and waiting with a deadline.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, setrlimit,
};

/// Time limit for anything on a loaded machine.
pub const SOON: Duration = Duration::from_secs(60);
/// Polling interval of [`wait_until`].
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Calls `look` until it returns a value; panics with `what` after `limit`.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up after {limit:?} waiting until {what}");
        std::thread::sleep(POLL);
    }
}

/// Returns a number that is unique in this process, for names.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Raises this process's file limit to the maximum, which must be more than `count`.
#[track_caller]
pub fn raise_file_limit(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("file limit");
    assert!(maximum.is_none_or(|maximum| maximum > count + 500), "{maximum:?} files");
}

/// Returns the only child of a process whose command line has `name`.
#[track_caller]
pub fn child(parent: u32, name: &str) -> u32 {
    let found = Command::new("pgrep").args(["-P", &parent.to_string(), "-f", name]).output();
    let text = String::from_utf8(found.expect("pgrep").stdout).expect("numbers");
    text.trim().parse().unwrap_or_else(|_| panic!("one {name}: {text:?}"))
}

/// Returns the processor time of a process's threads in nanoseconds; other load does not affect it,
/// unlike wall-clock time.
#[track_caller]
pub fn processor_time(process: u32) -> f64 {
    processor_time_of(process, |_| true)
}

/// As [`processor_time`], of the threads whose names fit.
#[track_caller]
pub fn processor_time_of(process: u32, fits: impl Fn(&str) -> bool) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    // A thread may have ended in the meantime.
    let times = threads.filter_map(|thread| {
        let folder = thread.ok()?.path();
        std::fs::read_to_string(folder.join("comm")).ok().filter(|name| fits(name))?;
        let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    times.sum()
}

/// Returns a command that is killed when the thread that starts it ends, and so also when the test
/// is killed. The process id stays the same, since the wrapper execs the program.
pub fn tied_command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// As [`tied_command`], as another user.
#[track_caller]
pub fn tied_command_as(user: &User, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    let (id, group) = (user.id.to_string(), user.group.to_string());
    // In one setpriv call: changing the user clears the parent-death signal.
    command.args(["--reuid", &id, "--regid", &group, "--init-groups"]);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// How the line of a process begins that made a system call which is not on its list.
const TRAPPED: &str = "sandbox: system call ";

/// A user of this machine.
#[derive(Clone, Debug)]
pub struct User {
    /// Its user id.
    pub id: u32,
    /// The id of its primary group.
    pub group: u32,
}

impl User {
    /// Returns the user with this name, which must exist.
    #[track_caller]
    pub fn named(name: &str) -> User {
        let number = |what: &str| {
            let output = Command::new("id").args([what, name]).output().expect("run id");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.trim().parse().unwrap_or_else(|_| panic!("there is no user {name}"))
        };
        User { id: number("-u"), group: number("-g") }
    }

    /// Changes the owner of a file or folder to this user.
    #[track_caller]
    pub fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.id), Some(self.group)).expect("chown (root)");
    }
}

/// A running child in its own process group; dropping it kills the group.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` without input; its output goes to `log`.
    pub fn spawn(name: &str, command: Command, log: &Path) -> Process {
        Process::start(name, command, log, Stdio::null(), None)
    }

    /// Starts `command` with a pipe as standard input; its output goes to `log`.
    pub fn spawn_commanded(name: &str, command: Command, log: &Path) -> Process {
        Process::start(name, command, log, Stdio::piped(), None)
    }

    /// Starts `command` with pipes as standard input and output; its errors go to `log`.
    pub fn spawn_piped(name: &str, command: Command, log: &Path) -> Process {
        Process::start(name, command, log, Stdio::piped(), Some(Stdio::piped()))
    }

    fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        input: Stdio,
        output: Option<Stdio>,
    ) -> Process {
        let file = File::options().create(true).append(true).open(log).expect("log file");
        let output = output.unwrap_or_else(|| file.try_clone().expect("log file").into());
        let child = command
            .stdin(input)
            .stdout(output)
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error} ({command:?})"));
        Process { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// Returns the child, for access to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log().contains(text) {
            let over = self.status().is_some() || Instant::now() >= deadline;
            // Read again: the text may have been written just before the end.
            if over && !self.log().contains(text) {
                panic!("{}: no \"{text}\" in its log:\n{}", self.name, self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Returns the exit status if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// Sends `signal` to the process, not to its group.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(self.pid(), signal).map_err(io::Error::from)
    }

    /// Sends `signal` and waits for the end; panics after `limit`.
    #[track_caller]
    pub fn end(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        if let Some(status) = self.status() {
            return status;
        }
        self.signal(signal).expect("signal a child");
        let deadline = Instant::now() + limit;
        while self.is_running() {
            assert!(
                Instant::now() < deadline,
                "{} still runs {limit:?} after {signal:?}; its log:\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(POLL);
        }
        self.status().expect("ended above")
    }

    /// Kills the process and its group, and waits for its end.
    pub fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let trapped = self.log().lines().find(|line| line.starts_with(TRAPPED)).map(str::to_owned);
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- end of the log of {} ---", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        } else if let Some(line) = trapped {
            panic!("{}: {line}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_kills_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = tied_command("sh");
        command.args(["-c", "sleep 1000 & echo child $!; wait"]);
        let mut process = Process::spawn("sh", command, &dir.path().join("log"));
        process.wait_for_log("child", Duration::from_secs(5));
        let log = process.log();
        let child = log.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(Path::new(&format!("/proc/{child}")).exists());
        drop(process);
        wait_until("the grandchild is gone", Duration::from_secs(5), || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok();
            stat.is_none_or(|s| s.contains(") Z ")).then_some(())
        });
    }
}
