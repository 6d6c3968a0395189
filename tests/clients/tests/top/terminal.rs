//! A terminal of the test, and `tramactl` on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use trama_clients::RunningDaemon;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// By which the table's screen ends, and the cursor is back.
const GIVEN_BACK: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

/// A terminal with a program on it. The program is killed with it.
pub(super) struct Terminal {
    keyboard: File,
    /// The program's side.
    line: OwnedFd,
    before: Termios,
    child: Child,
    /// What the program has written.
    shown: Arc<Mutex<String>>,
    /// How much of it was there at the last key.
    seen: usize,
}

impl Terminal {
    /// Runs `tramactl` with the words of a line, on a terminal of this size.
    pub(super) fn run(lab: &RunningDaemon, words: &str, size: (u16, u16)) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let line = open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        set_size(&keyboard, size);
        let before = tcgetattr(&line).unwrap();
        let end = || line.try_clone().unwrap();
        // So that it is the program's own terminal, whose new size is told.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(trama_clients::tramactl())
            .args(words.split(' '))
            .env("TRAMA_SOCKET", lab.socket())
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid");
        let shown = Arc::<Mutex<String>>::default();
        let (keyboard, text) = (File::from(keyboard), shown.clone());
        let mut screen = keyboard.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Terminal { keyboard, line, before, child, shown, seen: 0 }
    }

    /// What was written since the last key.
    pub(super) fn shown(&self) -> String {
        self.shown.lock().unwrap()[self.seen..].to_owned()
    }

    /// Waits until a text was written since the last key.
    pub(super) fn wait_for(&self, text: &str) {
        self.wait(text, || self.shown().contains(text).then_some(()));
    }

    pub(super) fn press(&mut self, keys: &str) {
        self.seen = self.shown.lock().unwrap().len();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(super) fn resize(&self, size: (u16, u16)) {
        set_size(&self.keyboard, size);
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Presses keys that end the program; returns its exit status, and whether the terminal is as
    /// before.
    pub(super) fn end(&mut self, keys: &str) -> (i32, bool) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on: {}", self.shown());
            thread::sleep(Duration::from_millis(1));
        };
        let given_back = |text: &str| GIVEN_BACK.iter().all(|end| text.contains(end));
        self.wait("the end", || given_back(&self.shown.lock().unwrap()).then_some(()));
        let now = tcgetattr(&self.line).unwrap();
        let modes = |it: &Termios| (it.local_modes, it.input_modes, it.output_modes);
        (status.code().unwrap_or(-1), modes(&now) == modes(&self.before))
    }

    fn wait(&self, what: &str, mut look: impl FnMut() -> Option<()>) {
        let deadline = Instant::now() + PATIENCE;
        while look().is_none() {
            assert!(Instant::now() < deadline, "never shown: {what}: {:?}", self.shown());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(keyboard: &impl std::os::fd::AsFd, (columns, lines): (u16, u16)) {
    let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(keyboard, size).unwrap();
}
