//! A session that has nothing to do does nothing. Alone in its process, so that its threads are
//! the only sessions there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use support::*;
use trama_vhost_net_backend::{Role, Session, SessionOptions};

/// How often each session thread has gone to sleep so far.
fn sleeps() -> BTreeMap<String, String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let sessions = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "vhost-user")
    });
    sessions
        .map(|task| {
            let status = fs::read_to_string(task.join("status")).unwrap();
            let switches = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
            (task.display().to_string(), switches.to_owned())
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
    let peer = Peer::connect(&dir.path().join("connected"));
    peer.greet();
    let mut before = BTreeMap::new();
    eventually("both are asleep", || {
        let now = sleeps();
        let settled = now == before;
        before = now;
        settled && before.len() == 2
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sleeps(), before);
    drop(sessions);
}
