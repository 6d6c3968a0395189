//! The helper process.
//!
//! It serves the `tramad` that has started it until that says that it ends. If the channel closes
//! without a word, that process was killed or has crashed: the helper then starts a *stand-in*,
//! `tramad stand-in` with the same options, and serves it in the same way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, getppid, set_parent_process_death_signal};
use rustix::thread::capabilities;
use signal_hook::consts::SIGTERM;
use trama_keeper::wire::{Message, receive, send};
use trama_keeper::{Claim, Keeper};
use trama_sandbox::{CapabilitySet, Mode, Process, ignore_signals, keep_only, restrict_calls};

use crate::acts::{Acts, Awaits, read_config};
use crate::gateway::{Gateways, Parent};
use crate::request::{Answer, LONGEST, Reply, Request, Setup};
use crate::rules::Rules;
use crate::service::Service;
use crate::stand_in::{Ended, Pauses, start};

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
    .union(CapabilitySet::DAC_OVERRIDE)
    // To open /proc/PID/ns/net; reading or tracing other processes is forbidden all the same.
    .union(CapabilitySet::SYS_PTRACE);

/// Runs the helper until `tramad`, at the other end of standard input, or its last stand-in ends.
/// That is the process that has started this one, or one that has connected to `service`.
///
/// # Errors
/// It is no such process, or the system fails this one.
pub fn run(service: Option<&Service>) -> io::Result<()> {
    // `tramad` ends the helper, once it has ended everything else.
    ignore_signals(&[SIGTERM])?;
    let mut socket = io::stdin().as_fd().try_clone_to_owned()?;
    let (user, first) = match service {
        Some(service) => service.accept(&socket).map(|(user, process)| (Some(user), process))?,
        None => {
            set_parent_process_death_signal(None)?;
            (None, getppid().map_or(0, Pid::as_raw_pid))
        }
    };
    let Some(mut acts) = set_up(&socket, service)? else { return Ok(()) };
    acts.user = user;
    let mut ended = Ended { process: first, how: None };
    let mut pauses = Pauses::default();
    let mut child = None;
    loop {
        match serve(&socket, &mut acts, service) {
            Served::Ended { hands_over: true } => {
                acts.hand_over();
                return Ok(());
            }
            Served::Ended { hands_over: false } => {
                // One that was started to take over has nothing to take over any more.
                let _ = acts.successor.end();
                return Ok(());
            }
            // Another one is the switch.
            Served::Lost if !acts.has_served => return Ok(()),
            Served::Lost if acts.is_beside => {
                acts.hand_over();
                return Ok(());
            }
            Served::Lost => {}
        }
        // The process has ended once its channel is closed: no other process has that end.
        if let Some(mut child) = child.take() {
            ended.wait_for(&mut child);
        }
        drop(acts.approvals.take());
        pauses.wait();
        if !may_follow(&acts) {
            end_keeper(&acts.setup);
            return Ok(());
        }
        acts.awaits = Awaits::Setup;
        let (next, process) = start(&acts.setup, &ended, user)?;
        ended = Ended { process: process.id() as i32, how: None };
        (socket, child) = (next, Some(process));
    }
}

/// Whether a stand-in may follow: the switch had finished its start, and its control socket is
/// still there. A test or an operator that kills the switch and removes its files wants no other.
fn may_follow(acts: &Acts) -> bool {
    let has_control = acts.setup.control.as_ref().is_some_and(|path| path.exists());
    acts.has_started && has_control && !acts.setup.arguments.is_empty()
}

/// Ends the keeper, whose entries no switch will ask for; unless another one has attached.
fn end_keeper(setup: &Setup) {
    let found = setup.keeper.as_ref().and_then(|path| Keeper::find(path).ok()?);
    if let Some(keeper) = found
        && keeper.attach(Claim::StandIn).is_ok()
    {
        // It waits for no switch any more, whatever it answers.
        let _ = keeper.end();
    }
}

/// How the service of a switch has come to its end.
enum Served {
    /// The switch has said so.
    Ended { hands_over: bool },
    /// Its channel has closed without a word.
    Lost,
}

/// Serves a switch until its end.
fn serve(socket: &OwnedFd, acts: &mut Acts, service: Option<&Service>) -> Served {
    let mut end = Served::Lost;
    while let Ok(Some(message)) = next(socket, acts) {
        let Message { body, fds } = message;
        let served = match body {
            Request::End { hands_over } => {
                end = Served::Ended { hands_over };
                Ok((Reply::Done, Vec::new()))
            }
            // The first request of a stand-in.
            Request::Setup(setup) if acts.awaits == Awaits::Setup => {
                set_up_again(setup, acts, service)
            }
            request => acts.carry_out(request, fds),
        };
        if answer(socket, served).is_err() {
            break;
        }
    }
    end
}

/// Waits for the request that says where things are, and answers it.
fn set_up(socket: &OwnedFd, service: Option<&Service>) -> io::Result<Option<Acts>> {
    let known = service.map(Service::setup).transpose()?;
    let setup = loop {
        let Some(Message { body, .. }) = receive(socket, LONGEST)? else { return Ok(None) };
        match (body, &known) {
            (Request::Setup(setup), _) => break setup,
            (Request::ReadConfig, Some(known)) => {
                answer(socket, read_config(&known.config, &mut Rules::All))?;
            }
            _ => {
                return Err(io::Error::other("the first request is another one; only tramad asks"));
            }
        }
    };
    let mode = setup.sandbox.parse().unwrap_or_default();
    let missing = confine(mode)?;
    let gateways = Gateways::new("/proc/self/exe".into(), Parent::Caller, mode);
    let rules = Rules::new(setup.run.clone(), &setup.config)?;
    let mut acts = Acts::new(known.unwrap_or_else(|| setup.clone()), rules, gateways);
    let taken = take(setup, &mut acts, service);
    let is_taken = taken.is_ok();
    answer(socket, taken.map(|()| (Reply::Ready { missing }, Vec::new())))?;
    Ok(is_taken.then_some(acts))
}

/// The same for a stand-in, which may find another configuration.
fn set_up_again(setup: Setup, acts: &mut Acts, service: Option<&Service>) -> Answer {
    take(setup, acts, service)?;
    Ok((Reply::Ready { missing: Vec::new() }, Vec::new()))
}

/// Reads the operator's words, and takes what the switch says, as far as it may say that.
fn take(said: Setup, acts: &mut Acts, service: Option<&Service>) -> Result<(), String> {
    if let Ok(text) = std::fs::read_to_string(&said.config)
        && service.is_none_or(|service| service.config == said.config)
    {
        acts.rules.read(&text);
    }
    let setup = match service {
        Some(service) => service.check(said, &acts.setup, &acts.rules)?,
        None => said,
    };
    acts.begin(setup);
    Ok(())
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
