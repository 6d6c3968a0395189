//! The plug-in for runtimes that speak CNI (Container Network Interface, specification 1.1.0), such
//! as containerd, CRI-O and nerdctl.
//!
//! `docs/cni.md` has what is configured. A runtime that dies in the middle leaves at most a port
//! with its identity in `external_ids`, which DEL and GC remove.

mod add;
mod check;
mod config;
mod delegate;
mod environment;
mod failure;
mod success;

use std::time::Duration;

use serde_json::{Value, json};
use trama_api::folders::control_sockets;
use trama_api::transaction::Output;
use trama_client::{Daemon, Failed};

use self::config::{Attachment, Config, Kind, NEWEST, VERSIONS};
use self::delegate::Delegate;
use self::environment::{Command, Environment};
use self::failure::{CONFIG, Failure, LIMITED, NOT_AVAILABLE};
use crate::{names, ports};

/// How long the daemon may take to answer; runtimes wait minutes for a plug-in.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the program prints, and how it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// On standard output; empty: nothing.
    pub output: String,
    /// The exit status.
    pub status: u8,
}

/// Runs the plug-in with these environment variables and this input.
pub fn run(variable: impl Fn(&str) -> Option<String>, input: &[u8]) -> Outcome {
    let (version, result) = match config::version(input) {
        // A question for the versions that are spoken is answered in any.
        _ if variable("CNI_COMMAND").as_deref() == Some("VERSION") => (NEWEST, Ok(versions(input))),
        Ok(version) => (version, carry_out(version, variable, input)),
        Err(failure) => (NEWEST, Err(failure)),
    };
    match result {
        Ok(Value::Null) => Outcome { output: String::new(), status: 0 },
        Ok(result) => Outcome { output: result.to_string(), status: 0 },
        Err(Failure { code, msg, details }) => {
            let error =
                json!({"cniVersion": version, "code": code, "msg": msg, "details": details});
            Outcome { output: error.to_string(), status: 1 }
        }
    }
}

fn versions(input: &[u8]) -> Value {
    let stated = serde_json::from_slice::<Value>(input).unwrap_or_default();
    let stated = stated["cniVersion"].as_str().unwrap_or(NEWEST);
    json!({"cniVersion": stated, "supportedVersions": VERSIONS})
}

/// Carries a command out; returns its result, `Null` if it has none.
fn carry_out(
    version: &str,
    variable: impl Fn(&str) -> Option<String>,
    input: &[u8],
) -> Result<Value, Failure> {
    let environment = Environment::read(variable)?;
    if environment.command.is_new() && version != NEWEST {
        let details = format!("cniVersion {version} has no such CNI_COMMAND; use {NEWEST}");
        return Err(Failure::new(failure::VERSION, details));
    }
    let config = Config::read(input)?;
    let daemon = Daemon { sockets: control_sockets(config.socket.clone()), timeout: TIMEOUT };
    let ipam = || {
        let name = config.foreign_ipam();
        name.map(|name| Delegate::find(name, &environment.path, input)).transpose()
    };
    let pass_on = |command| match ipam()? {
        Some(ipam) => ipam.run(command).map(|_| Value::Null),
        None => Ok(Value::Null),
    };
    match environment.command {
        Command::Add => {
            config.check_keys()?;
            let ipam = ipam()?;
            add::add(&daemon, &config, &environment, version, ipam.as_ref())
        }
        Command::Del => {
            delete(&daemon, &config, &environment)?;
            pass_on("DEL")
        }
        Command::Check => {
            check::check(&daemon, &config, &environment)?;
            pass_on("CHECK")
        }
        Command::Status => {
            config.check_keys()?;
            status(&daemon, &config)?;
            pass_on("STATUS")
        }
        Command::Gc => {
            collect(&daemon, &config)?;
            pass_on("GC")
        }
        Command::Version => Ok(versions(input)),
    }
}

/// DEL. An interface ends with its namespace, even if no daemon hears of it.
fn delete(daemon: &Daemon, config: &Config, environment: &Environment) -> Result<(), Failure> {
    match ports::remove(daemon, &add::port(environment)) {
        Err(Failed::Unreachable(_)) if config.kind == Kind::Tap => Ok(()),
        result => Ok(result?),
    }
}

/// STATUS: whether the daemon has the network, and its gateway answers.
fn status(daemon: &Daemon, config: &Config) -> Result<(), Failure> {
    let network = config.network()?;
    let answer = daemon.run(["get", "Bridge", &network, "mode"]);
    let mode = answer.map_err(|failed| Failure::new(NOT_AVAILABLE, failed))?;
    let has_nat = matches!(mode, Output::Text { lines } if lines.concat().starts_with("nat"));
    if has_nat {
        let flows = daemon.run(["flows", &network]);
        flows.map_err(|failed| Failure::new(LIMITED, failed))?;
    }
    Ok(())
}

/// GC: removes the ports of this list that are not of a valid attachment.
fn collect(daemon: &Daemon, config: &Config) -> Result<(), Failure> {
    let Some(valid) = config.valid() else {
        return Err(Failure::new(CONFIG, "GC needs cni.dev/valid-attachments"));
    };
    let name_of = |it: &Attachment| names::of_port(add::ENGINE, &it.container, &it.ifname);
    let valid: Vec<String> = valid.iter().map(name_of).collect();
    let mut failed = None;
    for port in ports::find(daemon, add::NETWORK_ID, &config.name)? {
        if !valid.contains(&port.name) {
            failed = ports::remove(daemon, &port.name).err().or(failed);
        }
    }
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs it without a daemon.
    fn run_as(command: &str, netns: &str, input: &str) -> Outcome {
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => command,
                "CNI_CONTAINERID" => "c1",
                "CNI_IFNAME" => "eth0",
                "CNI_NETNS" => netns,
                "CNI_PATH" => "/nonexistent",
                _ => return None,
            };
            Some(value.to_owned())
        };
        run(variable, input.as_bytes())
    }

    fn code(command: &str, input: &str) -> u64 {
        let outcome = run_as(command, "/proc/self/ns/net", input);
        let answer: Value = serde_json::from_str(&outcome.output).unwrap();
        assert_eq!(outcome.status, 1, "{outcome:?}");
        assert!(answer["details"].as_str().is_some_and(|it| !it.is_empty()), "{answer}");
        answer["code"].as_u64().unwrap()
    }

    /// A configuration with these keys, for a daemon that does not run.
    fn config(more: &str) -> String {
        let socket = "\"socket\":\"/nonexistent/control.sock\"";
        format!("{{\"cniVersion\":\"1.1.0\",\"name\":\"lab\",{socket}{more}}}")
    }

    #[test]
    fn every_kind_of_error_has_its_code() {
        for (command, input, expected) in [
            ("ADD", "{\"cniVersion\":\"0.2.0\"}".to_owned(), 1),
            ("GC", "{\"cniVersion\":\"1.0.0\",\"name\":\"a\"}".to_owned(), 1),
            ("ADD", config(",\"vlna\":1"), 2),
            ("add", config(""), 4),
            ("ADD", "nonsense".to_owned(), 6),
            ("ADD", config(",\"vlan\":\"ten\""), 6),
            ("CHECK", config(""), 7),
            ("GC", config(""), 7),
            ("ADD", config(",\"ipam\":{\"type\":\"../x\"}"), 7),
            ("ADD", config(",\"runtimeConfig\":{\"bandwidth\":{\"ingressRate\":1}}"), 7),
            ("ADD", config(",\"runtimeConfig\":{\"mac\":\"x\"}"), 7),
            ("ADD", config(",\"runtimeConfig\":{\"ips\":[\"x\"]}"), 7),
            (
                "ADD",
                config(
                    ",\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":80,\
                     \"containerPort\":80,\"protocol\":\"sctp\"}]}",
                ),
                7,
            ),
            ("ADD", config(""), 11),
            ("GC", config(",\"cni.dev/valid-attachments\":[]"), 11),
            ("GC", config(",\"cni.dev/valid-attachments\":null,\"cni.dev/attachments\":null"), 11),
            ("STATUS", config(""), 50),
            ("DEL", config(",\"kind\":\"vhost-user\""), 11),
        ] {
            assert_eq!(code(command, &input), expected, "{command} {input}");
        }
        let gone = run_as("ADD", "/nonexistent/netns", &config(""));
        assert!(gone.output.contains("\"code\":3"), "{gone:?}");
    }

    #[test]
    fn a_container_that_is_gone_is_deleted() {
        let done = Outcome { output: String::new(), status: 0 };
        assert_eq!(run_as("DEL", "", &config("")), done);
        assert_eq!(run_as("DEL", "/nonexistent/netns", &config("")), done);
    }

    #[test]
    fn versions_are_told_in_any() {
        for (input, version) in
            [("{\"cniVersion\":\"0.3.0\"}", "0.3.0"), ("", "1.1.0"), ("[7]", "1.1.0")]
        {
            let answer = run_as("VERSION", "", input);
            assert_eq!(answer.status, 0);
            let answer: Value = serde_json::from_str(&answer.output).unwrap();
            let supported = json!(["0.4.0", "1.0.0", "1.1.0"]);
            assert_eq!(answer, json!({"cniVersion": version, "supportedVersions": supported}));
        }
    }

    /// Some JSON, with the keys of configurations.
    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("cniVersion"),
            Just("name"),
            Just("network"),
            Just("vlan"),
            Just("kind"),
            Just("ipam"),
            Just("type"),
            Just("routes"),
            Just("runtimeConfig"),
            Just("ips"),
            Just("portMappings"),
            Just("hostPort"),
            Just("containerPort"),
            Just("prevResult"),
            Just("interfaces"),
            Just("dns"),
            Just("cni.dev/valid-attachments"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop_oneof![Just("1.1.0"), Just("trama"), Just("10.1.0.7/24"), Just("vhost-user")]
                .prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_input_panics(
            mut input in any_json(),
            command in prop_oneof![
                Just("ADD"), Just("DEL"), Just("CHECK"), Just("STATUS"), Just("GC"), Just("VERSION")
            ],
            is_known in any::<bool>(),
        ) {
            if let Value::Object(keys) = &mut input {
                keys.insert("socket".into(), "/nonexistent/control.sock".into());
                if is_known {
                    keys.insert("cniVersion".into(), "1.1.0".into());
                }
            }
            let outcome = run_as(command, "/proc/self/ns/net", &input.to_string());
            prop_assert!(outcome.status <= 1);
            let is_empty = outcome.output.is_empty();
            prop_assert!(is_empty || serde_json::from_str::<Value>(&outcome.output).is_ok());
        }

        #[test]
        fn no_bytes_panic(input in prop::collection::vec(any::<u8>(), 0..64)) {
            let outcome = run(|name| (name == "CNI_COMMAND").then(|| "ADD".to_owned()), &input);
            prop_assert_eq!(outcome.status, 1);
        }
    }
}
