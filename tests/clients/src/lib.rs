//! A daemon in the test's process, with its configuration in a temporary directory, and `tramactl`
//! as its client: the tests of the two programs together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails is a test that fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::sync::oneshot;
use trama_daemon::state::Daemon;

/// What a program printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit status; -1 = killed.
    pub exit: i32,
}

/// Runs a program to its end.
pub fn run(command: &mut std::process::Command) -> Outcome {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        out: text(&output.stdout),
        err: text(&output.stderr),
        exit: output.status.code().unwrap_or(-1),
    }
}

/// The path of `tramactl`, in the folder where this test was built.
#[track_caller]
pub fn tramactl() -> PathBuf {
    let test = std::env::current_exe().expect("path of this test");
    let path = test.ancestors().nth(2).expect("target folder").join("tramactl");
    assert!(path.exists(), "{} is not built: cargo build -p trama-tools", path.display());
    path
}

/// Cuts a command line into words; single quotes hold blanks together.
pub fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                begun = true;
            }
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// A running daemon. It ends with the value.
pub struct RunningDaemon {
    dir: TempDir,
    daemon: Arc<Daemon>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningDaemon {
    /// Starts a daemon on the given configuration; `{dir}` stands for its directory.
    pub fn start(config: &str) -> RunningDaemon {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trama.toml");
        let config = config.replace("{dir}", &dir.path().display().to_string());
        std::fs::write(&file, config).unwrap();
        let daemon = Daemon::start(trama_daemon::state::Source::at(file))
            .unwrap_or_else(|error| panic!("{error}"));
        let served = Arc::clone(&daemon);
        let (stop, stopped) = oneshot::channel::<()>();
        let socket =
            std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
        socket.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = tokio::net::UnixListener::from_std(socket).unwrap();
                let shutdown = async {
                    let _ = stopped.await;
                };
                trama_daemon::api::serve(served, socket, None, shutdown).await;
            });
        });
        RunningDaemon { dir, daemon, stop: Some(stop), thread: Some(thread) }
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// The text of its configuration file.
    pub fn file(&self) -> String {
        std::fs::read_to_string(self.dir().join("trama.toml")).unwrap()
    }

    /// Runs `tramactl` with the words of `line`; `{dir}` stands for the daemon's directory.
    pub fn ctl(&self, line: &str) -> Outcome {
        let line = line.replace("{dir}", &self.dir().display().to_string());
        run(std::process::Command::new(tramactl())
            .env("TRAMA_SOCKET", self.socket())
            .args(words(&line)))
    }

    /// Runs `tramactl` with the words of `line` on a terminal of its own; returns what it shows,
    /// with plain line ends.
    pub fn on_terminal(&self, line: &str, environment: &[(&str, &str)]) -> String {
        let command = format!("{} {line}", tramactl().display());
        let outcome = run(std::process::Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .env("TRAMA_SOCKET", self.socket())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::null()));
        assert_eq!(outcome.exit, 0, "tramactl {line}: {}", outcome.err);
        outcome.out.replace("\r\n", "\n")
    }

    /// Runs a line of the shell, which begins with the words of `tramactl`; returns its output.
    pub fn shell(&self, line: &str) -> String {
        let line = format!("{} {line}", tramactl().display());
        let outcome = run(std::process::Command::new("bash")
            .args(["-o", "pipefail", "-c", &line])
            .env("TRAMA_SOCKET", self.socket()));
        assert_eq!((outcome.exit, outcome.err.as_str()), (0, ""), "{line}");
        outcome.out
    }

    /// As [`RunningDaemon::ctl`], but expects success; returns standard output.
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.ctl(line);
        assert_eq!((outcome.exit, outcome.err.as_str()), (0, ""), "tramactl {line}");
        outcome.out
    }

    /// As [`RunningDaemon::ctl`], but expects exit status 1; returns standard error.
    pub fn refused(&self, line: &str) -> String {
        let outcome = self.ctl(line);
        assert_eq!((outcome.exit, outcome.out.as_str()), (1, ""), "tramactl {line}");
        assert!(outcome.err.starts_with("tramactl: "), "{}", outcome.err);
        outcome.err
    }
}

impl Drop for RunningDaemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.daemon.stop();
    }
}
