//! Child processes that cannot outlive the benchmark: each dies with this process (`setpriv
//! --pdeathsig`) and with its owning value. Every wait has a limit, and ends when the benchmark is
//! interrupted.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

/// A result whose error is a sentence for the reader of the report.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Interval at which a wait checks its condition.
const POLL: Duration = Duration::from_millis(20);
/// Number of a program's last lines that an error quotes.
const QUOTED_LINES: usize = 5;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes SIGINT and SIGTERM end the measurement in an orderly way from now on.
pub(crate) fn handle_interrupts() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .map_err(|e| format!("cannot watch for signals: {e}"))?;
    }
    Ok(())
}

/// Returns whether the user has interrupted the benchmark.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Sleeps for `time`, unless the benchmark is interrupted.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while !interrupted() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL));
    }
    Err("interrupted".into())
}

/// Calls `look` until it returns true; fails with an error that names `what` after `limit`.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> bool,
) -> Result<()> {
    let end = Instant::now() + limit;
    while !look() {
        if Instant::now() > end {
            return Err(format!("{what}: timed out after {limit:?}"));
        }
        pause(POLL)?;
    }
    Ok(())
}

/// A running program; ended and reaped when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// Returns the path of this program, which also is some of its own helpers.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| format!("this program's path: {e}"))
}

/// Returns a command that is killed when this process ends. The process id stays the same, since
/// the wrapper execs the program.
fn tied(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// Returns a command that starts pinned to a core.
pub(crate) fn pinned(core: usize, program: impl AsRef<Path>) -> Command {
    let mut command = tied("taskset");
    command.args(["-c", &core.to_string()]).arg(program.as_ref());
    command
}

/// Returns a command that may use every core and places its own threads.
pub(crate) fn unpinned(program: &str) -> Command {
    let cores = format!("0-{}", crate::cores::count().saturating_sub(1));
    let mut command = tied("taskset");
    command.args(["-c", &cores, program]);
    command
}

impl Process {
    /// Starts `command` with piped standard streams; reads both outputs as lines.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{name} cannot be started: {e}"))?;
        let (sender, lines) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as _),
            child.stderr.take().map(|s| Box::new(s) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Ends at end of file, when the child exits.
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

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to the program.
    pub(crate) fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| format!("{} takes no input", self.name))?;
        writeln!(stdin, "{line}").map_err(|e| format!("cannot write to {}: {e}", self.name))
    }

    /// Waits for a line that contains `text`, at most `limit`, and returns it.
    pub(crate) fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            match self.next_line(end)? {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => {
                    let tail = self.seen.len().saturating_sub(QUOTED_LINES);
                    let tail = self.seen[tail..].join(" | ");
                    return Err(format!(
                        "{} did not print \"{text}\" in time; its last lines: {tail}",
                        self.name
                    ));
                }
            }
        }
    }

    /// Waits for the program's end, at most `limit`, and returns its output; fails if it failed.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        self.stdin = None;
        let end = Instant::now() + limit;
        while self.next_line(end)?.is_some() {}
        let ended = |this: &mut Self| matches!(this.child.try_wait(), Ok(Some(_)));
        wait_until(&format!("{}'s end", self.name), limit, || ended(&mut self))?;
        let text = self.seen.join("\n");
        match self.child.wait() {
            Ok(status) if status.success() => Ok(text),
            _ => Err(format!("{} failed: {}", self.name, text.trim())),
        }
    }

    /// Returns the next line; `None` if the program has ended or `end` has come.
    fn next_line(&mut self, end: Instant) -> Result<Option<String>> {
        loop {
            if interrupted() {
                return Err("interrupted".into());
            }
            match self.lines.recv_timeout(POLL) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    return Ok(Some(line));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first, on which the peers remove their sockets and devices.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a short command; returns its standard output, or an error with its standard error.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = tied(program)
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
