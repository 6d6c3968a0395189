//! The `[daemon]` table.

use std::fmt::{self, Display, Formatter};
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use trama_api::folders::Folders;
pub use trama_sandbox::Mode as Sandbox;
pub use trama_switch::Spin;

use super::openvswitch::Kept;
use super::socket::SocketMode;

/// The settings of the daemon. Most changes need a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonConfig {
    /// Default locations of files; not a key.
    pub folders: Folders,
    /// The control socket.
    pub control: PathBuf,
    /// The group that may use the control socket; `None` = the daemon's primary group.
    pub group: Option<String>,
    /// The group of ports' sockets that state none. A change is in force at once.
    pub socket_group: Option<String>,
    /// The mode of ports' sockets that state none. A change is in force at once.
    pub socket_mode: Option<SocketMode>,
    /// The folder of the state that must survive a restart.
    pub state: PathBuf,
    /// The address that Prometheus scrapes; `None` = no metrics over TCP.
    pub metrics: Option<SocketAddr>,
    /// Where browsers find the page; `None` = there is none. A change is in force at once, as with
    /// the two after it.
    pub web: Option<WebAddress>,
    /// Whether the page may change something.
    pub web_write: bool,
    /// Names by which browsers reach the page, besides addresses of loopback.
    pub web_hosts: Vec<String>,
    /// Data-plane threads, at least 1.
    pub workers: usize,
    /// How long an idle worker polls before it sleeps.
    pub spin: Spin,
    /// How strictly processes are restricted to the files and system calls that they need.
    pub sandbox: Sandbox,
    /// Whether users of the control socket may capture frames. A change is in force for new
    /// captures.
    pub capture: bool,
    /// Bytes that the ring of the last captured frames may take; `None` = there is no ring. A
    /// change is in force at once.
    pub capture_ring: Option<usize>,
    /// How many events are kept; 0 = none. A change is in force at once.
    pub events: usize,
    /// Columns of the table Open_vSwitch that are kept.
    pub openvswitch: Kept,
}

/// Where browsers find the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebAddress {
    /// At an address of TCP.
    Tcp(SocketAddr),
    /// At a Unix socket, written with `unix:` before its path.
    Unix(PathBuf),
}

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

impl FromStr for WebAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<WebAddress, AddrParseError> {
        match text.strip_prefix(UNIX) {
            Some(path) => Ok(WebAddress::Unix(path.into())),
            None => text.parse().map(WebAddress::Tcp),
        }
    }
}

impl Display for WebAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            WebAddress::Tcp(address) => write!(f, "{address}"),
            WebAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// How long an idle worker polls by default. Measured with `ping -f` between two TAPs, 20,000 round
/// trips: with 0 to 40 µs, 33–43 µs each and 0.56–1.08 s of processor time; with 50 µs and more, 10
/// µs each and 0.44–0.49 s. A sender that the answer wakes sends again within that time; a worker
/// that sleeps earlier costs two wake-ups of idle processors per frame.
const SPIN: Duration = Duration::from_micros(60);

/// How many events are kept by default: some minutes of a busy network, and about 2 MB.
const EVENTS: usize = 4096;

impl Default for DaemonConfig {
    fn default() -> Self {
        Self::at(Folders::system())
    }
}

impl DaemonConfig {
    /// The settings of a daemon with these folders and an empty `[daemon]` table.
    pub fn at(folders: Folders) -> Self {
        Self {
            control: folders.control(),
            group: None,
            socket_group: None,
            socket_mode: None,
            state: folders.state.clone(),
            folders,
            metrics: None,
            web: None,
            web_write: false,
            web_hosts: Vec::new(),
            workers: 1,
            spin: Spin::For(SPIN),
            sandbox: Sandbox::default(),
            capture: true,
            capture_ring: None,
            events: EVENTS,
            openvswitch: Kept::new(),
        }
    }
}
