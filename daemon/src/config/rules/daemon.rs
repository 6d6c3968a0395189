//! Rules for `[daemon]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use trama_api::values::is_host_name;

use super::check::Check;
use super::name::quoted;
use crate::config::model::{DaemonConfig, Spin, WebAddress};

/// Most data-plane threads.
const MAX_WORKERS: usize = 64;

/// Most events that are kept: at most 64 MB or so.
const MAX_EVENTS: usize = 65_536;

/// Bytes that the ring of captured frames may take.
const CAPTURE_RING: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// Longest bounded spin.
const MAX_SPIN: Duration = Duration::from_secs(1);

impl Check {
    /// The keys of `[daemon]`.
    pub(super) fn daemon(&mut self, daemon: &DaemonConfig) {
        self.account("group", daemon.group.as_deref());
        self.account("socket-group", daemon.socket_group.as_deref());
        if daemon.control.as_os_str().is_empty() && daemon.folders.control().as_os_str().is_empty()
        {
            let message = "has no default: XDG_RUNTIME_DIR is not set to an absolute path";
            self.problem("control", message, "set it, or give the socket's absolute path");
        } else {
            self.socket_path("control", &daemon.control);
        }
        if daemon.state.as_os_str().is_empty() {
            let message = "has no default: neither XDG_STATE_HOME nor HOME is set";
            self.problem("state", message, "set one of them, or give the folder's absolute path");
        } else if !daemon.state.is_absolute() {
            let message = format!("{} is not an absolute path", quoted(&daemon.state));
            self.problem("state", message, "start it with /");
        }
        self.web(daemon);
        if !(1..=MAX_WORKERS).contains(&daemon.workers) {
            let message = format!("{} is out of range", daemon.workers);
            self.problem("workers", message, format!("use 1 to {MAX_WORKERS}"));
        }
        if daemon.events > MAX_EVENTS {
            let message = format!("{} is out of range", daemon.events);
            self.problem("events", message, format!("use 1 to {MAX_EVENTS}, or 0 for none"));
        }
        if let Some(bytes) = daemon.capture_ring {
            self.capture_ring(bytes, daemon.capture);
        }
        if matches!(daemon.spin, Spin::For(time) if time > MAX_SPIN) {
            self.problem("spin", "is out of range", r#"use "0us" to "1s", or "always""#);
        }
    }

    fn web(&mut self, daemon: &DaemonConfig) {
        for name in daemon.web_hosts.iter().filter(|name| !is_host_name(name)) {
            let message = format!("{name:?} is not a host name");
            self.problem("web-hosts", message, r#"write names without a port, as "lab.example""#);
        }
        match &daemon.web {
            Some(WebAddress::Unix(path)) if *path == daemon.control => {
                let message = format!("{} is taken by daemon.control", quoted(path));
                self.problem("web", message, "give each its own socket");
            }
            Some(WebAddress::Unix(path)) => {
                self.socket_path("web", path);
            }
            Some(WebAddress::Tcp(address)) if Some(*address) == daemon.metrics => {
                let message = format!("{address} is taken by daemon.metrics");
                self.problem("web", message, "give each its own address or port");
            }
            Some(WebAddress::Tcp(address))
                if !address.ip().is_loopback() && daemon.web_hosts.is_empty() =>
            {
                let message = format!("{address} is reached by other machines");
                let remedy = "use an address of loopback; or state the names by which browsers \
                              come through a proxy with TLS, as web-hosts";
                self.problem("web", message, remedy);
            }
            Some(WebAddress::Tcp(_)) | None => {}
        }
    }

    fn capture_ring(&mut self, bytes: usize, may_capture: bool) {
        if !CAPTURE_RING.contains(&bytes) {
            let message = format!("{bytes} bytes are out of range");
            let remedy = r#"use "64Ki" to "1Gi", or remove it for no ring"#;
            self.problem("capture-ring", message, remedy);
        } else if !may_capture {
            let message = "keeps frames, which capture = false forbids";
            self.problem("capture-ring", message, "remove one of the two");
        }
    }
}
