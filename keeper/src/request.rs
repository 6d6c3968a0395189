//! What a switch may ask of the keeper, and the answers.

use serde::{Deserialize, Serialize};

/// The version of this protocol. A keeper may be older or newer than a switch that attaches to it:
/// [`Request::Attach`] and its answers keep their places and fields in all versions.
pub(crate) const VERSION: u32 = 1;

/// Most bytes of a value.
pub const LONGEST_VALUE: usize = 64 << 10;
/// Most bytes of a key.
pub const LONGEST_KEY: usize = 255;
/// Longest message in bytes: a value, its key and what is said with them.
pub(crate) const LONGEST: usize = LONGEST_VALUE + 1024;
/// Most keys that one answer names.
pub(crate) const NAMED: usize = 64;

/// As what a switch attaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Claim {
    /// The switch that a user or the system has started. Takes over from a stand-in.
    Main,
    /// The switch that runs until the next one is started.
    StandIn,
    /// Takes over from a main switch, too.
    TakeOver,
    /// Takes over as well, and is itself followed as a stand-in is.
    Bridge,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    Attach {
        version: u32,
        claim: Claim,
    },
    /// Comes with the entry's descriptors.
    Put {
        key: &'a str,
        value: &'a [u8],
    },
    Get {
        key: &'a str,
    },
    Remove {
        key: &'a str,
    },
    /// Drops some entries that the switch has neither got nor put.
    Settle,
    Go,
    /// Comes with the connection of a frontend.
    Relay {
        key: &'a str,
        value: &'a [u8],
    },
    Resume {
        key: &'a str,
    },
    /// A request of a frontend was served and answered. Has no answer itself.
    Done {
        key: &'a str,
    },
    Close {
        key: &'a str,
    },
    End,
    /// Asks whether a successor is attached.
    Followed,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Reply<'a> {
    /// Comes with two event descriptors: for freezing, and for the end of the previous switch.
    Attached {
        restarts: u64,
        /// The process of the switch that still runs.
        previous: Option<i32>,
        /// What of the keeper's sandbox is not in force.
        missing: Vec<String>,
    },
    /// Another switch is attached: its process.
    Busy {
        pid: i32,
    },
    /// The keeper's version.
    Version {
        version: u32,
    },
    Refused(&'a str),
    Ok,
    /// There is no entry or connection with the key.
    Absent,
    /// Comes with the entry's descriptors.
    Kept {
        value: &'a [u8],
    },
    Settled {
        dropped: Vec<String>,
        /// Whether there may be more to drop.
        more: bool,
    },
    /// Whether the previous switch is gone already.
    Going {
        is_gone: bool,
    },
    /// Whether the keeper ends now, as no other switch is attached.
    Ended {
        is_last: bool,
    },
    /// Comes with the stream on which the frontend's messages arrive.
    Relayed,
    /// The same, after `messages` of the connection's past.
    Resumed {
        value: &'a [u8],
        messages: usize,
    },
    /// Whether another switch is attached, too.
    Followed {
        is_followed: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A switch of another version must be told so.
    #[test]
    fn attaching_has_the_same_bytes_in_all_versions() {
        let attach = Request::Attach { version: 1, claim: Claim::TakeOver };
        assert_eq!(postcard::to_allocvec(&attach).unwrap(), [0, 1, 2]);
        let busy = Reply::Busy { pid: -1 };
        assert_eq!(postcard::to_allocvec(&busy).unwrap(), [1, 1]);
        assert_eq!(postcard::to_allocvec(&Reply::Version { version: 7 }).unwrap(), [2, 7]);
        assert_eq!(postcard::to_allocvec(&Reply::Refused("no")).unwrap(), [3, 2, b'n', b'o']);
    }
}
