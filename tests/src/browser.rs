//! A browser that shows the page of a daemon, both in a namespace from which no other network is
//! reached. What it does is in `tests/browser/page.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::nat::{namespace, tap_port};
use crate::process::{processor_time_of, raise_file_limit};
use crate::tramad::{binary, free_address};
use crate::{Host, Netns, Process, Tramad};

/// Milliseconds that the page may work for a change of a thousand ports.
pub const FRAME: f64 = 50.0;
/// Milliseconds until its first paint from loopback.
pub const PAINT: f64 = 300.0;
/// Bytes of all its files.
pub const BYTES: u64 = 300 << 10;
/// Percent of a core for the daemon's control threads while a page is open.
pub const CONTROL: f64 = 3.0;

/// Networks with a page, in a namespace.
pub struct Lab {
    host: Netns,
    /// The daemon.
    pub tramad: Tramad,
}

impl Lab {
    /// Starts a daemon with a page; `keys` are added to its `[daemon]`.
    #[track_caller]
    pub fn start(keys: &str, networks: &str) -> Lab {
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
    pub fn look(&mut self, scenario: &str, mut step: impl FnMut(&mut Lab, &str) -> Json) -> Json {
        self.look_into(scenario, Path::new("."), &mut step)
    }

    /// As [`Lab::look`]; what the scenario saves goes into a folder.
    #[track_caller]
    pub fn look_into(
        &mut self,
        scenario: &str,
        folder: &Path,
        step: &mut dyn FnMut(&mut Lab, &str) -> Json,
    ) -> Json {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut command =
            self.host.command(&format!("{}/.cache/python/bin/python", root.display()));
        command.arg(root.join("tests/browser/page.py")).arg(scenario);
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

/// Starts what sends for as long as the test takes.
pub fn load(lab: &Lab, vm: &Netns, words: &str) -> Process {
    let mut words = words.split(' ');
    let mut command = vm.command(words.next().expect("a program"));
    command.args(words);
    Process::spawn("load", command, &lab.tramad.path("load.log"))
}

/// What a page of a thousand ports costs.
#[derive(Debug)]
pub struct Costs {
    /// What the browser has measured: `paint` in ms, `bytes` of all files, the processor time of
    /// the page's main thread until it shows all (`work`, ms); for the views `list` and `picture`
    /// how long it works for each second's change, and as `list_renderer` and `picture_renderer`
    /// the processor time of its process for one, in ms.
    pub browser: Json,
    /// The share of a core that all threads of the daemon but its workers take, with the page open
    /// and 200 Mb/s between two ports, in percent.
    pub control: f64,
    /// Likewise of the process that serves the page.
    pub page: f64,
}

/// Opens a page of a thousand ports, two of which have traffic of 200 Mb/s.
#[track_caller]
pub fn costs_of_a_thousand_ports() -> Costs {
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
    raise_file_limit(10_000);
    let mut lab = Lab::start("", &networks);
    let (mut loads, mut spent) = (Vec::new(), Vec::new());
    let browser = lab.look("thousand", |lab, step| {
        if step == "traffic" {
            vms[1].start_iperf_server(5201);
            loads.push(load(lab, &vms[0], "iperf3 -c 10.1.0.2 -u -b 200M -t 600"));
        } else {
            spent.push((Instant::now(), spent_by(lab)));
        }
        json!(null)
    });
    let [(began, before), (ended, after)] = spent[..] else { panic!("{spent:?}") };
    let elapsed = (ended - began).as_nanos() as f64;
    let [control, page] = [0, 1].map(|of| (after[of] - before[of]) * 100.0 / elapsed);
    Costs { browser, control, page }
}

/// Processor time of the daemon's control threads, and of the process that serves the page.
fn spent_by(lab: &Lab) -> [f64; 2] {
    let page = lab.tramad.pages().last().expect("a process").as_raw_pid();
    let is_control = |name: &str| !name.starts_with("worker");
    let page = u32::try_from(page).expect("a process id");
    [processor_time_of(lab.tramad.id(), is_control), processor_time_of(page, |_| true)]
}
