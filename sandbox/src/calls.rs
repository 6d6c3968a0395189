//! System calls, by seccomp(2): compiles the lists of a process and installs the filters.
//!
//! A filter has one answer for the calls that it names, and one for all others. So there are up to
//! four, and the kernel takes the strictest answer: the list of what may be called, the calls that
//! are refused with certain arguments, those that seem unknown, and those that end the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::ffi::c_long;

use libc::ENOSYS;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::kernel;
use crate::lists::{Is, Process, REFUSED, Test, UNKNOWN};
use crate::mode::{Missing, Mode, TRAP_VARIABLE};

const PART: &str = "seccomp";

/// Calls by number; without rules, whatever their arguments are.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Restricts the calling thread, and those that it starts later, to the calls of such a process.
/// The thread must have given up new privileges. Returns the number of calls on the list.
///
/// # Errors
///
/// `mode` does not restrict calls, or the kernel has no filters. What was installed before an error
/// stays in force.
pub fn restrict_calls(process: Process, mode: Mode) -> Result<usize, Missing> {
    let is_trap = std::env::var_os(TRAP_VARIABLE).is_some_and(|value| value == "trap");
    let answers = match (mode, is_trap) {
        (_, true) => Answers::TRAP,
        (Mode::Enforce, _) => Answers::ENFORCE,
        (Mode::Log, _) => Answers::LOG,
        (Mode::Off, _) => {
            return Err(Missing::new(PART, "daemon.sandbox is \"off\""));
        }
    };
    let install = || -> Result<usize, Box<dyn std::error::Error>> {
        if is_trap {
            kernel::report_trapped_calls()?;
        }
        let filters = filters(process, &answers)?;
        filters.iter().try_for_each(kernel::install_filter)?;
        Ok(process.allowed().unwrap_or_else(|| process.forbidden()).len())
    };
    install().map_err(|error| Missing::new(PART, error))
}

/// How calls are answered.
struct Answers {
    /// Not on the list.
    unlisted: SeccompAction,
    forbidden: SeccompAction,
    /// With arguments that are not allowed.
    refused: SeccompAction,
}

impl Answers {
    const ENFORCE: Answers = Answers {
        unlisted: SeccompAction::Errno(ENOSYS as u32),
        forbidden: SeccompAction::KillProcess,
        refused: SeccompAction::Errno(REFUSED as u32),
    };
    const LOG: Answers = Answers {
        unlisted: SeccompAction::Log,
        forbidden: SeccompAction::Log,
        refused: SeccompAction::Log,
    };
    const TRAP: Answers = Answers {
        unlisted: SeccompAction::Trap,
        forbidden: SeccompAction::Trap,
        refused: SeccompAction::Errno(REFUSED as u32),
    };
}

fn filters(process: Process, answers: &Answers) -> seccompiler::Result<Vec<BpfProgram>> {
    use SeccompAction::Allow;
    let mut filters = vec![compile(by_number(&process.forbidden()), answers.forbidden.clone())?];
    let Some(allowed) = process.allowed() else { return Ok(filters) };
    filters.push(compile(by_number(UNKNOWN), SeccompAction::Errno(ENOSYS as u32))?);
    filters.push(compile(by_argument(&process.refused())?, answers.refused.clone())?);
    // Forbidden calls have their own answer.
    let known = [allowed, process.forbidden()].concat();
    filters.push(program(by_number(&known), answers.unlisted.clone(), Allow)?);
    Ok(filters)
}

/// A filter that answers the calls of `rules`, and allows all others.
fn compile(rules: Rules, answer: SeccompAction) -> seccompiler::Result<BpfProgram> {
    program(rules, SeccompAction::Allow, answer)
}

fn program(
    rules: Rules,
    others: SeccompAction,
    answer: SeccompAction,
) -> seccompiler::Result<BpfProgram> {
    let arch = ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, others, answer, arch)?.try_into()?)
}

/// A filter of a process that makes these calls alone; another one ends it.
pub(crate) fn only(calls: &[c_long]) -> seccompiler::Result<BpfProgram> {
    program(by_number(calls), SeccompAction::KillProcess, SeccompAction::Allow)
}

fn by_number(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn by_argument(refusals: &[(c_long, Vec<Test>)]) -> seccompiler::Result<Rules> {
    let mut rules = Rules::new();
    for (call, when) in refusals {
        let tests = when.iter().map(|test| {
            let (comparison, value) = match test.is {
                Is::Not(value) => (SeccompCmpOp::Ne, value),
                Is::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
            };
            SeccompCondition::new(test.argument, SeccompCmpArgLen::Dword, comparison, value)
        });
        let rule = SeccompRule::new(tests.collect::<Result<_, _>>()?)?;
        rules.entry(*call).or_default().push(rule);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use libc::{
        SYS_clock_gettime, SYS_epoll_ctl, SYS_epoll_pwait, SYS_futex, SYS_io_getevents,
        SYS_io_submit, SYS_ioctl, SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg,
        SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_write, SYS_writev,
    };

    use super::*;

    /// Calls that move frames, in a switch and in a gateway.
    const BY_BOTH: &[c_long] = &[
        SYS_clock_gettime,
        SYS_epoll_ctl,
        SYS_epoll_pwait,
        SYS_futex,
        SYS_ioctl,
        SYS_read,
        SYS_readv,
        SYS_recvfrom,
        SYS_recvmsg,
        SYS_sendmmsg,
        SYS_sendmsg,
        SYS_sendto,
        SYS_write,
        SYS_writev,
    ];

    #[test]
    fn calls_that_move_frames_are_allowed_whatever_their_arguments() {
        let own = [
            (Process::Switch, [SYS_io_submit, SYS_io_getevents]),
            (Process::Gateway, [SYS_recvmmsg, SYS_recvfrom]),
        ];
        for (process, own) in own {
            let (allowed, refused) = (process.allowed().unwrap(), process.refused());
            for call in BY_BOTH.iter().chain(&own) {
                assert!(allowed.contains(call), "{call} in a {process:?}");
                assert!(!refused.iter().any(|(it, _)| it == call), "{call} in a {process:?}");
            }
        }
    }

    #[test]
    fn no_call_is_on_two_lists() {
        for process in [Process::Switch, Process::Gateway, Process::Keeper, Process::Web] {
            let all = [process.allowed().unwrap(), process.forbidden()].concat();
            assert_eq!(by_number(&all).len(), all.len(), "{process:?}");
        }
    }

    #[test]
    fn a_keeper_makes_few_calls() {
        let allowed = Process::Keeper.allowed().unwrap();
        assert!(allowed.len() <= 25, "{}", allowed.len());
        for call in [libc::SYS_openat, libc::SYS_socket, libc::SYS_connect, libc::SYS_execve] {
            assert!(!allowed.contains(&call), "{call}");
        }
    }

    #[test]
    fn a_web_process_reaches_no_socket_but_those_it_has() {
        let allowed = Process::Web.allowed().unwrap();
        for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen] {
            assert!(!allowed.contains(&call), "{call}");
        }
    }

    #[test]
    fn what_is_logged_is_executed() {
        let logged = std::thread::spawn(|| {
            crate::drop_privileges().unwrap();
            let count = restrict_calls(Process::Gateway, Mode::Log);
            (count, rustix::process::getpriority_process(None).is_ok())
        });
        let (count, is_executed) = logged.join().unwrap();
        assert!(count.is_ok_and(|count| count > 0) && is_executed);
    }

    #[test]
    fn the_mode_off_installs_nothing_and_says_so() {
        let missing = restrict_calls(Process::Gateway, Mode::Off).unwrap_err();
        assert_eq!(missing.to_string(), "seccomp: daemon.sandbox is \"off\"");
    }
}
