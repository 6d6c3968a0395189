//! The `[daemon]` table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::folders::Folders;
use super::socket::SocketMode;

/// What concerns the daemon as a whole. Most changes here need a restart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DaemonConfig {
    /// Where files are that are not placed here; no key.
    #[serde(skip)]
    pub folders: Folders,
    /// The control socket.
    pub control: PathBuf,
    /// The group that may use it; `None` = the daemon's own.
    pub group: Option<String>,
    /// The group of ports' sockets that state none. In force at once, as what follows.
    pub socket_group: Option<String>,
    /// The mode of ports' sockets that state none.
    pub socket_mode: Option<SocketMode>,
    /// Where state that must survive a restart is kept.
    pub state: PathBuf,
    /// Where Prometheus scrapes; `None` = nowhere.
    pub metrics: Option<SocketAddr>,
    /// Data-plane threads, at least 1.
    pub workers: usize,
    /// How long an idle worker looks before it sleeps.
    pub spin: Spin,
}

/// How long an idle worker looks for frames before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spin {
    /// Looks for this long after the last frame; zero = sleeps at once.
    For(Duration),
    /// Never sleeps.
    Always,
}

/// How long an idle worker looks by default. Measured with `ping -f` between two TAPs, round trip and
/// processor time of 20,000: 0 to 40 µs 33–43 µs and 0.56–1.08 s, 50 µs and more 10 µs and 0.44–0.49 s.
/// A sender that was woken by the answer sends again within that time; who sleeps earlier pays for two
/// wake-ups of idle processors on each frame.
const SPIN: Duration = Duration::from_micros(60);

impl Default for DaemonConfig {
    fn default() -> Self {
        Self::at(Folders::system())
    }
}

impl DaemonConfig {
    /// What is in force where nothing is stated.
    pub fn at(folders: Folders) -> Self {
        Self {
            control: folders.control(),
            group: None,
            socket_group: None,
            socket_mode: None,
            state: folders.state.clone(),
            folders,
            metrics: None,
            workers: 1,
            spin: Spin::For(SPIN),
        }
    }
}
