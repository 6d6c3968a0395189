//! The page in a browser: Chromium in a fresh profile, in a namespace from which no other network
//! is reached. The scenarios are in `tests/browser/page.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Signal, kill_process};
use serde_json::{Value as Json, json};
use trama_structure::tree::root;
use trama_tests::nat::{namespace, tap_port};
use trama_tests::tramad::{binary, free_address};
use trama_tests::{Host, Netns, Process, Tramad};

/// Milliseconds that the page may work for a change, and until its first paint.
const FRAME: f64 = 50.0;
const PAINT: f64 = 300.0;
/// Bytes of all its files.
const BYTES: u64 = 300 << 10;

/// Networks with a page, in a namespace.
struct Lab {
    host: Netns,
    tramad: Tramad,
}

impl Lab {
    fn start(keys: &str, networks: &str) -> Lab {
        let host = Netns::new("host");
        host.run("ip link set lo up");
        let web = free_address();
        let head = format!(
            "[daemon]\ncontrol = \"{{dir}}/control.sock\"\nstate = \"{{dir}}/state\"\n\
             metrics = \"{{metrics}}\"\nweb = \"{web}\"\n{keys}"
        );
        let tramad = Tramad::start_in(&host, &(head + networks));
        Lab { host, tramad }
    }

    /// Runs a scenario; `step` is called with each step that it asks for, and returns the answer.
    #[track_caller]
    fn look(&mut self, scenario: &str, mut step: impl FnMut(&mut Lab, &str) -> Json) -> Json {
        self.look_into(scenario, Path::new("."), &mut step)
    }

    #[track_caller]
    fn look_into(
        &mut self,
        scenario: &str,
        folder: &Path,
        step: &mut dyn FnMut(&mut Lab, &str) -> Json,
    ) -> Json {
        let mut command =
            self.host.command(&format!("{}/.cache/python/bin/python", root().display()));
        command.arg(root().join("tests/browser/page.py")).arg(scenario);
        command.arg("--tramactl").arg(binary("tramactl"));
        command.arg("--socket").arg(self.tramad.path("control.sock"));
        command.arg("--folder").arg(folder);
        command.arg("--port").arg(free_address().port().to_string());
        // A profile of its own, which goes with the test.
        command.env("HOME", self.tramad.path("state")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python");
        let mut input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut found = Json::Null;
        for line in output.lines() {
            let line: Json = serde_json::from_str(&line.expect("a line")).expect("JSON");
            match line["step"].as_str() {
                Some(name) => {
                    let answer = step(self, name);
                    writeln!(input, "{answer}").expect("an answer");
                }
                None => found = line["found"].clone(),
            }
        }
        assert!(child.wait().expect("it ends").success(), "{scenario}");
        found
    }
}

fn no_step(_: &mut Lab, name: &str) -> Json {
    panic!("no step {name}");
}

/// Sends a signal to the process that serves the page.
fn signal_page(lab: &Lab, signal: Signal) {
    let page = *lab.tramad.pages().last().expect("a process");
    kill_process(page, signal).expect("it runs");
}

/// Starts what sends for as long as the test takes.
fn load(lab: &Lab, vm: &Netns, words: &str) -> Process {
    let mut words = words.split(' ');
    let mut command = vm.command(words.next().expect("a program"));
    command.args(words);
    Process::spawn("load", command, &lab.tramad.path("load.log"))
}

const NETWORK: &str = "[[network]]\nname = \"lab\"\n";

/// A network `lab` with two namespaces, `vm1` and `vm2`.
fn two(keys: &str) -> (Lab, [Netns; 2]) {
    let vms = ["vm1", "vm2"].map(namespace);
    let port = |vm: &Netns, number: u8| {
        let name = format!("vm{number}");
        let rest = format!("ifname = \"eth0\"\naddress = \"10.1.0.{number}/24\"");
        tap_port("lab", &name, vm, &rest)
    };
    let ports = port(&vms[0], 1) + &port(&vms[1], 2);
    (Lab::start(keys, &format!("{NETWORK}{ports}")), vms)
}

#[test]
fn changes_are_shown_within_two_seconds_and_contact_comes_back() {
    let (mut lab, [vm1, _vm2]) = two("");
    let mut loads = Vec::new();
    let found = lab.look("live", |lab, step| {
        match step {
            "ping" => loads.push(load(lab, &vm1, "ping -q -i 0.1 -s 1400 10.1.0.2")),
            "freeze" => signal_page(lab, Signal::STOP),
            "thaw" => signal_page(lab, Signal::CONT),
            "stop" => lab.tramad.end_process(Signal::TERM),
            "start" => lab.tramad.start_again(),
            "kill" => {
                lab.tramad.kill_and_follow();
                lab.tramad.start_again();
            }
            other => panic!("{other}"),
        }
        json!(null)
    });
    println!("seconds until a change is shown: {found}");
}

#[test]
fn a_thousand_ports_keep_the_page_quick() {
    let vms = ["vm0", "vm1"].map(namespace);
    let mut networks = String::new();
    for number in 0..10 {
        networks += &format!("[[network]]\nname = \"net{number}\"\n");
    }
    for number in 2..1000 {
        networks += &format!(
            "[[port]]\nname = \"vm{number}\"\nnetwork = \"net{}\"\ntype = \"stream\"\n\
             path = \"{{dir}}/vm{number}.sock\"\n",
            number % 10
        );
    }
    for (number, vm) in vms.iter().enumerate() {
        let rest = format!("ifname = \"eth0\"\naddress = \"10.1.0.{}/24\"", number + 1);
        networks += &tap_port("net0", &format!("vm{number}"), vm, &rest);
    }
    trama_tests::process::raise_file_limit(10_000);
    let mut lab = Lab::start("", &networks);
    let mut loads = Vec::new();
    let found = lab.look("thousand", |lab, _| {
        vms[1].start_iperf_server(5201);
        loads.push(load(lab, &vms[0], "iperf3 -c 10.1.0.2 -u -b 200M -t 60"));
        json!(null)
    });
    println!("{found}");
    let worst = |view: &str| {
        let times = found[view].as_array().expect("times");
        times.iter().filter_map(Json::as_f64).fold(0.0, f64::max)
    };
    // Times of a loaded machine say little; the figures are printed, the bounds are those of
    // the contract with room for noise.
    for view in ["list", "picture"] {
        assert!(worst(view) < 4.0 * FRAME, "{view}: {found}");
    }
    assert!(found["paint"].as_f64().expect("a time") < 10.0 * PAINT, "{found}");
    assert!(found["bytes"].as_u64().expect("a size") < BYTES, "{found}");
}

#[test]
fn everything_is_reached_by_the_keyboard() {
    let (mut lab, _vms) = two("");
    lab.look("keyboard", no_step);
}

#[test]
fn nothing_keeps_people_out() {
    let (mut lab, [vm1, _vm2]) = two("web-write = true\n");
    vm1.run("ping -c 3 -i 0.1 10.1.0.2");
    lab.look("access", no_step);
}

#[test]
fn markup_in_names_is_text() {
    let name = "<img src=x onerror=alert(1)>";
    let port = format!(
        "[[port]]\nname = \"vm1\"\nnetwork = \"lab\"\ntype = \"stream\"\n\
         path = \"{{dir}}/{name}.sock\"\n[[port]]\nname = \"vm2\"\nnetwork = \"lab\"\n\
         type = \"stream\"\npath = \"{{dir}}/no/{name}/vm2.sock\"\n"
    );
    let mut lab = Lab::start("", &(NETWORK.to_owned() + &port));
    lab.look("markup", |_, _| json!(name));
}

#[test]
fn what_may_be_changed_is_proposed_and_done() {
    let (mut lab, _vms) = two("web-write = true\n");
    lab.tramad
        .ctl("add-br other -- add-br home -- set Bridge home mode=nat-network subnet=10.7.0.0/24");
    lab.tramad.wait_for_gateway("home");
    lab.look("write", no_step);
}

/// The pictures in docs/web.md, taken into the folder that `TRAMA_PICTURES` names.
#[test]
fn pictures_of_an_idle_a_busy_and_a_broken_network() {
    let folder = std::env::var_os("TRAMA_PICTURES");
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = folder.map_or(temporary.path().to_owned(), std::path::PathBuf::from);
    let vms = ["web", "db", "dev", "phone"].map(namespace);
    let port = |name: &str, vm: usize, rest: &str| {
        let port = tap_port(name, ["web", "db", "dev", "phone"][vm], &vms[vm], "ifname = \"eth0\"");
        format!("{port}{rest}\n")
    };
    let networks = "[[network]]\nname = \"lab\"\n[[network]]\nname = \"home\"\n\
                    mode = \"nat-network\"\nsubnet = [\"10.7.0.0/24\"]\n\
                    forward = [\"ssh,tcp,127.0.0.1,2222,10.7.0.5,22\"]\n\
                    [[network]]\nname = \"hostnet\"\nmode = \"host-only\"\n";
    let ports = [
        port("lab", 0, "address = \"10.1.0.1/24\"\ntag = 10"),
        port("lab", 1, "address = \"10.1.0.2/24\"\ntag = 10"),
        port("home", 2, ""),
        port("home", 3, ""),
    ];
    let mut text = networks.to_owned() + &ports.concat();
    for name in ["backup", "build", "ci"] {
        text += &format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"stream\"\ntag = 20\n\
             path = \"{{dir}}/{name}.sock\"\n"
        );
    }
    let mut lab = Lab::start("", &text);
    lab.tramad.wait_for_gateway("home");
    let mut loads = Vec::new();
    lab.look_into("pictures", &folder, &mut |lab, step| {
        match step {
            "idle" => {}
            "busy" => {
                for (vm, name) in [(2, "dev"), (3, "phone")] {
                    vms[vm].run("ip link set eth0 up");
                    vms[vm].run(&format!(
                        "busybox udhcpc -i eth0 -f -n -q -t 20 -T 1 -x hostname:{name} -s /bin/true"
                    ));
                }
                vms[1].start_iperf_server(5201);
                loads.push(load(lab, &vms[0], "iperf3 -c 10.1.0.2 -b 300M -t 600"));
                loads.push(load(lab, &vms[0], "ping -q -i 0.01 -s 1000 10.1.0.2"));
            }
            "broken" => {
                lab.tramad.ctl("set Port db tag=20 -- link ci down");
                let dir = lab.tramad.path("taken");
                std::fs::write(&dir, "").expect("a file");
                let path = format!("options:path={}", dir.display());
                lab.tramad.try_ctl(&["set", "Interface", "build", &path]);
            }
            other => panic!("{other}"),
        }
        json!(null)
    });
    for name in ["idle", "busy", "broken"] {
        assert!(folder.join(format!("{name}.png")).exists(), "{name}");
    }
}
