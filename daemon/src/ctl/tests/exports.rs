//! Exports in Open vSwitch's words.

use std::time::Duration;

use super::*;

const SFLOW: &str = "--id=@s create sFlow agent=eth0 target=\"10.0.0.1:6343\" header=96 \
                     sampling=32 polling=5 -- set Bridge lab sflow=@s";
const IPFIX: &str = "set Bridge lab ipfix=@i -- --id=@i create IPFIX \
                     targets=[\"10.0.0.1:4739\",\"[fd00::1]:4739\"] obs_domain_id=3 \
                     cache_active_timeout=30 cache_max_flows=9 other_config:idle-timeout=5";

#[test]
fn a_record_that_a_bridge_refers_to_is_its_setting() {
    let config = edit(&lab(), SFLOW);
    let sflow = config.network("lab").unwrap().sflow.clone().unwrap();
    assert_eq!((sflow.agent.as_deref(), sflow.header, sflow.sampling), (Some("eth0"), 96, 32));
    assert_eq!(sflow.polling, Duration::from_secs(5));
    assert_eq!(sflow.targets, ["10.0.0.1:6343".parse().unwrap()]);
    let config = edit(&config, IPFIX);
    let ipfix = config.network("lab").unwrap().ipfix.clone().unwrap();
    assert_eq!((ipfix.domain, ipfix.max_flows, ipfix.targets.len()), (3, 9, 2));
    assert_eq!(ipfix.active_timeout, Duration::from_secs(30));
    assert_eq!(ipfix.idle_timeout, Duration::from_secs(5));
    assert_eq!(crate::config::validate(&config), vec![]);
    assert!(config.records.is_empty() && config.network("lab").unwrap().openvswitch.is_empty());
    // A command that changes nothing changes nothing.
    assert_eq!(edit(&config, "list sFlow -- list IPFIX -- get Bridge lab sflow ipfix"), config);
    assert_eq!(said(&config, &running(), "get sFlow lab sampling"), "32");
    assert_eq!(said(&config, &running(), "get IPFIX lab other_config"), "{idle-timeout=\"5\"}");
    let changed = edit(&config, "set sFlow lab sampling=7 -- clear Bridge lab ipfix");
    let network = changed.network("lab").unwrap();
    assert_eq!((network.sflow.as_ref().unwrap().sampling, &network.ipfix), (7, &None));
    assert_eq!(edit(&changed, "clear Bridge lab sflow"), lab());
    assert_eq!(edit(&config, "emer-reset"), lab());
}

#[test]
fn what_no_setting_has_is_refused() {
    for (line, expected) in [
        ("set Bridge lab sflow=@s -- --id=@s create sFlow targets=collector", "\"collector\""),
        ("set Bridge lab sflow=@s -- --id=@s create sFlow header=70000", "header=70000 is out of"),
        ("set Bridge lab ipfix=@i -- --id=@i create IPFIX obs_point_id=1", "no such setting"),
        ("set Bridge lab ipfix=@i -- --id=@i create IPFIX other_config:a=b", "{a=b} is refused"),
        ("set Bridge lab sflow=5c458bc8-24e8-4a91-aebb-6870216ac44b", "no such sFlow"),
        ("set Bridge lab netflow=@n -- --id=@n create NetFlow targets=x", "by IPFIX, not by"),
    ] {
        let message = refused(&lab(), line);
        assert!(message.contains(expected), "{line}: {message}");
    }
    let empty = edit(&lab(), "set Bridge lab sflow=@s -- --id=@s create sFlow sampling=0");
    let problems: Vec<_> =
        crate::config::validate(&empty).iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("network.lab.sflow.sampling: is zero"), "{problems:?}");
    assert!(problems[1].starts_with("network.lab.sflow.targets: is missing"), "{problems:?}");
}

#[test]
fn only_a_record_without_a_reference_is_warned_of() {
    let warnings = |line: &str| run_with(&lab(), &Snapshot::default(), line).unwrap().warnings;
    assert_eq!(warnings(SFLOW), Vec::<String>::new());
    assert_eq!(warnings("--id=@i create IPFIX sampling=1").len(), 1);
}
