//! A gateway's settings.

mod dhcp;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use dhcp::Dhcp;
use trama_nat::Rules;
use trama_nat::Station;

/// The settings of a gateway; all can change while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The gateway's addresses.
    pub station: Station,
    /// Names that DNS answers in addition to the host's resolvers, and their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// The folder below which TFTP serves files; `None`: no TFTP.
    pub tftp: Option<PathBuf>,
    /// Address configuration of guests; `None`: none.
    pub dhcp: Option<Dhcp>,
    /// NAT to other networks; `None`: none.
    pub nat: Option<Rules>,
    /// Whether the daemon is told of events.
    pub tells_events: bool,
    /// Whether the answers of DNS are among them.
    pub tells_answers: bool,
}

impl Config {
    /// The settings of the NAT.
    pub fn nat(&self) -> trama_nat::Config<'_> {
        trama_nat::Config { station: &self.station, rules: self.nat.as_ref() }
    }

    /// Whether the link to the switch has large-frame offloads, which NAT needs for bulk data.
    pub fn has_large_frames(&self) -> bool {
        self.nat.is_some()
    }
}
