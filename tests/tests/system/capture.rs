//! Captures with `tramactl tcpdump`: whole files that Wireshark reads, and an end that says why. No
//! capture costs the traffic a frame.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use trama_tests::process::tied_command;
use trama_tests::tramad::{binary, sum};
use trama_tests::{Host, Netns, Process, SOON, Tramad, wait_until};

/// Two hosts on a network.
pub(crate) struct Lab {
    pub(crate) left: Netns,
    _right: Netns,
    pub(crate) tramad: Tramad,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        let mut configuration = "[[network]]\nname = \"lab\"\n".to_owned();
        for (name, netns, number) in [("left", &left, 1), ("right", &right, 2)] {
            configuration += &format!(
                "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
                 ifname = \"{name}\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
                netns.name()
            );
        }
        let tramad = Tramad::start(&configuration);
        left.wait_for_ping("10.1.0.2", SOON);
        Lab { left, _right: right, tramad, dir: tempfile::tempdir().expect("folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `tramactl tcpdump` with these words, and waits until it captures.
    pub(crate) fn tcpdump(&self, words: &str) -> Process {
        let before = self.running();
        let capture = self.start_tcpdump(words);
        wait_until("the capture runs", SOON, || (self.running() > before).then_some(()));
        capture
    }

    /// Starts `tramactl tcpdump` with these words.
    pub(crate) fn start_tcpdump(&self, words: &str) -> Process {
        let mut command = tied_command(binary("tramactl"));
        command.arg("--socket").arg(self.tramad.path("control.sock")).arg("tcpdump");
        command.args(words.split_whitespace());
        Process::spawn("tcpdump", command, &self.path("log"))
    }

    fn running(&self) -> u64 {
        self.tramad.metric("trama_captures", &[])
    }

    pub(crate) fn wait_for_end_of_all(&self) {
        wait_until("no capture is left", SOON, || (self.running() == 0).then_some(()));
    }

    /// Opens a capture as a client that need not read. Returns the head of the answer.
    fn open(&self, words: &str) -> (BufReader<UnixStream>, String) {
        let mut stream = UnixStream::connect(self.tramad.path("control.sock")).expect("socket");
        let body = serde_json::json!({
            "version": 1, "words": words.split_whitespace().collect::<Vec<_>>(), "frames": true,
            "snaplen": 0,
        })
        .to_string();
        write!(
            stream,
            "POST /v1/capture HTTP/1.1\r\nhost: tramad\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("ask");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("answer") > 0, "{head}");
        }
        (reader, head)
    }

    /// The frames that passed a port, both ways.
    fn passed(&self, port: &str) -> u64 {
        self.tramad.statistic(port, "rx_packets") + self.tramad.statistic(port, "tx_packets")
    }
}

/// Has tshark read a file without complaint; returns these fields of each frame.
pub(crate) fn fields(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(file).args(["-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    // Off by default.
    tshark.args(["-o", "udp.check_checksum:TRUE"]);
    let output = tshark.output().expect("tshark; scripts/install.sh test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = errors.lines().filter(|line| !line.contains("as user")).collect();
    assert!(output.status.success() && complaints.is_empty(), "tshark: {complaints:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// What the last command said at its end: frames captured, and missed.
pub(crate) fn counts(log: &str) -> (u64, u64) {
    let line = log.lines().rfind(|line| line.contains(" frames captured, ")).expect("counts");
    let number = |text: &str| text.split(' ').next().and_then(|word| word.parse().ok());
    let (captured, missed) = line.split_once(" frames captured, ").expect("two counts");
    (number(captured).expect("a count"), number(missed).expect("a count"))
}

#[test]
fn every_frame_is_captured_or_counted_and_has_an_id_for_its_way() {
    let lab = Lab::new();
    let before = lab.passed("left");
    let file = lab.path("both.pcapng");
    let mut capture = lab.tcpdump(&format!("left right -w {}", file.display()));
    lab.left.run("ping -f -c 3000 -s 1000 10.1.0.2");
    let after = lab.passed("left");
    assert!(capture.end(Signal::INT, SOON).success(), "{}", capture.log());
    let names = ["frame.interface_name", "frame.packet_flags_direction", "frame.packet_id"];
    let rows = fields(&file, &[&names[..], &["icmp.type", "frame.time_epoch"]].concat());
    let (captured, missed) = counts(&capture.log());
    assert_eq!(rows.len() as u64, captured);
    // Frames of before and after the pings pass as well, such as those of neighbour discovery.
    let at_left = rows.iter().filter(|row| row[0] == "left").count() as u64;
    assert!(at_left + missed >= 6000, "{at_left} and {missed} of {}", after - before);
    let mut entered = HashMap::new();
    let mut left = 0;
    for row in &rows {
        let [port, way, id, kind, _] = row.as_slice() else { panic!("{row:?}") };
        if kind != "8" {
            continue;
        }
        match (port.as_str(), way.as_str()) {
            ("left", "0x00000001") => assert!(entered.insert(id, ()).is_none(), "twice: {id}"),
            ("right", "0x00000002") => {
                left += 1;
                assert!(missed > 0 || entered.remove(id).is_some(), "{id} left, not entered");
            }
            other => panic!("an echo request at {other:?}"),
        }
    }
    assert!(missed > 0 || (left == 3000 && entered.is_empty()), "{left} {}", entered.len());
    lab.wait_for_end_of_all();
}

#[test]
fn captured_and_missed_are_what_the_port_counted() {
    let lab = Lab::new();
    // Silence, so that the counters tell of the flood alone.
    lab.left.run("ip -6 address flush dev left");
    let mut capture = lab.tcpdump("left -e icmp");
    let requests = lab.tramad.statistic("left", "rx_packets");
    lab.left.run("ping -f -c 5000 10.1.0.2");
    let requests = lab.tramad.statistic("left", "rx_packets") - requests;
    assert!(requests >= 5000);
    assert!(capture.end(Signal::TERM, SOON).success());
    let (captured, missed) = counts(&capture.log());
    assert_eq!(captured + missed, 10_000, "requests and replies");
    assert_eq!(
        capture.log().lines().filter(|line| line.contains("ICMP echo")).count() as u64,
        captured
    );
    assert!(capture.log().contains(" left In  "), "{}", capture.log());
}

#[test]
fn a_checksum_that_was_left_to_the_card_is_filled_in() {
    let lab = Lab::new();
    let file = lab.path("udp.pcapng");
    let mut capture = lab.tcpdump(&format!("left right udp port 9 -c 2 -w {}", file.display()));
    lab.left.run("bash -c 'echo some data, more than one word >/dev/udp/10.1.0.2/9'");
    wait_until("both are captured", SOON, || capture.status());
    assert_eq!(fields(&file, &["udp.checksum.status"]), [["1"], ["1"]], "1 is good");
}

#[test]
fn a_dropped_frame_says_why() {
    let lab = Lab::new();
    lab.tramad.ctl("set Port left tag=10 -- set Port right tag=20");
    let file = lab.path("drops.pcapng");
    let mut capture = lab.tcpdump(&format!("left --drops --no-frames -c 1 -w {}", file.display()));
    lab.left.try_run("ip neigh flush all; ping -c 2 -W 1 10.1.0.2");
    wait_until("one is enough", SOON, || capture.status());
    let comment = &fields(&file, &["frame.comment"])[0][0];
    assert!(comment.starts_with("dropped at left: no_member: No other port"), "{comment}");
    // The same as lines, and by a filter.
    let mut capture = lab.tcpdump("any --drops -c 1 drop no_member and arp");
    lab.left.try_run("ping -c 2 -W 1 10.1.0.2");
    wait_until("one is enough", SOON, || capture.status());
    let line = "ARP, Request who-has 10.1.0.2 tell 10.1.0.1, length 28, dropped at left: no_member";
    assert!(capture.log().contains(line), "{}", capture.log());
    // What a receiver does not take is there as well, at its own port.
    lab.tramad.ctl("clear Port left tag -- clear Port right tag -- link right down");
    let mut capture = lab.start_tcpdump("lab --drops --no-frames -c 1 arp");
    wait_until("one is enough", SOON, || {
        lab.left.try_run("ping -c 1 -W 1 10.1.0.2");
        capture.status()
    });
    let line = " right Out ARP, Request who-has 10.1.0.2 tell 10.1.0.1, length 28, dropped at right: \
                egress_down";
    assert!(capture.log().contains(line), "{}", capture.log());
}

#[test]
fn frames_of_a_gateway_enter_its_network() {
    let guest = Netns::new("guest");
    let tramad = Tramad::start(&format!(
        "[[network]]\nname = \"home\"\nmode = \"nat-network\"\nsubnet = [\"10.4.0.0/24\"]\n\
         [[network]]\nname = \"alone\"\nmode = \"nat\"\nsubnet = [\"10.5.0.0/24\"]\n\
         [[port]]\nname = \"vm1\"\nnetwork = \"home\"\ntype = \"tap\"\nifname = \"vm1\"\n\
         netns = \"{guest}\"\naddress = \"10.4.0.7/24\"\n\
         [[port]]\nname = \"vm2\"\nnetwork = \"alone\"\ntype = \"tap\"\nifname = \"vm2\"\n\
         netns = \"{guest}\"\naddress = \"10.5.0.15/24\"\n",
        guest = guest.name()
    ));
    let dir = tempfile::tempdir().expect("folder");
    for (network, gateway) in [("home", "10.4.0.1"), ("alone", "10.5.0.2")] {
        guest.wait_for_ping(gateway, SOON);
        let mut command = tied_command(binary("tramactl"));
        command.arg("--socket").arg(tramad.path("control.sock"));
        command.args(["tcpdump", network, "-c", "2", "icmp"]);
        let mut capture = Process::spawn("tcpdump", command, &dir.path().join("log"));
        let captures = || tramad.metric("trama_captures", &[]);
        wait_until("the capture runs", SOON, || (captures() == 1).then_some(()));
        guest.run(&format!("ping -c 1 {gateway}"));
        wait_until("both frames", SOON, || capture.status());
        let log = capture.log();
        let reply = log.lines().find(|line| line.contains("ICMP echo reply")).expect(&log);
        assert!(reply.contains("/gateway In  IP "), "{reply}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let lab = Lab::new();
    for (words, message) in [
        ("left tcp prot 80", "filter, column 5: \"prot\" follows a whole test"),
        ("left tcp prot 80", "did you mean port?"),
        ("lefft", "neither a port nor a network; did you mean left?"),
        ("left drop runts", "filter, column 6: \"runts\" is not a drop reason; did you mean runt?"),
        ("left --drops=runts", "\"runts\" is not a drop reason; did you mean runt?"),
        ("left --no-frames", "use --drops with --no-frames"),
        ("left -w /nonexistent/file", "cannot write /nonexistent/file"),
    ] {
        let words: Vec<_> = std::iter::once("tcpdump").chain(words.split(' ')).collect();
        let answer = lab.tramad.try_ctl(&words);
        assert_eq!(answer.status, 1, "{words:?}: {}", answer.text);
        assert!(answer.text.contains(message), "{words:?}: {}", answer.text);
        assert_eq!(answer.text.lines().count(), 1, "{}", answer.text);
    }
    // A file is not emptied for a capture that does not begin.
    let kept = lab.path("kept");
    std::fs::write(&kept, "kept").expect("write");
    let wrong =
        ["tcpdump", "left", "-w", &kept.display().to_string(), "tcp", "prot"].map(str::to_owned);
    assert_eq!(lab.tramad.try_ctl(&wrong.each_ref().map(String::as_str)).status, 1);
    assert_eq!(std::fs::read_to_string(&kept).expect("read"), "kept");
    let configuration = lab.tramad.configuration().replace("[daemon]", "[daemon]\ncapture = false");
    lab.tramad.write_configuration(&configuration);
    lab.tramad.ctl("reload");
    let refusal = lab.tramad.try_ctl(&["tcpdump", "left"]).text;
    assert!(refusal.contains("captures are forbidden: capture = false"), "{refusal}");
}

#[test]
fn a_reader_that_stalls_costs_no_frame() {
    let lab = Lab::new();
    let (mut reader, head) = lab.open("left right");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let losses = lab.left.run("ping -f -c 5000 -s 1400 10.1.0.2");
    assert!(losses.contains(" 0% packet loss"), "{losses}");
    let metrics = lab.tramad.metrics();
    assert_eq!(sum(&metrics, "trama_port_drops_total", &["egress_full"]), 0);
    // It goes on where it stopped, and hears of what it has missed.
    let mut some = vec![0; 4 << 20];
    reader.read_exact(&mut some).expect("what was captured");
    drop(reader);
    lab.wait_for_end_of_all();
    assert!(lab.tramad.metric("trama_capture_missed_total", &[]) > 1000);
}

#[test]
fn a_ninth_capture_is_refused_and_other_commands_are_not() {
    let lab = Lab::new();
    let mut held: Vec<_> = (0..8)
        .map(|_| {
            let (reader, head) = lab.open("lab arp");
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            reader
        })
        .collect();
    // They are as many as one user may have connections.
    assert_eq!(lab.tramad.ctl("list-br"), "lab\n");
    let refused = lab.tramad.try_ctl(&["tcpdump", "left"]);
    assert_eq!(refused.status, 1);
    assert!(refused.text.contains("8 captures run, which is the most: lab arp by user 0 for"));
    held.pop();
    wait_until("a place is free", SOON, || (lab.running() == 7).then_some(()));
    let mut capture = lab.tcpdump("left -c 1");
    lab.left.run("ping -c 1 10.1.0.2");
    assert!(wait_until("it ends", SOON, || capture.status()).success());
}

#[test]
fn the_capture_of_a_port_ends_with_it_and_that_of_a_network_goes_on() {
    let lab = Lab::new();
    let file = lab.path("port.pcapng");
    let mut port = lab.tcpdump(&format!("right -w {}", file.display()));
    let mut network = lab.tcpdump("lab -c 1 host 10.9.9.9");
    lab.left.run("ping -c 1 10.1.0.2");
    lab.tramad.ctl("del-port lab right");
    let status = wait_until("the capture ends", SOON, || port.status());
    assert_eq!(status.code(), Some(1));
    assert!(port.log().contains("right: the port was removed"), "{}", port.log());
    assert!(!fields(&file, &["frame.number"]).is_empty());
    // A port that comes joins in.
    let late = Netns::new("late");
    lab.tramad.ctl(&format!(
        "add-port lab late -- set Interface late type=tap options:ifname=late \
         options:netns={}",
        late.name()
    ));
    late.run("ip address add 10.9.9.9/24 dev late && ip link set late up");
    wait_until("a frame of the new port", SOON, || {
        late.try_run("ip neigh flush all; ping -c 1 -W 1 10.9.9.1");
        network.status()
    });
    assert!(network.log().contains(" late In  ARP"), "{}", network.log());
    // So does one that comes back, or goes to another network.
    lab.tramad.ctl("add-br other");
    let mut network = lab.tcpdump("lab -c 1 host 10.9.9.2");
    let mut all = lab.tcpdump("any --drops -c 1 host 10.9.9.2");
    lab.tramad.ctl("set Port late network=other");
    wait_until("a frame on the other network", SOON, || {
        late.try_run("ip neigh flush all; ping -c 1 -W 1 10.9.9.2");
        all.status()
    });
    assert_eq!(network.status(), None, "it is not on the network");
    lab.tramad.ctl("set Port late network=lab");
    wait_until("a frame of the port that is back", SOON, || {
        late.try_run("ip neigh flush all; ping -c 1 -W 1 10.9.9.2");
        network.status()
    });
}

#[test]
fn a_full_disk_leaves_a_whole_file() {
    let lab = Lab::new();
    let (disk, copy) = (lab.path("disk"), lab.path("copy.pcapng"));
    std::fs::create_dir(&disk).expect("folder");
    // The mount ends with the namespace.
    let script = format!(
        "mount -t tmpfs -o size=64k none {disk}\n{tramactl} --socket {socket} tcpdump left -w \
         {disk}/file\nstatus=$?\ncp {disk}/file {copy}\nexit $status",
        disk = disk.display(),
        tramactl = binary("tramactl").display(),
        socket = lab.tramad.path("control.sock").display(),
        copy = copy.display(),
    );
    let mut command = tied_command("unshare");
    command.args(["-m", "sh", "-c", &script]);
    let mut capture = Process::spawn("tcpdump", command, &lab.path("log"));
    wait_until("the capture runs", SOON, || (lab.running() == 1).then_some(()));
    lab.left.run("ping -f -c 500 -s 1000 10.1.0.2");
    let status = wait_until("the capture ends", SOON, || capture.status());
    assert_eq!(status.code(), Some(1), "{}", capture.log());
    assert!(capture.log().contains("No space left on device"), "{}", capture.log());
    let (captured, _) = counts(&capture.log());
    assert_eq!(fields(&copy, &["frame.number"]).len() as u64, captured);
    lab.wait_for_end_of_all();
}

#[test]
fn wireshark_captures_at_a_port() {
    let lab = Lab::new();
    let install = Command::new(binary("tramactl"))
        .args(["extcap", "install"])
        .env("HOME", lab.dir.path())
        .status();
    assert!(install.expect("run tramactl").success());
    let tshark = |arguments: &[&str]| {
        let mut command = tied_command("tshark");
        command.args(arguments);
        command.env("HOME", lab.dir.path());
        command.env("TRAMA_SOCKET", lab.tramad.path("control.sock"));
        command
    };
    let list = tshark(&["-D"]).output().expect("tshark; scripts/install.sh test installs it");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("trama:left (trama: lab/left)"), "{list}");
    let command = tshark(&["-n", "-i", "trama:left", "-f", "icmp", "-c", "2"]);
    let mut capture = Process::spawn("tshark", command, &lab.path("log"));
    wait_until("the capture runs", SOON, || (lab.running() == 1).then_some(()));
    lab.left.run("ping -c 1 10.1.0.2");
    wait_until("two frames", SOON, || capture.status());
    assert!(capture.log().contains("Echo (ping) reply"), "{}", capture.log());
    lab.wait_for_end_of_all();
}
