//! Runs the same steps through `ovs-vsctl` and `tramactl`, and compares output, messages and exit
//! statuses.
//!
//! `ovs-vsctl` works on an ovsdb-server of its own in a temporary directory, without a switch
//! (`--no-wait`). Both start empty. Four things differ by design and are normalised before the
//! comparison: Open vSwitch has a local port for each bridge, lists records in no order, has other
//! UUIDs, and does not suggest names.
#![cfg(test)]

use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trama_clients::{Outcome, RunningDaemon, run, words};

/// Which parts of an answer must be equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Same {
    /// Output, error message and exit status.
    All,
    /// Output in any order of records, message and exit status.
    Records,
    /// Output and exit status; the messages of `tramactl` say more.
    Output,
}

use Same::{All, Output, Records};

/// Type and path of the only kind of port that needs no devices on either side.
const CLIENT: &str = "type=dpdkvhostuserclient options:vhost-server-path=/nonexistent/socket";

#[rustfmt::skip]
const STEPS: &[(Same, &str)] = &[
    (All, "list-br"),
    (All, "br-exists lab"),
    (All, "add-br lab"),
    (All, "br-exists lab"),
    (All, "add-br lab"),
    (All, "--may-exist add-br lab"),
    (All, "-- --may-exist add-br lab -- list-br"),
    (All, "add-port lab vm1 tag=10 -- set Interface vm1 {client}"),
    (All, "add-port lab vm1"),
    (All, "--may-exist add-port lab vm1"),
    (All, "--may-exist add-port lab vm1 tag=20"),
    (All, "get Port vm1 tag"),
    (All, "add-port nowhere vm2"),
    (All, "add-port lab vm2 -- set Interface vm2 {client}2"),
    (All, "list-ports lab"),
    (All, "list-ifaces lab"),
    (All, "list-ports nowhere"),
    (All, "port-to-br vm1"),
    (All, "port-to-br vm9"),
    (All, "iface-to-br vm2"),
    (All, "iface-to-br vm9"),
    (All, "add-br zoo -- add-br ape -- list-br"),
    (All, "list-br -- br-exists nowhere -- add-br never"),
    (All, "list-br"),
    (All, "add-br twice -- add-br twice"),
    (All, "list-br"),
    (All, "--oneline list-br -- list-ports lab -- add-br temp -- get Port vm1 name tag"),
    (All, "del-br temp"),
    (All, "del-br temp"),
    (All, "--if-exists del-br temp"),
    (All, "--may-exist add-port zoo vm1"),
    (All, "add-port zoo vm1"),
    (All, "add-br vm1"),
    (All, "--may-exist add-br vm1"),
    (All, "add-port zoo lab"),
    (All, "del-port zoo vm1"),
    (All, "del-port nowhere vm1"),
    (All, "--if-exists del-port lab vm9"),
    (All, "del-port vm9"),
    (All, "get Port vm1 tag name trunks vlan_mode external_ids"),
    (All, "set Port vm1 tag=20 vlan_mode=native-untagged trunks=10,20,30-32"),
    (All, "get port vm1 tag trunks vlan_mode"),
    (All, "set port vm1 tag=5000"),
    (All, "set port vm1 tag=abc"),
    (All, "set port vm1 tag=3,4"),
    (All, "set port vm1 tag"),
    (All, "set port vm1 tag:1=4"),
    (All, "set port vm1 colour=red"),
    (All, "set port vm1 t=3"),
    (All, "set port vm9 tag=3"),
    (All, "--if-exists set port vm9 tag=3"),
    (Output, "set table vm9 tag=3"),
    (Output, "set port vm1 vlan_mode=sideways"),
    (All, "add port vm1 trunks 5 6-8"),
    (All, "get port vm1 trunks"),
    (All, "remove port vm1 trunks 5 30"),
    (All, "get port vm1 trunks"),
    (All, "remove port vm1 tag 3"),
    (All, "get port vm1 tag"),
    (Output, "add port vm1 tag 6"),
    (All, "clear port vm1 tag vlan_mode trunks"),
    (All, "get port vm1 tag trunks vlan_mode"),
    (All, "clear port vm1 name"),
    (All, "set port vm1 name=x"),
    (All, "set port vm1 trunks=[5,10"),
    (All, "set port vm1 trunks=5-1"),
    (All, "set port vm1 external_ids=a=b,c=d external-ids:e='\"x y\"' external_ids:f=x,y=z"),
    (All, "get port vm1 external_ids external_ids:f external_ids:a"),
    (All, "get port vm1 external_ids:nope"),
    (All, "--if-exists get port vm1 external_ids:nope external_ids:a"),
    (All, "get port vm1 tag:1"),
    (All, "get port vm1 nope"),
    (All, "get port vm1"),
    (All, "get port vm9 tag"),
    (All, "--if-exists get port vm9 tag"),
    (All, "remove port vm1 external_ids a c=wrong nope"),
    (All, "remove port vm1 external_ids f=x"),
    (All, "get port vm1 external_ids"),
    (All, "add port vm1 external_ids k=v e=w"),
    (All, "get port vm1 external_ids"),
    (All, "set bridge lab other_config:mac-table-size=2048 other_config:mac-aging-time=60"),
    (All, "get bridge lab other_config"),
    (All, "remove bridge lab other_config mac-table-size"),
    (All, "get bridge lab other_config"),
    (All, "clear bridge lab other_config"),
    (All, "get bridge lab other_config name"),
    (Records, "--columns=name list bridge"),
    (Records, "--columns=name,tag,external_ids list port vm1 vm2"),
    (Records, "-f table --columns=name,tag,external_ids list port vm1 vm2"),
    (All, "--format=table --columns=name list port vm1 -- --columns=name list port vm2 -- list-br"),
    (All, "--format=json --columns=name,tag,trunks,external_ids list port vm1 vm2"),
    (All, "--bare --columns=name,trunks list port vm1 vm2"),
    (All, "-f table -d json --columns=name,external_ids list port vm1"),
    (All, "--no-headings --columns=name,tag list port vm1 vm2"),
    (All, "--no-heading -f table --columns=name,tag list port vm1 vm2"),
    (All, "--columns= list port vm1"),
    (All, "--columns=nope list port vm1"),
    (All, "list port vm9"),
    (All, "--if-exists --columns=name list port vm1 vm9"),
    (All, "set port vm2 tag=30 trunks=30,31 vlan_mode=native-tagged"),
    (All, "--columns=name find port tag=30"),
    (All, "--columns=name find port name>vm1 tag>=10 tag!=31"),
    (All, "--columns=name find port trunks{>=}30,31"),
    (All, "--columns=name find port trunks{>}30"),
    (All, "--columns=name find port trunks{=}30"),
    (All, "--columns=name find port external_ids:k=v"),
    (All, "--columns=name find port external_ids:k!=v"),
    (All, "--columns=name find port external_ids{>=}k=v"),
    (All, "--columns=name find port tag"),
    (All, "--columns=name find port nope=1"),
    (All, "-f json --columns=name find port tag=77"),
    (All, "-f table --columns=name find port tag=77"),
    (All, "--bare --columns=name find Interface name=vm2"),
    (Output, "add-br"),
    (All, "add-br a b c d"),
    (Output, "get"),
    (All, "list-br extra"),
    (All, "list-br --oneline"),
    (All, "--if-exists list-br"),
    (All, "dance"),
    (All, "--dry-run list-br"),
    (All, "init"),
    (All, "init -- comment a word -- list-br"),
    (All, "comment"),
    (All, "br-to-vlan lab"),
    (All, "br-to-vlan nowhere"),
    (All, "br-to-parent lab"),
    (All, "br-set-external-id lab owner ann"),
    (All, "br-set-external-id lab bridge-id zoo"),
    (All, "br-get-external-id lab owner"),
    (All, "br-get-external-id lab nothing"),
    (All, "br-get-external-id lab"),
    (All, "br-set-external-id lab owner"),
    (All, "br-get-external-id lab"),
    (All, "br-set-external-id nowhere owner ann"),
    (All, "br-get-external-id nowhere"),
    (Output, "br-set-external-id lab"),
    (All, "get-controller lab"),
    (All, "get-controller nowhere"),
    (All, "del-controller lab"),
    (All, "get-manager"),
    (All, "del-manager"),
    (All, "get-ssl"),
    (All, "del-ssl"),
    (All, "emer-reset"),
    (All, "del-port lab vm1 -- del-port vm2 -- list-ports lab"),
    (All, "del-br zoo -- del-br ape -- del-br lab -- list-br"),
];

struct Ovs {
    dir: TempDir,
    server: std::process::Child,
}

impl Ovs {
    fn start() -> Ovs {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("conf.db");
        let created = run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(&database)
            .arg("/usr/share/openvswitch/vswitch.ovsschema"));
        assert_eq!(created.exit, 0, "{}", created.err);
        let server = Command::new("ovsdb-server")
            .arg(&database)
            .arg(format!("--remote=punix:{}", dir.path().join("db.sock").display()))
            .arg(format!("--unixctl={}", dir.path().join("ctl").display()))
            .arg("--verbose=off")
            // It ends when the command's pipe closes, so it does not outlive the test.
            .arg("--run=cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ovs = Ovs { dir, server };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ovs.dir.path().join("db.sock").exists() {
            assert!(Instant::now() < deadline, "ovsdb-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(ovs.vsctl("init").exit, 0);
        ovs
    }

    fn vsctl(&self, line: &str) -> Outcome {
        run(Command::new("ovs-vsctl")
            .arg(format!("--db=unix:{}", self.dir.path().join("db.sock").display()))
            .args(["--no-wait", "--timeout=30", "--verbose=off"])
            .args(words(line)))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The parts of an answer that must be equal.
fn normalised(mut outcome: Outcome, same: Same) -> Outcome {
    outcome.err = match same {
        Output => String::new(),
        _ => outcome.err.replace("ovs-vsctl: ", "tramactl: "),
    };
    if let Some(at) = outcome.err.find("; did you mean ") {
        outcome.err.replace_range(at.., "\n");
    }
    if same == Records {
        let mut lines: Vec<_> = outcome.out.lines().filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        outcome.out = lines.join("\n");
    }
    outcome
}

#[test]
fn the_same_steps_have_the_same_answers() {
    if Command::new("ovs-vsctl").arg("--version").output().is_err() {
        println!("skipped: ovs-vsctl is not installed (package openvswitch-switch)");
        return;
    }
    let ovs = Ovs::start();
    let trama = RunningDaemon::start("");
    let mut different = vec![];
    for (same, line) in STEPS {
        let line = line.replace("{client}", CLIENT);
        let theirs = normalised(ovs.vsctl(&line), *same);
        let ours = normalised(trama.ctl(&line), *same);
        if theirs != ours {
            different.push(format!("{line}\n  theirs: {theirs:?}\n  ours:   {ours:?}"));
        }
    }
    assert!(
        different.is_empty(),
        "{} of {}:\n{}",
        different.len(),
        STEPS.len(),
        different.join("\n")
    );
}
