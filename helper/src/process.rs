//! The helper process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::set_parent_process_death_signal;
use rustix::thread::capabilities;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use trama_keeper::wire::{Message, receive, send};
use trama_sandbox::{CapabilitySet, Mode, Process, keep_only, restrict_calls};
use trama_vhost_net_backend::take_over;

use crate::acts::Acts;
use crate::approvals::Approvals;
use crate::gateway::{Gateways, Parent};
use crate::request::{Answer, LONGEST, Reply, Request};
use crate::rules::Rules;

/// The capabilities that the helper keeps, as far as it has them.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Runs the helper until `tramad`, at the other end of standard input, ends.
///
/// # Errors
/// The process was not started by `tramad`, or the system fails it.
pub fn run() -> io::Result<()> {
    ignore_signals()?;
    set_parent_process_death_signal(None)?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let Some(mut acts) = set_up(&socket)? else { return Ok(()) };
    while let Some(message) = next(&socket, &mut acts)? {
        let Message { body, fds } = message;
        answer(&socket, acts.carry_out(body, fds))?;
    }
    Ok(())
}

/// Waits for the first request, which says where things are, and answers it.
fn set_up(socket: &OwnedFd) -> io::Result<Option<Acts>> {
    let Some(Message { body, .. }) = receive(socket, LONGEST)? else { return Ok(None) };
    let Request::Setup(setup) = body else {
        return Err(io::Error::other("the first request is another one; only tramad can ask"));
    };
    let mode = setup.sandbox.parse().unwrap_or_default();
    let mut missing = confine(mode)?;
    let gateways = Gateways::new("/proc/self/exe".into(), Parent::Caller, mode);
    let mut acts = Acts::new(setup.clone(), Rules::new(setup.run), gateways);
    if let Ok(text) = std::fs::read_to_string(&setup.config) {
        acts.rules.read(&text);
    }
    if let Some(path) = &setup.control {
        match take_over(path) {
            Ok(file) => acts.control = Some(file),
            Err(error) => missing.push(format!("removal of {}: {error}", path.display())),
        }
    }
    if let Some(path) = &setup.approvals {
        match Approvals::listen(path) {
            Ok(approvals) => acts.approvals = Some(approvals),
            Err(error) => missing.push(format!("approvals by root: {error}")),
        }
    }
    answer(socket, Ok((Reply::Ready { missing }, Vec::new())))?;
    Ok(Some(acts))
}

/// Gives up what the helper does not need, before the first request that could be another's wish.
/// Returns what is not in force.
fn confine(mode: Mode) -> io::Result<Vec<String>> {
    let kept = capabilities(None)?.permitted & KEPT;
    keep_only(kept)?;
    let restricted = restrict_calls(Process::Helper, mode);
    Ok(restricted.err().iter().map(|missing| format!("{missing} (helper)")).collect())
}

/// Waits for the next request, and serves root's approvals meanwhile.
fn next(socket: &OwnedFd, acts: &mut Acts) -> io::Result<Option<Message<Request>>> {
    loop {
        let mut waiting = vec![PollFd::new(socket, PollFlags::IN)];
        waiting.extend(acts.approvals.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        // First, so that a command finds its words approved.
        if ready.get(1) == Some(&true)
            && let Some(approvals) = &acts.approvals
        {
            approvals.serve(&mut acts.rules);
        }
        if ready[0] {
            return receive(socket, LONGEST);
        }
    }
}

fn answer(socket: &OwnedFd, answer: Answer) -> io::Result<()> {
    let (reply, fds) = answer.unwrap_or_else(|refused| (Reply::Refused(refused), Vec::new()));
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    send(socket, &reply, &fds, LONGEST)
}

/// Ignores signals that are sent to many processes at once: `tramad` ends the helper, once it has
/// ended everything else.
fn ignore_signals() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2] {
        // A handler, because ignoring a signal takes `unsafe`; the flag is not read.
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}
