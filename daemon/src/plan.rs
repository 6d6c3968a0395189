//! From (running, wanted) to the smallest list of steps.

use std::fmt;

use crate::config::model::{Config, Network, Port};

/// One step from the running configuration towards the wanted one.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A port and its device go.
    RemovePort {
        /// Its name.
        name: String,
    },
    /// A network appears.
    AddNetwork {
        /// As wanted.
        network: Network,
    },
    /// A network's settings change while its ports stay.
    SetNetwork {
        /// As wanted.
        network: Network,
        /// The keys that change.
        keys: Vec<&'static str>,
    },
    /// A port's settings change while its device stays.
    SetPort {
        /// As wanted.
        port: Port,
        /// The keys that change.
        keys: Vec<&'static str>,
    },
    /// A network goes; no port is on it any more.
    RemoveNetwork {
        /// Its name.
        name: String,
    },
    /// A port and its device appear.
    AddPort {
        /// As wanted.
        port: Port,
    },
    /// `[daemon]` differs: remembered, in force only after a restart.
    NeedsRestart {
        /// The keys that change.
        keys: Vec<&'static str>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemovePort { name } => write!(f, "remove port {name}"),
            Self::AddNetwork { network } => write!(f, "add network {}", network.name),
            Self::SetNetwork { network, keys } => {
                write!(f, "set network {}: {}", network.name, keys.join(", "))
            }
            Self::SetPort { port, keys } => {
                write!(f, "set port {}: {}", port.name, keys.join(", "))
            }
            Self::RemoveNetwork { name } => write!(f, "remove network {name}"),
            Self::AddPort { port } => write!(f, "add port {}", port.name),
            Self::NeedsRestart { keys } => {
                write!(f, "restart needed for daemon.{}", keys.join(", daemon."))
            }
        }
    }
}

/// The steps that lead from `running` to `wanted`, in the order to take them.
pub fn plan(running: &Config, wanted: &Config) -> Vec<Step> {
    let _ = (running, wanted);
    Vec::new()
}
