//! The processes that a daemon has started, found by a mark in their environment.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The variable of the mark: the daemon's directory, which no other daemon has.
pub(crate) const MARK: &str = "TRAMA_TEST_DIRECTORY";

/// A process of a daemon.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its process id.
    pub process: Pid,
    /// What it calls itself: `tramad`, `trama:helper`, `trama:keeper`, `trama:memory`.
    pub name: String,
}

impl Member {
    /// Kills it; it may have ended already.
    pub fn kill(&self) {
        let _ = kill_process(self.process, Signal::KILL);
    }
}

/// What calls itself so has the command line of the process whose memory it shares.
const HOLDER: &str = "trama:memory";

/// Returns the processes with this directory as their mark that have not ended.
pub fn of(dir: &Path) -> Vec<Member> {
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_bytes()].concat();
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        // What has ended has neither.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark);
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let name = command.split(|byte| *byte == 0).next()?;
        let name = Path::new(std::str::from_utf8(name).ok()?).file_name()?.to_str()?;
        let thread = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = if thread.trim() == HOLDER { HOLDER } else { name }.to_owned();
        let process = Pid::from_raw(pid)?;
        is_marked.then_some(Member { process, name })
    })
    .collect()
}
