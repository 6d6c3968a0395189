//! Gateways that outlive the switch: the keeper has their descriptors, and what must be known of
//! them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::kept::{self, Entry, Unreadable};
use crate::pidfd::{has_ended, process_of};
use crate::rights::{Gateway, Rights};

/// What is known of a gateway process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// The version of the program.
    pub version: String,
    /// The version of the messages to it.
    pub protocol: u32,
    /// Its process.
    pub process: u32,
    /// What it was started for, in a form that another version may not know.
    pub purpose: Vec<u8>,
    /// Why it has no lease folder, although it should.
    pub folder_fault: Option<String>,
    /// How often the process of its network was replaced.
    pub restarts: u64,
}

/// The descriptors of a gateway process, apart from its pidfd.
#[derive(Debug)]
pub struct GatewayFds<F = OwnedFd> {
    /// The switch's end of its lifeline.
    pub lifeline: F,
    /// The memory of its rings.
    pub memory: F,
    /// What it writes to after it has sent frames.
    pub kick: F,
    /// What wakes it.
    pub call: F,
    /// The file in which it records its flows.
    pub journal: F,
}

/// A gateway of which the keeper has the descriptors.
#[derive(Debug)]
pub struct KeptGateway {
    /// What is known of it.
    pub record: GatewayRecord,
    /// The process, which may have ended.
    pub gateway: Gateway,
    /// Its descriptors.
    pub fds: GatewayFds,
    /// The keeper's entry.
    pub entry: Entry,
}

fn key(network: &str) -> String {
    format!("gateway/{network}")
}

impl Rights {
    /// Keeps a gateway for the next switch, in place of the one before.
    pub fn keep_gateway(
        &self,
        network: &str,
        record: &GatewayRecord,
        fds: &GatewayFds<BorrowedFd<'_>>,
        gateway: &Gateway,
    ) -> Option<Entry> {
        let GatewayFds { lifeline, memory, kick, call, journal } = *fds;
        let fds = [lifeline, memory, kick, call, journal, gateway.pidfd.as_fd()];
        kept::put(self.keeper()?, &key(network), record, &fds)
    }

    /// Returns the gateway of a network that an earlier switch has kept, if there is one.
    ///
    /// # Errors
    /// What was kept is of no use. It is removed, and the process ends by that.
    pub fn kept_gateway(&self, network: &str) -> Result<Option<KeptGateway>, String> {
        let Some(keeper) = self.inheritance() else { return Ok(None) };
        let found = kept::find::<GatewayRecord>(keeper, &key(network));
        let unreadable = |Unreadable| "what was kept of it is of another version".to_owned();
        let Some((record, fds, entry)) = found.map_err(unreadable)? else { return Ok(None) };
        let [lifeline, memory, kick, call, journal, pidfd] = <[OwnedFd; 6]>::try_from(fds)
            .map_err(|fds| format!("{} descriptors were kept of it, not 6", fds.len()))?;
        if !has_ended(&pidfd) && process_of(&pidfd).ok().flatten() != Some(record.process) {
            return Err(format!("what was kept is not of its process {}", record.process));
        }
        let gateway = Gateway {
            process: record.process,
            folder_fault: record.folder_fault.clone(),
            missing: Vec::new(),
            pidfd,
            rights: self.clone(),
        };
        let fds = GatewayFds { lifeline, memory, kick, call, journal };
        Ok(Some(KeptGateway { record, gateway, fds, entry }))
    }
}
