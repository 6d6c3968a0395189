//! Mirrors, as Open vSwitch's users set them.

use super::*;
use crate::config::model::Mirror;

/// The example of Open vSwitch's man page.
const MAKE: &str = "set Bridge lab mirrors=@m -- --id=@vm1 get Port vm1 -- --id=@vm2 get Port vm2 \
                    -- --id=@m create Mirror name=m0 select-dst-port=@vm1 select-src-port=@vm1 \
                    output-port=@vm2";

fn problems(config: &Config) -> Vec<String> {
    crate::config::validate(config).iter().map(ToString::to_string).collect()
}

fn names(names: &[&str]) -> std::collections::BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_mirror_is_made_shown_changed_and_cleared() {
    let config = edit(&lab(), MAKE);
    let [mirror] = &config.mirrors[..] else { panic!("{:?}", config.mirrors) };
    let wanted = Mirror {
        name: "m0".into(),
        uuid: mirror.uuid.clone(),
        network: Some("lab".into()),
        select_src_port: names(&["vm1"]),
        select_dst_port: names(&["vm1"]),
        output_port: Some("vm2".into()),
        ..Mirror::default()
    };
    assert_eq!(*mirror, wanted);
    assert_eq!(problems(&config), [""; 0]);
    let uuid = mirror.uuid.clone().unwrap();
    let get = |line: &str| said(&config, &running(), line);
    assert_eq!(get("get Bridge lab mirrors"), format!("[{uuid}]"));
    assert_eq!(get("get Mirror m0 _uuid name"), format!("{uuid}\nm0"));
    let port = get("get Port vm2 _uuid");
    assert_eq!(get("get Mirror m0 output_port select_all snaplen"), format!("{port}\nfalse\n[]"));
    let line = "set Mirror m0 select_all=true select_vlan=10,20 snaplen=96 filter=arp \
                external_ids:a=b -- clear Mirror m0 output_port select_src_port select_dst_port \
                -- set Mirror m0 output_vlan=99";
    let changed = edit(&config, line);
    let [mirror] = &changed.mirrors[..] else { panic!() };
    assert_eq!((mirror.select_all, mirror.output_vlan, mirror.snaplen), (true, Some(99), 96));
    assert_eq!((&mirror.output_port, &*mirror.filter), (&None, "arp"));
    assert_eq!(problems(&changed), [""; 0]);
    for line in [
        "clear Bridge lab mirrors".to_owned(),
        format!("remove Bridge lab mirrors {uuid}"),
        "--id=@m get Mirror m0 -- remove Bridge lab mirrors @m".to_owned(),
        "destroy Mirror m0".to_owned(),
        "--all destroy Mirror".to_owned(),
        "emer-reset".to_owned(),
    ] {
        assert_eq!(edit(&config, &line).mirrors, [], "{line}");
    }
    assert_eq!(edit(&config, "del-br lab").mirrors, []);
}

#[test]
fn a_port_that_goes_is_copied_no_more_and_an_output_must_stay() {
    let config = edit(&lab(), MAKE);
    let without = edit(&config, "del-port vm1");
    assert_eq!(without.mirrors[0].select_src_port, names(&[]));
    assert_eq!(problems(&without), [""; 0]);
    let [problem] = &problems(&edit(&config, "del-port vm2"))[..] else { panic!() };
    assert_eq!(
        problem,
        "mirror.m0.output-port: there is no port \"vm2\"; add it to lab, or remove it from mirror m0"
    );
}

#[test]
fn what_is_wrong_with_a_mirror_is_said_with_its_name() {
    for (line, expected) in [
        ("set Mirror m0 output_vlan=9", "mirror.m0.output-vlan: stands beside output-port; remove"),
        ("clear Mirror m0 output_port", "mirror.m0.output-port: is missing; name the analyser's"),
        ("set Mirror m0 filter=apr", "mirror.m0.filter: "),
        ("set Mirror m0 name=\"\"", "mirror[0].name: is missing; give the mirror a name"),
        (
            "--id=@p get Port vm2 -- set Mirror m0 select_src_port=@p",
            "mirror.m0.select-src-port: vm2 is the output, of which nothing is copied",
        ),
        ("clear Port vm1 network", "mirror.m0.select-dst-port: port vm1 is not on lab"),
        ("set Bridge lab mode=nat", "mirror.m0.network: in lab, of mode nat, each port is alone"),
    ] {
        let found = problems(&edit(&edit(&lab(), MAKE), line));
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{line}: {found:?}");
    }
    let uuid = "5c458bc8-24e8-4a91-aebb-6870216ac44b";
    let config = edit(&lab(), MAKE);
    for (line, expected) in [
        (format!("set Bridge lab mirrors={uuid}"), "there is no mirror 5c458bc8"),
        (format!("set Mirror m0 output_port={uuid}"), "there is no Port 5c458bc8"),
        ("set Mirror m0 snaplen=9".to_owned(), "not in the valid range 14 to 65535"),
        ("set Mirror m1 snaplen=99".to_owned(), "no row \"m1\" in table Mirror"),
    ] {
        let message = refused(&config, &line);
        assert!(message.contains(expected), "{line}: {message}");
    }
    // A UUID is chosen before the mirror's, which would be that of the first one.
    let line = "create QoS type=linux-noop -- --id=@p get Port vm2 -- --id=@m create Mirror name=m0 \
                select_all=true output_port=@p -- add Bridge lab mirrors @m";
    let second = problems(&edit(&config, line));
    assert!(second[0].contains("there are two mirrors \"m0\""), "{second:?}");
}
