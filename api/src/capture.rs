//! The bodies of captures: `POST /v1/capture`, which is answered with a pcapng file as it grows,
//! and `POST /v1/capture/end`.

use serde::{Deserialize, Serialize};

/// The header of the answer that has the capture's number.
pub const ID: &str = "trama-capture";

/// Which frames of a port are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the machine behind it.
    In,
    /// To that machine.
    Out,
    /// Both.
    InOut,
}

/// Asks for a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API.
    pub version: u32,
    /// Names of ports and networks, or `any`, then the words of a filter.
    pub words: Vec<String>,
    /// `None` = both for ports; for networks and `any`, each frame once, where it enters.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Whether frames are captured that pass.
    pub frames: bool,
    /// Reasons of dropped frames that are captured; empty = all; `None` = no dropped frame is.
    #[serde(default)]
    pub drops: Option<Vec<String>>,
    /// Most bytes of a frame; 0 = all.
    pub snaplen: u32,
    /// The number of frames after which the capture ends.
    #[serde(default)]
    pub count: Option<u64>,
    /// How much of the time before it comes first, if the daemon keeps a ring: `30s`, `5m`, or
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Asks a capture to end. Its answer goes on to what was captured until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The version of the API.
    pub version: u32,
    /// The capture's number.
    pub id: u64,
}
