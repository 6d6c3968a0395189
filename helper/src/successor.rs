//! Starts successors: another `tramad`, which takes over from the one that runs.
//!
//! Unlike a stand-in it is a whole `tramad`, from the program's file as it is by now, with a helper
//! of its own. It inherits this process's capabilities, which are those that a helper needs; that
//! of a service has the service's user and none, and finds its helper as the service does.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use trama_sandbox::spawn_as;

use crate::request::{Answer, Reply, Setup};
use crate::stand_in::OF_THE_MANAGER;

/// What it must not inherit: the service manager watched another process.
const WATCHED_PROCESS: &str = "WATCHDOG_PID";

/// The successor that was started last.
#[derive(Default)]
pub(crate) struct Successor(Option<Child>);

impl Successor {
    /// Starts one: for good, or for some seconds, of which the service manager hears nothing.
    /// `user`: as which; `None`: as that of this process.
    pub(crate) fn start(
        &mut self,
        setup: &Setup,
        bridges: Option<u64>,
        user: Option<(u32, u32)>,
    ) -> Answer {
        let Setup { program, arguments, .. } = setup;
        let mut command = Command::new(program);
        command.arg0("tramad").args(arguments);
        match bridges {
            None => {
                command.arg("--take-over").env_remove(WATCHED_PROCESS);
            }
            Some(seconds) => {
                command.arg("--bridge").arg(seconds.to_string());
                for name in OF_THE_MANAGER {
                    command.env_remove(name);
                }
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let started = match user {
            None => command.spawn(),
            Some(user) => spawn_as(&mut command, user),
        };
        let started = started.map_err(|error| {
            format!("{}: cannot be started: {error}; install trama there", program.display())
        })?;
        let process = started.id();
        self.0 = Some(started);
        let pidfd = open(process).map_err(|error| format!("process {process}: {error}"))?;
        Ok((Reply::Successor { process }, vec![pidfd]))
    }

    /// Ends it, if it still runs; tells how it has ended.
    pub(crate) fn end(&mut self) -> Answer {
        let mut child = self.0.take().ok_or("there is no successor")?;
        // Fails if it has ended by itself.
        let _ = child.kill();
        let status = child.wait().map_err(|error| error.to_string())?;
        Ok((Reply::Status(status.to_string()), Vec::new()))
    }
}

fn open(process: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    pidfd_open(pid.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())
}
