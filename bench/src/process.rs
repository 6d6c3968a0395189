//! Child processes that cannot outlive the benchmark: each dies with this process (`setpriv
//! --pdeathsig`) and with the value that owns it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What went wrong, as a sentence for the person who reads the report.
pub type Result<T> = std::result::Result<T, String>;

/// A running program; killed and reaped when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// A command line that begins with the core it is pinned to.
pub fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string(), program]);
    command
}

/// A command line on any core.
pub fn unpinned(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// testpmd, which would otherwise keep its answers in a buffer: its output is a pipe here.
pub fn testpmd() -> Command {
    let mut command = unpinned("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    command
}

impl Process {
    /// Starts `command` with its standard streams piped; both outputs are read as lines.
    pub fn spawn(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{name} cannot be started: {e}"))?;
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as _),
            child.stderr.take().map(|s| Box::new(s) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Ends at end of file, that is with the child.
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, lines, seen: Vec::new() })
    }

    /// Writes one line to the program.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| format!("{} takes no input", self.name))?;
        writeln!(stdin, "{line}").map_err(|e| format!("{} does not listen: {e}", self.name))
    }

    /// The first line that contains `text`, waiting at most `limit` for it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.seen.push(line.clone());
                    if found {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let tail = self.seen.iter().rev().take(5).rev().cloned().collect::<Vec<_>>();
                    return Err(format!(
                        "{} never said \"{text}\"; its last lines: {}",
                        self.name,
                        tail.join(" | ")
                    ));
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: the peers remove their sockets and devices on it.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; its standard output, or a sentence with its standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}` failed: {}", args.join(" "), error.trim()))
}
