//! Problems that validation finds: table, key, message and remedy.

use std::fmt;

use crate::Fault;

/// The table of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `[daemon]`.
    Daemon,
    /// `networks[i]`.
    Network(usize),
    /// `networks[i].dhcp`.
    Dhcp(usize),
    /// `networks[i].sflow`.
    Sflow(usize),
    /// `networks[i].ipfix`.
    Ipfix(usize),
    /// `networks[i].dhcp.reservations[j]`.
    Reservation(usize, usize),
    /// `ports[i]`.
    Port(usize),
    /// `mirrors[i]`.
    Mirror(usize),
    /// `records[i]`.
    Record(usize),
}

/// A problem in a configuration. Displayed as `key: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table.
    pub place: Place,
    /// The key within the table, such as `tag`.
    pub key: &'static str,
    /// The whole path as shown, such as `port.vm1.tag`.
    pub path: String,
    /// What is wrong, and what to do about it.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.fault)
    }
}

/// The path of a table as shown: by name, or by number if it has no name.
pub(crate) fn table_path(place: Place, name: &str) -> String {
    let (kind, index) = match place {
        Place::Daemon => return "daemon".to_owned(),
        Place::Network(index) => ("network", index),
        Place::Dhcp(index) => return table_path(Place::Network(index), name) + ".dhcp",
        Place::Sflow(index) => return table_path(Place::Network(index), name) + ".sflow",
        Place::Ipfix(index) => return table_path(Place::Network(index), name) + ".ipfix",
        Place::Reservation(index, number) => {
            return table_path(Place::Dhcp(index), name) + &format!(".reservation[{number}]");
        }
        Place::Port(index) => ("port", index),
        Place::Mirror(index) => ("mirror", index),
        Place::Record(index) => ("openvswitch", index),
    };
    if name.is_empty() {
        format!("{kind}[{index}]")
    } else {
        format!("{kind}.{}", name.escape_debug())
    }
}
