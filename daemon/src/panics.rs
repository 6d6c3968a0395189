//! What a panic does: it ends the process.
//!
//! A thread that panics has left its work half done, and a daemon without that thread looks alive
//! and is not. So a panic of any thread, be it a worker, a session or the keeper of a gateway, goes
//! to the log with its backtrace, and the process aborts; the service manager starts it again. Only
//! a request that has changed nothing yet (`tolerate`) fails alone.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// Whether a panic of this thread leaves nothing half done.
    static IS_HARMLESS: Cell<bool> = const { Cell::new(false) };
}

static TOLERATED: AtomicU64 = AtomicU64::new(0);

/// Makes panics of all threads end the process. `log` gets the message and the backtrace.
pub fn end_process(log: fn(&str)) {
    std::panic::set_hook(Box::new(move |info| handle(info, log)));
}

fn handle(info: &PanicHookInfo<'_>, log: fn(&str)) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let is_harmless = IS_HARMLESS.try_with(Cell::get).unwrap_or(false);
    let ends = if is_harmless { "the request fails" } else { "the process ends" };
    log(&format!("thread {name}: {info}\n{ends}; backtrace:\n{}", Backtrace::force_capture()));
    if !is_harmless {
        std::process::abort();
    }
    TOLERATED.fetch_add(1, Ordering::Relaxed);
}

/// Carries out a request that changes nothing before it calls [`commit`]. Until then a panic
/// unwinds this thread only.
pub(crate) fn tolerate<R>(request: impl FnOnce() -> R) -> R {
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            IS_HARMLESS.set(false);
        }
    }
    IS_HARMLESS.set(true);
    let _until = Until;
    request()
}

/// From here on the thread changes what others see: a panic would leave that half done.
pub(crate) fn commit() {
    IS_HARMLESS.set(false);
}

/// Returns the number of requests that failed by a panic.
pub(crate) fn tolerated() -> u64 {
    TOLERATED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    use super::*;

    /// Names the case that a child process of a test carries out.
    const CASE: &str = "TRAMA_TEST_PANIC";

    /// Runs a case of [`a_case_in_a_process_of_its_own`] in a process of its own.
    fn run(case: &str) -> (Output, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "panics::tests::a_case_in_a_process_of_its_own", "--nocapture"]);
        let output = command.env(CASE, case).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, text)
    }

    #[test]
    fn a_case_in_a_process_of_its_own() {
        let Ok(case) = std::env::var(CASE) else { return };
        end_process(|text| eprintln!("{text}"));
        let worker = || {
            let group = trama_switch::WorkerGroup::new(1);
            let spin = trama_switch::Spin::Never;
            group.spawn(spin, "worker0".to_owned(), None).unwrap()
        };
        match case.as_str() {
            "worker" => drop(worker().0.call::<()>(|_, _| panic!("a job that fails"))),
            "thread" => {
                let thread = std::thread::Builder::new().name("gateway lab".into());
                drop(thread.spawn::<_, ()>(|| panic!("a keeper that fails")).unwrap().join());
            }
            "task" => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    drop(tokio::spawn(async { panic!("a task that fails") }).await);
                });
            }
            "committed" => tolerate::<()>(|| {
                commit();
                panic!("a change that fails");
            }),
            "harmless" => {
                let thread =
                    std::thread::spawn(|| tolerate::<()>(|| panic!("a request that fails")));
                assert!(thread.join().is_err());
                assert_eq!(tolerated(), 1);
                // The thread is used again for other work.
                let again = std::panic::catch_unwind(|| tolerate::<()>(|| panic!("another")));
                assert!(again.is_err() && !IS_HARMLESS.get());
                eprintln!("goes on");
                return;
            }
            other => unreachable!("{other}"),
        }
        eprintln!("goes on");
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        for (case, thread, message) in [
            ("worker", "worker0", "a job that fails"),
            ("thread", "gateway lab", "a keeper that fails"),
            ("task", "panics::tests::", "a task that fails"),
            ("committed", "panics::tests::", "a change that fails"),
        ] {
            let (output, text) = run(case);
            assert_eq!(output.status.signal(), Some(6), "{case} is aborted: {text}");
            let begins = format!("thread {thread}");
            assert!(text.contains(&begins) && text.contains(message), "{case}: {text}");
            assert!(text.contains("panics.rs:"), "{case}: the backtrace has lines: {text}");
            assert!(!text.contains("goes on"), "{case}: {text}");
        }
    }

    #[test]
    fn a_request_that_has_changed_nothing_fails_alone() {
        let (output, text) = run("harmless");
        assert!(output.status.success() && text.contains("goes on"), "{text}");
        assert!(text.contains("a request that fails"), "{text}");
    }
}
