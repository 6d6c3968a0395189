//! Rules that lead from a port of the host to a guest (forwards), or from a port of the gateway to
//! the host's loopback (loopback maps).

use std::fmt;
use std::net::IpAddr;

use trama_gateway::Transport;

/// The word for [`Rule::as_gateway`].
pub const AS_GATEWAY: &str = "as-gateway";

/// A rule as written. What it omits follows from its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; may be empty, see [`Rule::label`].
    pub name: String,
    /// The transport protocol.
    pub transport: Transport,
    /// The host's address. `None` means all addresses of both IP versions for a forward, and the
    /// loopback address of the guest's IP version for a loopback map.
    pub host: Option<IpAddr>,
    /// The first of the host's ports, at least 1.
    pub host_port: u16,
    /// The address on the network.
    pub guest: Option<IpAddr>,
    /// The first of the network's ports, at least 1.
    pub guest_port: u16,
    /// The number of ports on either side, at least 1; the last port is 65535 at most.
    pub count: u16,
    /// Whether the guest sees the gateway's address instead of the client's.
    pub as_gateway: bool,
}

impl Rule {
    /// Its name, or protocol and port if it has none.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            format!("{}-{}", self.transport.name(), self.host_port)
        } else {
            self.name.clone()
        }
    }

    /// The last of the host's ports.
    pub fn last_host_port(&self) -> u16 {
        self.host_port.saturating_add(self.count - 1)
    }
}

/// The form with commas, as short as possible.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address =
            |address: Option<IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
        let ports = |first: u16| match self.count {
            1 => first.to_string(),
            count => format!("{first}-{}", first.saturating_add(count - 1)),
        };
        let Rule { name, transport, host, host_port, guest, guest_port, .. } = self;
        let (host, guest, transport) = (address(*host), address(*guest), transport.name());
        write!(
            f,
            "{name},{transport},{host},{},{guest},{}",
            ports(*host_port),
            ports(*guest_port)
        )?;
        if self.as_gateway { write!(f, ",{AS_GATEWAY}") } else { Ok(()) }
    }
}
