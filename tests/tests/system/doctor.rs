//! `tramactl doctor` on a real host: what it finds of faults that are planted there, and that it
//! finds none without them. Faults of the host itself are planted in `tools/src/doctor/tests.rs`.

use std::process::{Child, Stdio};

use serde_json::Value;
use trama_tests::process::{User, tied_command, tied_command_as};
use trama_tests::{SOON, Tramad, wait_until};

const LAB: &str = r#"
network = [
    { name = "lab" },
    { name = "out", mode = "nat-network", subnet = "10.213.7.0/24" },
]
port = [
    { name = "vm1", network = "out", type = "vhost-user", path = "{dir}/vm1.sock" },
    { name = "vm2", network = "lab", type = "vhost-user", path = "{dir}/vm2.sock" },
]
[daemon]
control = "{dir}/control.sock"
state = "{dir}/state"
"#;

/// What the checks of the daemon and its ports find: check, grade, text and remedy.
fn found(tramad: &Tramad) -> Vec<[String; 4]> {
    const OURS: [&str; 7] = ["daemon", "running", "vmm", "access", "vlan", "mac", "mtu"];
    let answer = tramad.try_ctl(&["-f", "json", "doctor"]);
    let findings: Vec<Value> = serde_json::from_str(&answer.text).expect("JSON");
    let is_failed = findings.iter().any(|finding| finding["grade"] == "FAIL");
    assert_eq!(answer.status, i32::from(is_failed), "{}", answer.text);
    let texts = findings.iter().map(|finding| {
        ["check", "grade", "text", "remedy"].map(|key| finding[key].as_str().unwrap().to_owned())
    });
    let ours = texts.filter(|[check, ..]| OURS.contains(&check.as_str()));
    ours.filter(|[_, grade, ..]| grade != "ok").collect()
}

/// Plants a fault, expects it, and nothing besides what is found without it.
fn expect(tramad: &Tramad, (check, grade, part): (&str, &str, &str)) {
    let found = found(tramad);
    let is_it = |it: &&[String; 4]| it[0] == check && it[1] == grade && it[2].contains(part);
    assert_eq!(found.iter().filter(is_it).count(), 1, "{check} {part}: {found:#?}");
    let others: Vec<_> = found.iter().filter(|it| !is_it(it) && it[1] != "note").collect();
    assert!(others.is_empty(), "besides {check}: {others:#?}");
}

/// A process of this kind of VMM; its guest does not run.
struct Vmm(Child);

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_planted_fault_is_found_and_nothing_else() {
    let tramad = Tramad::start(LAB);
    tramad.wait_for_gateway("out");
    let sound = found(&tramad);
    let absent = sound.iter().filter(|it| it[0] == "vmm" && it[2].contains("has ever connected"));
    assert_eq!((absent.count(), sound.len()), (2, 2), "{sound:#?}");

    tramad.ctl("set Port vm1 tag=20");
    expect(&tramad, ("vlan", "warn", "vm1 is in VLAN 20"));
    tramad.ctl("clear Port vm1 tag");

    let added = ["add-port", "lab", "t0", "--", "set", "Interface", "t0", "options:netns=gone"];
    assert_eq!(tramad.try_ctl(&added).status, 65);
    expect(&tramad, ("running", "FAIL", "t0: "));
    tramad.ctl("del-port t0");

    let socket = tramad.path("vm1.sock");
    let path = socket.display().to_string();
    let mut command = tied_command_as(&User::named("nobody"), "sh");
    command.args(["-c", "read line", "vmm", &format!("socket,path={path},server=off")]);
    let stranger = Vmm(command.stdin(Stdio::piped()).spawn().expect("run sh"));
    wait_until("the stranger runs its program", SOON, || {
        found(&tramad).iter().any(|it| it[0] == "access").then_some(())
    });
    expect(&tramad, ("access", "FAIL", "may not use"));
    drop(stranger);

    let mut command = tied_command("qemu-system-x86_64");
    let arguments = tramad.ctl("qemu vm1");
    command.args(["-S", "-nodefaults", "-display", "none"]).args(arguments.split_whitespace());
    let qemu = Vmm(command.stdin(Stdio::null()).spawn().expect("run QEMU"));
    wait_until("QEMU is connected", SOON, || {
        (tramad.ctl("get Interface vm1 status:state").trim() == "connected").then_some(())
    });
    expect(&tramad, ("vmm", "warn", "no driver has started"));
    drop(qemu);
    wait_until("QEMU is gone", SOON, || {
        (tramad.ctl("get Interface vm1 status:state").trim() == "listening").then_some(())
    });

    std::fs::remove_file(&socket).expect("the socket");
    expect(&tramad, ("access", "FAIL", "there is no "));
    tramad.ctl("link vm1 down");
    tramad.ctl("link vm1 up");

    let found = found(&tramad);
    assert!(found.iter().all(|it| it[1] == "note"), "{found:#?}");
    tramad.stop();
    let answer = tramad_is_gone();
    assert!(answer.contains("\"daemon\"") && answer.contains("FAIL"), "{answer}");
}

/// The report without a daemon.
fn tramad_is_gone() -> String {
    let mut command = tied_command(trama_tests::tramad::binary("tramactl"));
    command.args(["--socket", "/nonexistent/control.sock", "-f", "json", "doctor"]);
    let output = command.output().expect("run tramactl");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stdout).expect("text")
}
