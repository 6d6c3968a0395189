//! Published ports of containers: forwards of their ports.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trama_api::value::{Atom, Value};
use trama_client::{Daemon, Failed};

use crate::names;
use crate::ports::{self, rows};

/// How long the gateway may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at that.
const PAUSE: Duration = Duration::from_millis(20);
/// Digits of a container's identity in the names of rules.
const SHORT_ID: usize = 12;

/// A published port, or a range of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Published {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's address; `None`: all of them.
    pub host: Option<IpAddr>,
    /// The first of the host's ports.
    pub host_port: u16,
    /// The first of the container's ports.
    pub container_port: u16,
    /// How many ports there are, at least 1.
    pub count: u16,
}

impl Published {
    /// The name of its rule: parts of what makes it unique.
    fn name(&self, engine: &str, container: &str) -> String {
        let short: String = container.chars().take(SHORT_ID).collect();
        let address = self.host.map(|host| format!("-{host}").replace(':', "."));
        let Published { protocol, host_port, .. } = self;
        format!("{engine}-{short}-{host_port}-{protocol}{}", address.unwrap_or_default())
    }

    fn rule(&self, engine: &str, container: &str) -> String {
        let ports = |first: u16| match self.count {
            1 => first.to_string(),
            count => format!("{first}-{}", first.saturating_add(count - 1)),
        };
        let host = self.host.map(|host| host.to_string()).unwrap_or_default();
        let (name, protocol) = (self.name(engine, container), &self.protocol);
        let (host_ports, container_ports) = (ports(self.host_port), ports(self.container_port));
        format!("{name},{protocol},{host},{host_ports},,{container_ports}")
    }
}

/// The column `forward` of a container's port; `None` if no port is published.
pub(crate) fn column(published: &[Published], engine: &str, container: &str) -> Option<String> {
    let rules: Vec<String> = published.iter().map(|it| it.rule(engine, container)).collect();
    (!rules.is_empty()).then(|| names::set("forward", rules.iter().map(String::as_str)))
}

/// Waits until the published ports of a port of the switch are open.
///
/// # Errors
/// One of them does not open, such as a port of the host that is in use.
pub(crate) fn wait(daemon: &Daemon, network: &str, rules: &[String]) -> Result<(), Failed> {
    let end = Instant::now() + PATIENCE;
    loop {
        let Some((rule, status)) = first_closed(daemon, network, rules)? else { return Ok(()) };
        if Instant::now() >= end {
            return Err(format!("the published port of rule {rule} does not open: {status}").into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits for the published ports of a port that has just joined. If they do not open, the port is
/// removed.
///
/// # Errors
/// Those of [`wait`].
pub(crate) fn wait_or_leave(
    daemon: &Daemon,
    network: &str,
    port: &str,
    rules: &[String],
) -> Result<(), Failed> {
    wait(daemon, network, rules).inspect_err(|_| {
        // The first error is the one to report.
        let _ = ports::remove(daemon, port);
    })
}

/// The names of the rules of these ports.
pub(crate) fn rule_names(published: &[Published], engine: &str, container: &str) -> Vec<String> {
    published.iter().map(|it| it.name(engine, container)).collect()
}

/// The first rule that does not listen, and why.
fn first_closed(
    daemon: &Daemon,
    network: &str,
    rules: &[String],
) -> Result<Option<(String, String)>, Failed> {
    if rules.is_empty() {
        return Ok(None);
    }
    let listed = rows(daemon.run(["forward", "list", network])?);
    let status_of = |name: &String| {
        // Network, name, protocol, host, guest, client, status.
        let is_row = |row: &&Vec<Value>| row.get(1) == Some(&Value::string(name.clone()));
        match listed.iter().find(is_row).and_then(|row| row.last()) {
            Some(Value::One(Atom::String(status))) => status.to_string(),
            _ => "the daemon does not list it".to_owned(),
        }
    };
    let mut states = rules.iter().map(|name| (name.clone(), status_of(name)));
    Ok(states.find(|(_, status)| status != "listening"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_names_of_their_own() {
        let one = Published {
            protocol: "tcp".into(),
            host: None,
            host_port: 8080,
            container_port: 80,
            count: 1,
        };
        let host = Some("::1".parse().unwrap());
        let two = Published { protocol: "udp".into(), host, count: 3, ..one.clone() };
        assert_eq!(
            column(&[one, two], "cni", "0123456789abcdef"),
            Some(
                "forward=[\"cni-0123456789ab-8080-tcp,tcp,,8080,,80\",\
                 \"cni-0123456789ab-8080-udp-..1,udp,::1,8080-8082,,80-82\"]"
                    .to_owned()
            )
        );
        assert_eq!(column(&[], "cni", "c"), None);
    }
}
