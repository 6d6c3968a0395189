//! What an earlier switch has left of a network's gateway.
//!
//! ```text
//!  find        the port is given the rings of the process, if that can go on
//!    │         this switch may prepare beside the earlier one: its engines are held
//!    ▼
//!  look_again  the earlier switch has ended, and may have replaced the process before that
//!    │
//!    ├─▶ it goes on: it is passed a channel, and sent the settings
//!    └─▶ it is ended, and a new one gets the journal of its flows
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use trama_gateway::Config;
use trama_gateway::control::PROTOCOL;
use trama_gateway::link::{self, GuestEnd, Layout};
use trama_helper::{GatewayFds, KeptGateway, Rights};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Rings, notifier};

use super::process::{VERSION, plug, purpose};

/// A gateway of an earlier switch.
pub(super) struct Left {
    pub(super) kept: KeptGateway,
    /// Why its process cannot go on; `None`: the port has its rings.
    pub(super) fault: Option<String>,
}

impl Left {
    /// Looks for a gateway of an earlier switch, and gives its rings to the port if the process can
    /// go on.
    pub(super) fn find(
        network: &str,
        (rights, port): (&Rights, &mut SwitchPort),
        config: &Config,
    ) -> Option<Left> {
        Left::look(network, rights, config).map(|left| left.attach(port, config))
    }

    /// Looks again, once the earlier switch has ended. `before` is what was found before that.
    pub(super) fn look_again(
        before: Option<Left>,
        network: &str,
        (rights, port): (&Rights, &mut SwitchPort),
        config: &Config,
    ) -> Option<Left> {
        let now = Left::look(network, rights, config);
        if let Some(before) = before {
            let is_same = |now: &Left| now.kept.record == before.kept.record && now.fault.is_none();
            if before.fault.is_none() && now.as_ref().is_some_and(is_same) {
                before.kept.entry.leave();
                return now;
            }
            if now.is_some() {
                // The new one has the same key: dropped, this one would remove it.
                before.kept.entry.leave();
            }
            port.disconnected();
        }
        now.map(|left| left.attach(port, config))
    }

    fn look(network: &str, rights: &Rights, config: &Config) -> Option<Left> {
        let kept = rights.kept_gateway(network).unwrap_or_else(|fault| {
            tracing::warn!("network {network}: gateway: {fault}; starts again");
            None
        })?;
        let fault = check(&kept, config).err();
        Some(Left { kept, fault })
    }

    fn attach(self, port: &mut SwitchPort, config: &Config) -> Left {
        let Left { kept, fault: None } = self else { return self };
        let attached = attach(&kept.fds, port, Layout::of(config));
        if attached.is_err() {
            port.disconnected();
        }
        let fault = attached.err().map(|error| format!("its rings cannot be used: {error}"));
        Left { kept, fault }
    }
}

/// Whether the process can go on.
fn check(kept: &KeptGateway, config: &Config) -> Result<(), String> {
    let KeptGateway { record, gateway, .. } = kept;
    let process = record.process;
    if gateway.ends_within(Duration::ZERO) {
        return Err(format!("process {process} has ended"));
    }
    if record.version != VERSION || record.protocol != PROTOCOL {
        return Err(format!("process {process} is of version {}", record.version));
    }
    if record.purpose != purpose(config) {
        return Err(format!("process {process} was started for other settings"));
    }
    Ok(())
}

/// Gives the port the rings of a process.
fn attach(fds: &GatewayFds, port: &mut SwitchPort, layout: Layout) -> io::Result<()> {
    // The worker must not wait at one of them.
    let event = |fd: &OwnedFd| notifier(File::from(fd.try_clone()?));
    let (kick, call) = (event(&fds.kick)?, event(&fds.call)?);
    let end = link::rejoin(layout, GuestEnd { memory: fds.memory.try_clone()?, kick, call });
    plug(port, layout, end.map_err(io::Error::other)?)?;
    // The earlier switch may have ended between a frame and its call.
    let _ = rustix::io::write(&fds.call, &1u64.to_ne_bytes());
    Ok(())
}
