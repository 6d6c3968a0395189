//! Configurations, and the commands that change them.

use trama_daemon::config::model::Config;
use trama_daemon::config::{edit, parse, validate};
use trama_daemon::ctl::{self, Snapshot};
use trama_daemon::plan::plan;

/// A configuration that the commands begin with.
const LAB: &str = include_str!("../../../../examples/lab.toml");

/// The text of a configuration.
pub(super) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse(&text, "trama.toml") {
        Ok(config) => check(&text, &Config::default(), &config),
        Err(faults) => {
            assert!(!faults.is_empty(), "it is refused without a reason");
            faults.iter().for_each(|fault| drop(fault.to_string()));
        }
    }
}

/// A configuration survives being saved over another, and needs no step once it runs.
fn check(text: &str, old: &Config, new: &Config) {
    let _ = plan(old, new);
    assert_eq!(plan(new, new), [], "a configuration differs from itself");
    let kept = edit(text, new, new).expect("a text that was read");
    // All lines get the same end, the last one too, and blanks in the heads of tables go.
    let lines = |text: &str| text.replace(['\r', ' ', '\t'], "").trim().to_owned();
    assert_eq!(lines(&kept), lines(text), "what did not change is written otherwise");
    let saved = edit("", &Config::default(), new).expect("a configuration is saved");
    let read = parse(&saved, "saved").unwrap_or_else(|faults| panic!("{faults:?} in {saved}"));
    assert_eq!(&read, new, "{saved}");
}

/// The words of commands.
fn words(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Commands, one a line, whose words end with spaces.
pub(super) fn commands(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(calls) = ctl::parse(&words(&text)) else { return };
    let before = parse(LAB, "lab.toml").unwrap();
    let Ok(outcome) = ctl::run(&calls, before.clone(), &Snapshot::default()) else { return };
    assert_eq!(outcome.results.len(), calls.len(), "a command without a result");
    let problems = validate(&outcome.config);
    if problems.is_empty() {
        let edited = edit(LAB, &before, &outcome.config).expect("the change is saved");
        let read = parse(&edited, "edited").unwrap_or_else(|faults| {
            panic!("{faults:?} in {edited}");
        });
        assert_eq!(plan(&read, &outcome.config), [], "{edited}");
    }
}

pub(super) mod seeds {
    pub(in super::super) fn config() -> Vec<Vec<u8>> {
        [
            include_str!("../../../../examples/lab.toml"),
            include_str!("../../../../examples/bridged.toml"),
            include_str!("../../../../examples/dhcp.toml"),
            include_str!("../../../../examples/nat.toml"),
            include_str!("../../../../examples/nat-network.toml"),
            include_str!("../../../../examples/host-only.toml"),
            include_str!("../../../../packaging/trama.toml"),
            MORE,
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    }

    const MORE: &str = r#"
[daemon]
workers = 2
capture-ring = "8Mi"

[[network]]
name = "n"
mtu = 1450
external-ids = { owner = "x" }

[network.sflow]
targets = ["10.0.0.1:6343"]

[network.ipfix]
targets = ["10.0.0.1:4739", "[fd00::9]:4739"]

[[port]]
name = "s"
network = "n"
type = "stream"
path = "/run/trama/s.sock"
vlan-mode = "native-untagged"
tag = 5
trunks = [1, 5]

[[port]]
name = "d"
network = "n"
type = "dgram"
local = "127.0.0.1:7000"
remote = "127.0.0.1:7001"

[[port]]
name = "v"
network = "n"
type = "vxlan"
remote = "192.0.2.7"
vni = 7

[[mirror]]
name = "m"
network = "n"
select-all = true
output-port = "s"
filter = "tcp and port 80"
"#;

    pub(in super::super) fn commands() -> Vec<Vec<u8>> {
        [
            "add-br b\nadd-port b p\nset Interface p type=vhost-user\nlist-ports b",
            "--may-exist add-br lab\n--if-exists del-port lab nothing\nshow",
            "set Bridge lab other_config:mac-aging-time=60 fail_mode=standalone",
            "set port vm1 tag=7 vlan_mode=native-untagged trunks=1,2,3",
            "get Interface vm1 name ofport mtu_request",
            "list Port\nfind Port tag=10\nlist-br\nbr-exists lab\nport-to-br vm1",
            "add Port vm1 trunks 5\nremove Port vm1 trunks 5\nclear Port vm1 tag",
            "--id=@p get Port vm1\n--id=@m create Mirror name=m select_all=true output_port=@p\n\
             set Bridge lab mirrors=@m",
            "del-br lab",
            "wait-until Interface vm1 link_state=up",
            "link vm1 down\nset Interface vm2 options:queues=2 mtu_request=1400",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_valid() {
        for seed in seeds::config() {
            let text = String::from_utf8(seed).unwrap();
            parse(&text, "seed").unwrap_or_else(|faults| panic!("{faults:?} in {text}"));
        }
        for seed in seeds::commands() {
            let text = String::from_utf8(seed).unwrap();
            let commands = words(&text);
            let calls = ctl::parse(&commands).unwrap_or_else(|error| panic!("{error:?}: {text}"));
            let before = parse(LAB, "lab.toml").unwrap();
            let result = ctl::run(&calls, before, &Snapshot::default());
            let is_told = text.starts_with("wait-until");
            assert!(is_told || result.is_ok(), "{:?}: {text}", result.err());
        }
    }
}
