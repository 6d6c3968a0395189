//! Tunnels to other hosts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A tunnel of VXLAN (RFC 7348) to one other host.
#[derive(Clone, Debug, PartialEq)]
pub struct Vxlan {
    /// The address of the other host.
    pub remote: IpAddr,
    /// The VXLAN network identifier, of 24 bits.
    pub vni: u32,
    /// The UDP port at both ends.
    pub port: u16,
    /// The address of this host; `None` = any.
    pub local: Option<IpAddr>,
}

impl Vxlan {
    /// Where its datagrams arrive on this host.
    pub(crate) fn vtep(&self) -> SocketAddr {
        let any = match self.remote {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.local.unwrap_or(any), self.port)
    }
}

impl fmt::Display for Vxlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} VNI {}", SocketAddr::new(self.remote, self.port), self.vni)
    }
}
