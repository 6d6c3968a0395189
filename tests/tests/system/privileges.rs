//! What the processes of a daemon may do, and what the helper refuses.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use trama_tests::nat::{
    GATEWAY, NETWORK, SOON, VM1, guest_port, host_and_server, namespace, route,
};
use trama_tests::process::{User, child, tied_command_as};
use trama_tests::tramad::binary;
use trama_tests::{Host, Netns, Tramad, wait_until};

/// The capabilities that the helper keeps, as `/proc` shows them: CHOWN, DAC_OVERRIDE, FOWNER,
/// KILL, SETGID, SETUID, SETPCAP, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN and BPF.
const KEPT: &str = "00000080002831eb";
const NONE: &str = "0000000000000000";

/// The values of a line in the status of each thread of a process.
fn of_threads(process: u32, line: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let value = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let found = status.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(':'));
        Some(found.expect("the line").trim().to_owned())
    };
    tasks.filter_map(|task| value(task.expect("a thread"))).collect()
}

#[track_caller]
fn all_have(process: u32, line: &str, wanted: &str) {
    let values = of_threads(process, line);
    assert!(!values.is_empty() && values.iter().all(|value| value == wanted), "{line}: {values:?}");
}

fn namespace_of(process: impl std::fmt::Display, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("a process");
    link.display().to_string()
}

#[test]
fn each_process_has_no_more_than_it_needs() {
    let [host, _server] = host_and_server();
    let vm1 = namespace("vm1");
    let socket =
        "[[port]]\nname = \"v\"\nnetwork = \"home\"\ntype = \"vhost-user\"\npath = \"SOCK\"\n";
    let socket = socket.replace("SOCK", &format!("/tmp/trama-privileges-{}", std::process::id()));
    let tramad =
        Tramad::start_in(&host, &(NETWORK.to_owned() + &guest_port(&vm1, "vm1", &VM1) + &socket));
    route(&vm1, &GATEWAY);
    tramad.wait_for_gateway("home");
    assert!(tramad.log().contains("in force: no capabilities, no new privileges, Landlock ABI "));

    let (switch, helper) = (tramad.id(), child(tramad.id(), "trama:helper"));
    let gateway = tramad.gateways()[0].as_raw_nonzero().get() as u32;
    // As ps and top show them.
    for (process, name) in [(switch, "tramad"), (helper, "trama:helper"), (gateway, "trama:home")] {
        let comm = fs::read_to_string(format!("/proc/{process}/comm")).expect("a process");
        assert_eq!(comm.trim_end(), name);
    }
    for (process, capabilities) in [(switch, NONE), (gateway, NONE), (helper, KEPT)] {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            all_have(process, set, capabilities);
        }
        for set in ["CapInh", "CapAmb"] {
            all_have(process, set, NONE);
        }
        all_have(process, "NoNewPrivs", "1");
        all_have(process, "Seccomp", "2");
    }
    let uids = of_threads(gateway, "Uid");
    assert!(uids.iter().all(|uids| !uids.split_whitespace().any(|uid| uid == "0")), "{uids:?}");
    assert!(of_threads(gateway, "Groups").iter().all(String::is_empty), "no further groups");
    for kind in ["mnt", "pid", "ipc"] {
        assert_ne!(namespace_of(gateway, kind), namespace_of(switch, kind), "{kind}");
    }
    // The helper has the listening socket's file, and removes it.
    tramad.stop();
    assert!(!Path::new(&format!("/tmp/trama-privileges-{}", std::process::id())).exists());
}

/// Checks that a process is the service's and has no capability in any set.
#[track_caller]
fn has_no_privilege(process: u32) {
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        all_have(process, set, NONE);
    }
    all_have(process, "NoNewPrivs", "1");
    let user = User::named("nobody").id;
    all_have(process, "Uid", &format!("{user}\t{user}\t{user}\t{user}"));
}

#[test]
fn a_service_has_no_privilege_nor_has_what_follows_it() {
    let [a, b] = ["a", "b"].map(Netns::new);
    let port = |host: &Netns, number: u8| {
        format!(
            "[[port]]\nname = \"{number}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\n\
             netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            host.name()
        )
    };
    let ports = port(&a, 1) + &port(&b, 2);
    let text = format!("[[network]]\nname = \"lab\"\n{ports}");
    let (mut tramad, _manager) = Tramad::start_service(&text);
    // The helper reads it for the switch, and writes it.
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(tramad.path("trama.toml"), own).expect("chmod");
    a.wait_for_ping("10.1.0.2", SOON);
    has_no_privilege(tramad.id());
    has_no_privilege(tramad.member("trama:keeper").process.as_raw_nonzero().get() as u32);
    tramad.ctl("add-br other");
    assert!(tramad.configuration().contains("other"));

    tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
    a.wait_for_ping("10.1.0.2", SOON);
    tramad.start_again_with(&["--take-over"]);
    let stand_in = tramad.kill_and_follow().as_raw_nonzero().get() as u32;
    has_no_privilege(stand_in);
    a.wait_for_ping("10.1.0.2", SOON);
    tramad.start_again();
    has_no_privilege(tramad.id());
    assert!(tramad.ctl("list-br").contains("other"));
    a.wait_for_ping("10.1.0.2", SOON);

    let mut other = tied_command_as(&User::named("daemon"), tramad.path("tramad"));
    let refused = other.arg("--helper").arg(tramad.path("helper.sock")).output().expect("run it");
    let log = String::from_utf8_lossy(&refused.stdout).into_owned()
        + &String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && log.contains("helper.sock: Permission denied"), "{log}");
    tramad.stop_and_look(|dir| assert!(!dir.join("control.sock").exists()));
}

#[test]
fn the_holder_of_the_memory_can_only_wait_and_ends_with_the_switch() {
    let mut tramad = Tramad::start("[[network]]\nname = \"n\"\n");
    let holder = |switch: u32| {
        let mut pgrep = Command::new("pgrep");
        let found = pgrep.args(["-P", &switch.to_string(), "trama:memory"]).output();
        let text = String::from_utf8(found.expect("pgrep").stdout).expect("a number");
        text.trim().parse::<u32>().unwrap_or_else(|_| panic!("one holder: {text:?}"))
    };
    let first = holder(tramad.id());
    all_have(first, "Seccomp", "2");
    all_have(first, "NoNewPrivs", "1");
    all_have(first, "SigBlk", "fffffffe7ffbfeff");
    let open: Vec<_> = fs::read_dir(format!("/proc/{first}/fd")).expect("a process").collect();
    assert_eq!(open.len(), 1, "{open:?}");

    let has_ended = |process: u32| {
        wait_until("the holder ends", SOON, || {
            let status = fs::read_to_string(format!("/proc/{process}/status"));
            status.map_or(true, |it| it.contains("State:\tZ")).then_some(())
        })
    };
    let stand_in = tramad.kill_and_follow().as_raw_nonzero().get() as u32;
    has_ended(first);
    // Without one, a switch goes on.
    let second = holder(stand_in);
    kill_process(Pid::from_raw(second as i32).expect("a process"), Signal::KILL).expect("kill");
    has_ended(second);
    assert!(tramad.ctl("show").contains("n"));
    tramad.start_again();
    tramad.stop();
}

#[test]
fn an_interface_that_the_operator_did_not_name_is_not_joined() {
    let host = Netns::new("host");
    host.run("ip link add eth0 type veth peer lan0; ip link set eth0 up; ip link set lan0 up");
    let mut tramad = Tramad::start_in(&host, "[[network]]\nname = \"lan\"\n# eth0\n");
    // By the control socket, as a user of its group: such a user's words approve nothing.
    let body = r#"{"version":1,"commands":[["set","Bridge","lan","mode=bridged","uplink=eth0"]]}"#;
    let answer = Command::new("curl")
        .args(["-s", "--max-time", "10", "--unix-socket"])
        .arg(tramad.path("control.sock"))
        .args(["-H", "content-type: application/json", "-d", body])
        .arg("http://tramad/v1/transaction")
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let refused = "interface eth0 is not approved: it is neither in the configuration as it was written \
                   by hand nor in a command that root ran; run as root: tramactl approve eth0";
    assert!(text.contains(refused), "{text}");
    // Read again, the file has the name only because the daemon has saved it.
    assert!(tramad.configuration().contains("uplink = \"eth0\""));
    tramad.signal(Signal::HUP);
    wait_until("the reload", SOON, || tramad.log().contains("reloaded").then_some(()));
    assert!(tramad.ctl("show").contains("is not approved"));
    // Nor is it approved by a restart, which that user can cause, or by a look at it.
    tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
    tramad.kill_and_follow();
    tramad.start_again();
    tramad.ctl("get Bridge lan uplink -- list-ifaces lan -- find Bridge uplink=eth0");
    tramad.signal(Signal::HUP);
    wait_until("the reload", SOON, || {
        (tramad.log().matches("reloaded").count() == 2).then_some(())
    });
    assert!(tramad.ctl("show").contains("is not approved"));

    tramad.ctl("approve eth0");
    let runs = |tramad: &Tramad| {
        wait_until("the uplink runs", SOON, || {
            (!tramad.ctl("show").contains("is not approved")).then_some(())
        });
    };
    runs(&tramad);
    tramad.upgrade(|tramad| drop(tramad.ctl("upgrade")));
    runs(&tramad);
    tramad.stop();
}

#[test]
fn only_root_approves() {
    let tramad = Tramad::start("");
    // Let another user reach the socket: its own mode must keep that user out.
    let folder = tramad.path("");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&folder, open).expect("chmod");
    let copy = folder.join("tramactl");
    fs::copy(binary("tramactl"), &copy).expect("copy");
    let answer = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&copy)
        .arg("--socket")
        .arg(tramad.path("control.sock"))
        .args(["approve", "eth0"])
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success() && text.contains("run it as root"), "{text}");
    tramad.stop();
}

#[test]
fn without_its_helper_the_daemon_goes_on() {
    let [a, b] = ["a", "b"].map(Netns::new);
    let port = |netns: &Netns, name: &str, address: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\n\
             netns = \"{}\"\naddress = \"{address}\"\n",
            netns.name()
        )
    };
    let ports = port(&a, "a", "10.1.0.1/24") + &port(&b, "b", "10.1.0.2/24");
    let mut tramad = Tramad::start(&format!("[[network]]\nname = \"lab\"\n{ports}"));
    let helper = child(tramad.id(), "trama:helper");
    kill_process(Pid::from_raw(helper as i32).expect("a process"), Signal::KILL).expect("kill");
    a.wait_for_ping("10.1.0.2", SOON);
    let answer =
        tramad.try_ctl(&["add-port", "lab", "c", "--", "set", "Interface", "c", "type=tap"]);
    assert!(
        answer.text.contains("the helper has ended; tramad --take-over replaces it"),
        "{}",
        answer.text
    );
    assert!(tramad.is_running());
    a.wait_for_ping("10.1.0.2", SOON);
    tramad.stop();
}
