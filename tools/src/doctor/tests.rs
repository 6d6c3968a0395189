//! Faults that are planted on a host of files, and what is found of each.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use trama_api::transaction::{Form, Output};
use trama_api::value::{Atom, Value};

use super::*;

/// A sound host, in a folder.
fn sound() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let zeros = "0000000000000000";
    let helper = "Name:\ttrama:helper\nUid:\t0 0 0 0\nGid:\t0 0 0 0\nGroups:\t\n\
                  CapEff:\t000001ffffffffff\n";
    let vmm = format!(
        "Name:\tqemu\nUid:\t64055 64055 64055 64055\nGid:\t104 104 104 104\nGroups:\t36\n\
         CapEff:\t{zeros}\n"
    );
    for (path, text) in [
        ("dev/net/tun", ""),
        ("proc/sys/net/ipv4/ip_forward", "0"),
        ("proc/sys/net/ipv6/conf/all/forwarding", "0"),
        ("proc/sys/net/ipv4/ping_group_range", "0\t2147483647"),
        ("proc/sys/kernel/osrelease", "6.12.4-trama"),
        ("proc/1/status", helper),
        ("proc/1/cmdline", "trama:helper"),
        ("proc/2/status", &vmm),
        ("proc/2/cmdline", "qemu\0-chardev\0socket,id=c,path=/run/trama/vm1.sock,reconnect=1\0"),
        ("etc/resolv.conf", "# made by hand\nnameserver 127.0.0.53\n"),
        ("run/trama/vm1.sock", ""),
        ("sys/class/net/eth0/mtu", "1500"),
    ] {
        write(dir.path(), path, text);
    }
    mode(dir.path(), "run/trama/vm1.sock", 0o666);
    dir
}

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn mode(root: &Path, path: &str, mode: u32) {
    std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A sound switch: a guest behind a NAT, and a bridged network.
fn networks() -> Switch {
    let table =
        |rows: Vec<Vec<Value>>| Output::Table { headings: Vec::new(), rows, form: Form::List };
    let text = |text: &str| Value::string(text);
    let none = || Value::NOTHING;
    let number = |number: i64| Value::One(Atom::Integer(number));
    let bridges = vec![
        vec![text("out"), text("nat-network"), number(1500), text("10.0.2.0/24"), none()],
        vec![text("lan"), text("bridged"), number(1500), none(), text("eth0")],
    ];
    let ports = vec![
        vec![
            text("vm1"),
            text("out"),
            none(),
            text("52:54:00:00:00:01"),
            Value::One(Atom::Bool(true)),
        ],
        vec![text("tap1"), text("lan"), number(10), none(), Value::One(Atom::Bool(true))],
    ];
    let status = [
        ("state", "connected"),
        ("path", "/run/trama/vm1.sock"),
        ("connects", "1"),
        ("queue_pairs", "1"),
    ];
    let interfaces = vec![
        vec![
            text("vm1"),
            text("vhost-user"),
            Value::strings([("role", "server")]),
            Value::strings(status),
            none(),
        ],
        vec![
            text("tap1"),
            text("tap"),
            Value::strings([("ifname", "tap1")]),
            Value::Map(Default::default()),
            none(),
        ],
    ];
    let version = Output::line(concat!("tramad (trama) ", env!("CARGO_PKG_VERSION")));
    let lines = ["uuid", "    Bridge lan", "        Port tap1", "    Bridge out"];
    let shown = Output::Text { lines: lines.map(str::to_owned).to_vec() };
    Switch::read(&[version, table(bridges), table(ports), table(interfaces), shown]).unwrap()
}

/// The routes of a sound host, and nothing else.
fn quiet(words: &[&str]) -> Option<String> {
    match words {
        ["ip", _, "-4", ..] => Some(
            r#"[{"dst":"default","dev":"eth0"},{"dst":"192.168.1.0/24","dev":"eth0"},
                {"type":"local","dst":"10.0.2.7","dev":"lo"},{"dst":"10.0.2.0/24","dev":"tap1"}]"#
                .to_owned(),
        ),
        ["ip", _, "-6", ..] => Some(r#"[{"dst":"fe80::/64","dev":"eth0"}]"#.to_owned()),
        ["dmesg"] => Some("[1.0] audit: apparmor=\"DENIED\" name=\"/etc/other\"".to_owned()),
        _ => None,
    }
}

fn all(switch: &Switch, system: &System) -> Vec<Finding> {
    [daemon::check(switch, system), host::check(switch, system), ports::check(switch, system)]
        .concat()
}

#[test]
fn nothing_is_found_on_a_sound_host() {
    let dir = sound();
    let findings = all(&networks(), &System::at(dir.path(), quiet));
    let faults: Vec<_> = findings.iter().filter(|it| it.grade != Grade::Ok).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(findings.len(), 17);
    let lines: String = findings.iter().map(Finding::line).collect();
    assert!(lines.contains("\nok    tun: /dev/net/tun is there\n"), "{lines}");
    // Each port of a network of mode nat is alone with its gateway, whatever its VLAN.
    let mut alone = networks();
    (alone.networks[0].mode, alone.ports[0].tag) = ("nat".into(), Some(20));
    let findings = all(&alone, &System::at(dir.path(), quiet));
    assert!(findings.iter().all(|it| it.grade == Grade::Ok), "{findings:#?}");
}

/// Plants a fault in a sound host's files, its switch and its programs, and expects a finding.
fn planted(
    (check, grade, part): (&str, Grade, &str),
    files: impl FnOnce(&Path),
    change: impl FnOnce(&mut Switch),
    run: fn(&[&str]) -> Option<String>,
) {
    let (dir, mut switch) = (sound(), networks());
    files(dir.path());
    change(&mut switch);
    let findings = all(&switch, &System::at(dir.path(), run));
    let faults: Vec<_> = findings.iter().filter(|it| it.grade != Grade::Ok).collect();
    let [fault] = faults.as_slice() else { panic!("{check}: {faults:#?}") };
    assert_eq!((fault.check, fault.grade), (check, grade), "{fault:?}");
    assert!(fault.line().contains(part), "{part}: {fault:?}");
    let has_remedy = !fault.remedy.is_empty() || check == "running";
    assert!(has_remedy, "{fault:?}");
}

#[test]
fn faults_of_files_are_found() {
    type Files = fn(&Path);
    let cases: [((&str, Grade, &str), Files); 7] = [
        (("tun", Grade::Fail, "modprobe tun"), |root| {
            std::fs::remove_file(root.join("dev/net/tun")).unwrap();
        }),
        (("ping", Grade::Note, "ping_group_range"), |root| {
            write(root, "proc/sys/net/ipv4/ping_group_range", "1\t0");
        }),
        (("kernel", Grade::Note, "6.6"), |root| {
            write(root, "proc/sys/kernel/osrelease", "6.1.0-57-cloud-amd64");
        }),
        (("resolvers", Grade::Warn, "no nameserver"), |root| {
            write(root, "etc/resolv.conf", "search example.org\n");
        }),
        (("mtu", Grade::Warn, "one of 1400"), |root| write(root, "sys/class/net/eth0/mtu", "1400")),
        (("access", Grade::Fail, "user 64055"), |root| mode(root, "run/trama/vm1.sock", 0o660)),
        (("rights", Grade::Fail, "CAP_NET_ADMIN, which port tap1 needs"), |root| {
            let status = std::fs::read_to_string(root.join("proc/1/status")).unwrap();
            write(root, "proc/1/status", &status.replace("1ffffffffff", "1ffffffefff"));
        }),
    ];
    for (expected, files) in cases {
        planted(expected, files, |_| {}, quiet);
    }
    planted(
        ("rights", Grade::Fail, "no helper runs"),
        |root| std::fs::remove_dir_all(root.join("proc/1")).unwrap(),
        |_| {},
        quiet,
    );
    planted(
        ("forwarding", Grade::Note, "IPv4, also what guests of host"),
        |root| write(root, "proc/sys/net/ipv4/ip_forward", "1"),
        |switch| {
            switch.networks[1] = switch::Network {
                name: "host".into(),
                mode: "host-only".into(),
                ..Default::default()
            }
        },
        quiet,
    );
}

#[test]
fn faults_of_ports_are_found() {
    type Change = fn(&mut Switch);
    fn state(switch: &mut Switch, pairs: &[(&str, &str)]) {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        switch.ports[0].status.extend(pairs);
    }
    let cases: [((&str, Grade, &str), Change); 8] = [
        (("daemon", Grade::Warn, "version 0.0.1"), |switch| switch.version = "0.0.1".into()),
        (("running", Grade::Fail, "vm1: the socket is in use"), |switch| {
            switch.ports[0].error = Some("the socket is in use; end its user".into());
        }),
        (("vmm", Grade::Fail, "tramactl qemu vm1"), |switch| {
            state(
                switch,
                &[("last_error", "the guest's memory is not shared, and no packets pass")],
            );
        }),
        (("vmm", Grade::Warn, "no driver has started"), |switch| {
            state(switch, &[("queue_pairs", "0")]);
        }),
        (("vmm", Grade::Note, "no VMM has ever connected"), |switch| {
            state(switch, &[("state", "listening"), ("connects", "0"), ("queue_pairs", "0")]);
        }),
        (("vmm", Grade::Warn, "pid 9 waits"), |switch| {
            state(switch, &[("waiting_peers", "pid 9")])
        }),
        (("vlan", Grade::Warn, "vm1 is in VLAN 20"), |switch| switch.ports[0].tag = Some(20)),
        (("mac", Grade::Fail, "vm1 and vm2 of out"), |switch| {
            let second =
                switch::Port { name: "vm2".into(), kind: "tap".into(), ..switch.ports[0].clone() };
            switch.ports.push(second);
        }),
    ];
    for (expected, change) in cases {
        planted(expected, |_| {}, change, quiet);
    }
}

#[test]
fn faults_that_programs_tell_are_found() {
    planted(
        ("routes", Grade::Warn, "10.0.2.128/25 by tun0"),
        |_| {},
        |_| {},
        |words| match words {
            ["ip", _, "-4", ..] => {
                Some(r#"[{"dst":"10.0.2.128/25","dev":"tun0","table":"52"}]"#.into())
            }
            other => quiet(other),
        },
    );
    planted(
        ("denials", Grade::Fail, "libvirt-qemu"),
        |_| {},
        |_| {},
        |words| match words {
            ["dmesg"] => Some("apparmor=\"DENIED\" name=\"/run/trama/vm1.sock\"".into()),
            other => quiet(other),
        },
    );
    planted(
        ("denials", Grade::Note, "cannot be read"),
        |_| {},
        |_| {},
        |words| if words == ["dmesg"] { None } else { quiet(words) },
    );
    planted(
        ("denials", Grade::Note, "auditd keeps"),
        |root| write(root, "var/log/audit/audit.log", ""),
        |_| {},
        quiet,
    );
    planted(
        ("routes", Grade::Note, "cannot be read"),
        |_| {},
        |_| {},
        |words| if words[0] == "ip" { None } else { quiet(words) },
    );
    planted(
        ("netfilter", Grade::Note, "eth0 and its bridge"),
        |root| {
            write(root, "proc/sys/net/bridge/bridge-nf-call-iptables", "1");
            write(root, "sys/class/net/eth0/brport/state", "3");
        },
        |_| {},
        quiet,
    );
    planted(
        ("netfilter", Grade::Warn, "eth0 and its bridge"),
        |root| {
            write(root, "proc/sys/net/bridge/bridge-nf-call-iptables", "1");
            write(root, "sys/class/net/eth0/brport/state", "3");
        },
        |_| {},
        |words| match words {
            ["iptables", ..] => Some("-P FORWARD DROP\n-A FORWARD -j DOCKER".into()),
            other => quiet(other),
        },
    );
}

#[test]
fn the_error_of_a_network_is_read_from_the_overview() {
    let lines = [
        "    Bridge lan",
        "        mode: bridged",
        "        Port a",
        "            Interface a",
        "                error: \"the port's\"",
        "    Bridge \"l n\"",
        "        error: \"interface \\\"nope0\\\" is missing\"",
    ];
    let shown = lines.map(str::to_owned);
    let error = |name| switch::error_of(name, &shown);
    assert_eq!(error("l n").as_deref(), Some("interface \"nope0\" is missing"));
    assert_eq!((error("lan"), error("other")), (None, None));
}

#[test]
fn a_clock_that_is_years_behind_is_found() {
    assert_eq!(host::of_clock(1, 2).grade, Grade::Fail);
    assert_eq!(host::of_clock(2, 2).grade, Grade::Ok);
}

/// The unit of the helper's socket is active.
fn active(words: &[&str]) -> Option<String> {
    if words.first() == Some(&"systemctl") { Some("active\n".to_owned()) } else { quiet(words) }
}

#[test]
fn a_service_without_a_sound_socket_of_its_helper_is_seen() {
    let (dir, root) = (sound(), |dir: &TempDir| dir.path().to_owned());
    let found = |dir: &TempDir, run| helper::check(&System::at(dir.path(), run));
    assert_eq!(found(&dir, active), [], "a host without the unit");
    write(&root(&dir), "lib/systemd/system/trama-helper.socket", "[Socket]\n");
    write(&root(&dir), "proc/3/cmdline", "/usr/bin/tramad\0--helper\0/run/trama-helper/socket");
    let status = "Name:\ttramad\nUid:\t7 7 7 7\nGid:\t7 7 7 7\nGroups:\t\nCapEff:\t0\n";
    write(&root(&dir), "proc/3/status", status);
    let says = |dir: &TempDir, run, part: &str| {
        let findings = found(dir, run);
        let lines: String = findings.iter().map(Finding::line).collect();
        assert!(findings.len() == 1 && lines.contains(part), "{part}: {lines}");
    };
    says(
        &dir,
        |_| Some("failed\n".into()),
        "trama-helper.socket is failed; systemctl status trama",
    );
    says(&dir, active, "/run/trama-helper/socket is not there; systemctl status trama-helper");
    let socket = dir.path().join("run/trama-helper/socket");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    mode(dir.path(), "run/trama-helper/socket", 0o600);
    says(&dir, active, "there is no user trama; systemd-sysusers");
    let own = std::os::unix::fs::MetadataExt::uid(&socket.metadata().unwrap());
    write(&root(&dir), "etc/passwd", &format!("root:x:0:0::/:/\ntrama:x:{own}:99::/:/\n"));
    says(&dir, active, "ok    helper: /run/trama-helper/socket is there for user trama alone");
    mode(dir.path(), "run/trama-helper/socket", 0o660);
    says(&dir, active, "is not for user trama alone: its owner is user");
    mode(dir.path(), "run/trama-helper/socket", 0o600);
    write(&root(&dir), "etc/passwd", "trama:x:4711:99::/:/\n");
    says(&dir, active, "is not for user trama alone: its owner is user");
    write(&root(&dir), "proc/3/cmdline", "/usr/bin/tramad\0--user");
    assert_eq!(found(&dir, active), [], "a daemon that was started by hand");
}
