//! What a crash leaves behind, each in a process of its own.
#![expect(unsafe_code, reason = "sends signals to itself")]
#![cfg(test)]
#![cfg(debug_assertions)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use trama_virtqueue::{CrashMark, LastingMemory, crash_for_a_test, mark_crashes};

/// Names the case that a child process of a test carries out.
const CASE: &str = "TRAMA_TEST_CRASH";

/// Overflows the stack.
#[expect(unconditional_recursion, reason = "until the stack is full")]
fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    recurse(depth + 1) + room[0]
}

#[test]
fn a_case_in_a_process_of_its_own() {
    let Ok(case) = std::env::var(CASE) else { return };
    // The memory is standard input.
    let input = File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let memory = LastingMemory::open(&input).unwrap();
    mark_crashes(memory.at(0, Arc::new(())).unwrap()).unwrap();
    let crash = move || match case.as_str() {
        "fault" => crash_for_a_test(),
        "abort" => std::process::abort(),
        "stack" => drop(recurse(0)),
        // SAFETY: takes no address.
        "sent" => drop(unsafe { libc::raise(libc::SIGSEGV) }),
        // SAFETY: takes no address.
        "sent bus" => drop(unsafe { libc::raise(libc::SIGBUS) }),
        // SAFETY: takes no address.
        "killed" => drop(unsafe { libc::raise(libc::SIGKILL) }),
        other => unreachable!("{other}"),
    };
    let _ = std::thread::spawn(crash).join();
    unreachable!("it goes on");
}

/// Runs a case; returns the signal that has ended it, and the mark.
fn run(case: &str) -> (Option<i32>, u64, u64) {
    let (memory, file) = LastingMemory::create(size_of::<CrashMark>()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_case_in_a_process_of_its_own", "--nocapture"]);
    command.env(CASE, case).stdin(file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let process = u64::from(child.id());
    let status = child.wait().unwrap();
    let mark = memory.at::<CrashMark>(0, Arc::new(())).unwrap();
    let thread = mark.thread.load(Ordering::Relaxed);
    assert!(thread == 0 || thread > process, "a thread that is not the first one: {thread}");
    (status.signal(), mark.signal.load(Ordering::Relaxed), thread)
}

#[test]
fn a_crash_is_marked_and_ends_the_process_as_ever() {
    for (case, ends, marked) in [
        ("fault", libc::SIGSEGV, libc::SIGSEGV),
        ("abort", libc::SIGABRT, libc::SIGABRT),
        ("stack", libc::SIGABRT, libc::SIGSEGV),
        ("sent", libc::SIGSEGV, libc::SIGSEGV),
        ("sent bus", libc::SIGBUS, libc::SIGBUS),
    ] {
        let (signal, mark, thread) = run(case);
        assert_eq!((signal, mark), (Some(ends), marked as u64), "{case}");
        assert!(thread != 0, "{case}");
    }
}

#[test]
fn a_kill_leaves_no_mark() {
    assert_eq!(run("killed"), (Some(libc::SIGKILL), 0, 0));
}
