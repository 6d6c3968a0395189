//! Messages of the control API, and of the channel between the daemon and a gateway.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::from_slice;
use trama_api::value::{Atom, Text, Value};
use trama_api::{attach, capture, event, explain, state, transaction};
use trama_gateway::Gateway;
use trama_gateway::control::{Channel, Command, Report};

use super::gateway::random;

/// Lines of the channel, read by either end; settings are put in force.
pub(super) fn gateway_channel(bytes: &[u8]) {
    let messages = receive::<Command>(bytes);
    let _ = receive::<Report>(bytes);
    for message in messages {
        let line = serde_json::to_vec(&message).expect("a command that was read is written");
        assert_eq!(from_slice::<Command>(&line).expect("and read again"), message);
        if let Command::Start { config, .. } | Command::Configure(config) = message {
            let mut gateway = Gateway::new(config.clone(), random());
            gateway.reconfigure(config);
        }
    }
}

fn receive<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours).unwrap();
    theirs.write_all(bytes).unwrap();
    channel.receive().ok().flatten().unwrap_or_default()
}

/// A body as each of the types that requests and answers have. What is read is written and read
/// again as the same.
pub(super) fn api(bytes: &[u8]) {
    fn same<T>(bytes: &[u8])
    where
        T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
    {
        let Ok(read) = from_slice::<T>(bytes) else { return };
        let written = serde_json::to_vec(&read).expect("what was read is written");
        assert_eq!(from_slice::<T>(&written).expect("and read again"), read);
    }
    same::<transaction::Request>(bytes);
    same::<transaction::Response>(bytes);
    same::<transaction::Refusal>(bytes);
    same::<explain::Request>(bytes);
    same::<explain::Answer>(bytes);
    same::<attach::Request>(bytes);
    same::<capture::Request>(bytes);
    same::<event::Query>(bytes);
    same::<event::Event>(bytes);
    same::<Atom>(bytes);
    let _ = (from_slice::<Text>(bytes), from_slice::<state::State>(bytes));
    if let Ok(value) = from_slice::<Value>(bytes) {
        let mut text = String::new();
        value.write_text(&mut text).unwrap();
        let _ = (value.bare(), value.atoms(), value.pairs());
        same::<Value>(bytes);
    }
}

pub(super) mod seeds {
    use serde_json::{json, to_vec};
    use trama_gateway::control::ResolverFiles;

    use super::super::gateway::config;
    use super::*;

    pub(in super::super) fn gateway_channel() -> Vec<Vec<u8>> {
        let line = |message: &dyn Fn() -> Vec<u8>| [&message()[..], b"\n"].concat();
        let nat = trama_gateway::Config { nat: Some(Default::default()), ..config() };
        let mut plain = trama_gateway::Config { dhcp: None, tftp: None, ..config() };
        (plain.station.ipv4, plain.station.ipv6) = (None, None);
        let files = ResolverFiles {
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            stub_upstream: Vec::new(),
        };
        let settings = [nat, plain].map(Command::Configure);
        let commands = [&settings[..], &[Command::Ping, Command::Resolvers(files)]].concat();
        let commands: Vec<_> =
            commands.iter().map(|command| line(&|| to_vec(command).unwrap())).collect();
        let reports = [
            Report::Pong,
            Report::Ready { missing: vec!["seccomp".into()] },
            Report::Warning("a line".into()),
            Report::Status(Box::new(Gateway::new(config(), random()).status())),
        ]
        .map(|report| line(&|| to_vec(&report).unwrap()));
        [&commands[..], &reports, &[commands.concat(), reports.concat()]].concat()
    }

    pub(in super::super) fn api() -> Vec<Vec<u8>> {
        let frame = json!({"bytes": [2, 0, 0, 0, 0, 1]});
        [
            json!({"version": 1, "commands": [["add-br", "lab"], ["--may-exist", "add-port"]],
                   "dry_run": true, "no_save": false}),
            json!({"results": [{"kind": "text", "lines": ["a"]}, {"kind": "table",
                   "headings": ["name", "tag"], "rows": [["vm1", ["set", [1, 2]]]],
                   "form": {"form": "fixed", "widths": [-8, 4]}}], "exit": 65, "not_running":
                   [{"kind": "port", "name": "vm1", "runs": false, "reason": "its TAP"}],
                   "steps": ["a step"], "warnings": ["a warning"]}),
            json!({"error": "no", "exit": 1}),
            json!({"version": 1, "port": "vm1", "frame": frame}),
            json!({"version": 1, "port": "vm1", "network": "lab", "frame":
                   {"described": {"dst": [2, 0, 0, 0, 0, 1], "packet":
                   {"from": "10.0.0.1", "to": "fd00::1", "protocol": "tcp", "port": 80}}}}),
            json!({"steps": [{"about": "vlan", "text": "10"}], "vlan": 10, "exits": [{"port": "vm2",
                   "tag": null, "dropped": {"at": "vm2", "reason": "x", "remedy": "y"}}],
                   "dropped": null}),
            json!({"version": 1, "network": "lab", "port": "c1", "columns": ["tag=10"],
                   "lease": true, "device": "vhost-user"}),
            json!({"version": 1, "words": ["vm1", "tcp"], "direction": "inout", "frames": true,
                   "drops": ["runt"], "snaplen": 128, "count": 9, "last": "30s"}),
            json!({"type": "flow,dns", "port": "vm1", "last": 7, "follow": true}),
            json!({"id": 1, "time": "2026-01-01T00:00:00Z", "type": "flow", "port": "vm1"}),
            json!(["set", [1, "two", ["uuid", "36a0a9ce-5b18-4a7a-8a2c-3d9a6d0fbb43"], true]]),
            json!(["map", [["a", 1], ["b", "two"]]]),
        ]
        .iter()
        .map(|value| value.to_string().into_bytes())
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_valid() {
        let is = |seed: &[u8]| {
            from_slice::<transaction::Request>(seed).is_ok()
                || from_slice::<transaction::Response>(seed).is_ok()
                || from_slice::<transaction::Refusal>(seed).is_ok()
                || from_slice::<explain::Request>(seed).is_ok()
                || from_slice::<explain::Answer>(seed).is_ok()
                || from_slice::<attach::Request>(seed).is_ok()
                || from_slice::<capture::Request>(seed).is_ok()
                || from_slice::<event::Query>(seed).is_ok()
                || from_slice::<event::Event>(seed).is_ok()
                || from_slice::<Value>(seed).is_ok()
        };
        for seed in seeds::api() {
            assert!(is(&seed), "{}", String::from_utf8_lossy(&seed));
        }
        for seed in seeds::gateway_channel() {
            let count = receive::<Command>(&seed).len() + receive::<Report>(&seed).len();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seed));
        }
    }
}
