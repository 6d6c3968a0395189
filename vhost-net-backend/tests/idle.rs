//! A session that has nothing to do does nothing. Alone in its process, so that its threads are
//! the only sessions there.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use trama_test_kit::{MockRings, RawFrontend, eventually};
use trama_vhost_net_backend::{Role, Session, SessionOptions};

/// Of each session thread, whether it sleeps and how often it has gone to sleep so far.
fn sleeps() -> BTreeMap<String, String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let sessions = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "vhost-user")
    });
    sessions
        .map(|task| {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let words = ["State:", "voluntary"];
            let lines = status.lines().filter(|line| words.iter().any(|it| line.starts_with(it)));
            (task.display().to_string(), lines.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn idle_sessions_never_wake() {
    let dir = tempfile::tempdir().unwrap();
    let sessions = ["listening", "connected"].map(|name| {
        let options = SessionOptions::new(dir.path().join(name), Role::Server);
        Session::spawn(options, MockRings::new()).unwrap()
    });
    let frontend = RawFrontend::connect(&dir.path().join("connected"));
    frontend.negotiate();
    let mut before = BTreeMap::new();
    // A thread that waits for a processor does not sleep, however long it stands still.
    eventually("both are asleep", || {
        let now = sleeps();
        let settled = now == before && now.values().all(|state| state.contains("S (sleeping)"));
        before = now;
        settled && before.len() == 2
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sleeps(), before);
    drop(sessions);
}
