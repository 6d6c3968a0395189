//! Exports to a collector: what tshark decodes agrees with what was sent, and a collector that does
//! not listen disturbs nothing.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use etherparse::PacketBuilder;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use trama_tests::{Host, Netns, Process, SOON, Tramad, wait_until};

/// Bytes of a ping's data by which its frames are told from all others, and their lengths.
const DATA: usize = 77;
const PACKET: usize = DATA + 8 + 20;
const FRAME: usize = PACKET + 14;

/// Two hosts on a network of which something is exported.
struct Lab {
    left: Netns,
    right: Netns,
    tramad: Tramad,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(export: &str) -> Lab {
        let (left, right) = (Netns::new("left"), Netns::new("right"));
        let mut configuration = format!("[[network]]\nname = \"lab\"\n{export}\n");
        for (name, netns, number) in [("left", &left, 1), ("right", &right, 2)] {
            configuration += &format!(
                "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
                 ifname = \"{name}\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\ntag = 7\n",
                netns.name()
            );
        }
        let tramad = Tramad::start(&configuration);
        left.wait_for_ping("10.1.0.2", SOON);
        Lab { left, right, tramad, dir: tempfile::tempdir().expect("folder") }
    }

    fn ping(&self, count: u32) {
        let line = format!("ping -q -c {count} -i 0.002 -s {DATA} 10.1.0.2");
        self.left.run(&line);
    }

    fn ofport(&self, port: &str) -> String {
        self.tramad.ctl(&format!("get Interface {port} ofport")).trim().to_owned()
    }
}

/// A collector on the loopback, which takes what comes until it is dropped.
struct Collector {
    port: u16,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn new() -> Collector {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        // What comes while this process has no turn is not to be lost.
        set_socket_recv_buffer_size_force(&socket, 8 << 20).expect("room");
        let port = socket.local_addr().expect("its address").port();
        let datagrams = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let weak = Arc::downgrade(&datagrams);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Some(datagrams) = weak.upgrade() {
                if let Ok(length) = socket.recv(&mut bytes) {
                    datagrams.lock().unwrap().push(bytes[..length].to_vec());
                }
            }
        });
        Collector { port, datagrams, thread: Some(thread) }
    }

    fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Has tshark decode what has come, without complaint; returns these fields of each datagram,
    /// with a list of values each.
    fn decoded(&self, dir: &Path, protocol: &str, fields: &[&str]) -> Vec<Vec<Vec<String>>> {
        let file = dir.join("collected.pcap");
        std::fs::write(&file, pcap(&self.datagrams.lock().unwrap(), self.port)).expect("a file");
        let decode = format!("udp.port=={},{protocol}", self.port);
        let tshark = |arguments: &[&str]| {
            let mut command = Command::new("tshark");
            command.args(["-n", "-d", &decode, "-r"]).arg(&file).args(arguments);
            let output = command.output().expect("tshark; scripts/install.sh test installs it");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let complaint = "_ws.malformed || _ws.expert.severity >= 0x600000";
        let complaints = tshark(&["-Y", complaint, "-V"]);
        assert!(complaints.is_empty(), "{complaints}");
        let mut arguments = vec!["-T", "fields"];
        fields.iter().for_each(|field| arguments.extend(["-e", field]));
        tshark(&arguments).lines().map(|line| line.split('\t').map(list).collect()).collect()
    }
}

/// The values of one field.
fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.datagrams = Arc::default();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Datagrams in a file as libpcap has it, each with headers of Ethernet, IP and UDP.
fn pcap(datagrams: &[Vec<u8>], port: u16) -> Vec<u8> {
    let mut file = Vec::new();
    for number in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(number.to_le_bytes());
    }
    for datagram in datagrams {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64)
            .udp(40_000, port);
        let mut packet = Vec::new();
        builder.write(&mut packet, datagram).expect("memory");
        for number in [0, 0, packet.len() as u32, packet.len() as u32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// A flow sample, as tshark tells it.
#[derive(Clone, PartialEq, Debug)]
struct Sample {
    input: String,
    output: String,
    rate: u64,
    length: u64,
    vlan: String,
}

/// The flow samples that came.
fn samples(collector: &Collector, dir: &Path) -> Vec<Sample> {
    let fields = [
        "sflow.flow_sample.input_interface",
        "sflow.flow_sample.output_interface",
        "sflow.flow_sample.sampling_rate",
        "sflow_245.header.frame_length",
        "sflow_245.vlan.in",
    ];
    let mut samples = Vec::new();
    for datagram in collector.decoded(dir, "sflow", &fields) {
        let [input, output, rate, length, vlan] = datagram.as_slice() else { panic!("five") };
        for index in 0..input.len() {
            let number = |list: &[String]| list[index].parse().expect("a number");
            samples.push(Sample {
                input: input[index].clone(),
                output: output[index].clone(),
                rate: number(rate),
                length: number(length),
                vlan: vlan[index].clone(),
            });
        }
    }
    samples
}

/// Waits until samples come, of frames that are no ping of [`Lab::ping`].
fn wait_for_export(lab: &Lab, collector: &Collector) {
    wait_until("something is exported", SOON, || {
        lab.left.run("ping -q -f -c 20 10.1.0.2");
        (!samples(collector, lab.dir.path()).is_empty()).then_some(())
    });
}

#[test]
fn sflow_samples_and_counters_agree_with_the_traffic() {
    let collector = Collector::new();
    let target = collector.target();
    let lab =
        Lab::new(&format!("[network.sflow]\nsampling = 1\npolling = 1\ntargets = [\"{target}\"]"));
    wait_for_export(&lab, &collector);
    lab.ping(200);
    let (left, right) = (lab.ofport("left"), lab.ofport("right"));
    let expected = |input: &str, output: &str| Sample {
        input: input.to_owned(),
        // As tshark writes it, since it has two parts.
        output: format!("0x{:08x}", output.parse::<u32>().expect("a number")),
        rate: 1,
        length: FRAME as u64 + 4,
        vlan: "7".to_owned(),
    };
    let count = |wanted: &Sample| {
        let all = samples(&collector, lab.dir.path());
        all.iter().filter(|sample| *sample == wanted).count()
    };
    let (there, back) = (expected(&left, &right), expected(&right, &left));
    wait_until("all samples came", SOON, || (count(&back) >= 200).then_some(()));
    assert_eq!((count(&there), count(&back)), (200, 200));
    // The counters, once nothing passes any more.
    let fields = ["sflow_245.ifindex", "sflow_245.ifinpkt"];
    wait_until("counters are told", SOON, || {
        let packets = lab.tramad.statistic("left", "rx_packets").to_string();
        let datagrams = collector.decoded(lab.dir.path(), "sflow", &fields);
        let mut pairs = datagrams.iter().flat_map(|it| it[0].iter().zip(&it[1]));
        pairs.any(|(port, count)| *port == left && *count == packets).then_some(())
    });
    assert!(lab.tramad.metric("trama_export_records_total", &["protocol=\"sflow\""]) >= 400);
    assert_eq!(lab.tramad.metric("trama_export_lost_total", &["protocol=\"sflow\""]), 0);
}

#[test]
fn a_sample_stands_for_its_part_and_a_large_segment_for_its_packets() {
    let collector = Collector::new();
    let lab = Lab::new("");
    let target = collector.target();
    let set = format!(
        "-- --id=@s create sFlow target=\"{target}\" header=64 sampling=10 polling=0 -- \
         set Bridge lab sflow=@s"
    );
    lab.tramad.ctl(&set);
    wait_for_export(&lab, &collector);
    lab.left.run(&format!("ping -q -f -c 5000 -s {DATA} 10.1.0.2"));
    let ofport = lab.ofport("left");
    let estimated = || {
        let all = samples(&collector, lab.dir.path());
        let own = all.iter().filter(|it| it.input == ofport && it.length == FRAME as u64 + 4);
        own.map(|it| it.rate).sum::<u64>()
    };
    // Five standard deviations of some 500 distances.
    wait_until("samples came", SOON, || (estimated() >= 4400).then_some(()));
    assert!(estimated() <= 5600, "{}", estimated());
    // Every frame of a stream that the card would cut into packets.
    lab.tramad.ctl("set sFlow lab sampling=1");
    wait_until("it is changed", SOON, || {
        lab.left.run("ping -q -c 1 10.1.0.2");
        samples(&collector, lab.dir.path()).iter().any(|it| it.rate == 1).then_some(())
    });
    collector.datagrams.lock().unwrap().clear();
    const BYTES: u64 = 4_000_000;
    let mut command = lab.right.command("socat");
    command.args(["-u", "TCP-LISTEN:9", "OPEN:/dev/null"]);
    let mut sink = Process::spawn("socat", command, &lab.dir.path().join("log"));
    wait_until("it listens", SOON, || {
        let listening = lab.right.run("ss -Hltn sport = :9");
        listening.contains(":9").then_some(())
    });
    lab.left.run(&format!("bash -c 'head -c {BYTES} /dev/zero >/dev/tcp/10.1.0.2/9'"));
    wait_until("all has arrived", SOON, || sink.status());
    let of_left = || {
        let all = samples(&collector, lab.dir.path());
        all.into_iter().filter(|it| it.input == ofport).collect::<Vec<_>>()
    };
    let wire = |all: &[Sample]| all.iter().map(|it| it.rate * (it.length - 4)).sum::<u64>();
    // The last packets may be in a datagram that is still to come.
    let packets = |all: &[Sample]| all.iter().map(|it| it.rate).sum::<u64>();
    let all = wait_until("all packets are told", SOON, || {
        let all = of_left();
        (packets(&all) >= BYTES / 1448).then_some(all)
    });
    assert!(wire(&all) >= BYTES, "{}", wire(&all));
    // Each packet of 1448 bytes has 66 bytes of headers.
    let most = (BYTES + BYTES.div_ceil(1448) * 66) * 102 / 100;
    assert!(wire(&all) <= most, "{} of {most}", wire(&all));
    // How large segments are is for TCP to say; without any, this would show nothing.
    assert!(packets(&all) > all.len() as u64, "{} {}", packets(&all), all.len());
}

#[test]
fn ipfix_flows_have_the_bytes_and_packets_of_the_traffic() {
    let collector = Collector::new();
    let target = collector.target();
    let lab = Lab::new(&format!(
        "[network.ipfix]\ndomain = 77\nsampling = 1\nidle-timeout = 3\ntargets = [\"{target}\"]"
    ));
    let (left, right) = (lab.ofport("left"), lab.ofport("right"));
    let fields = [
        "cflow.srcaddr",
        "cflow.dstaddr",
        "cflow.protocol",
        "cflow.packets",
        "cflow.octets",
        "cflow.inputint",
        "cflow.outputint",
        "cflow.vlanid",
        "cflow.od_id",
    ];
    let flows = || {
        let datagrams = collector.decoded(lab.dir.path(), "cflow", &fields);
        datagrams.into_iter().filter(|it| !it[0].is_empty()).collect::<Vec<_>>()
    };
    // The templates come once frames are sampled.
    let has_templates = || (!collector.datagrams.lock().unwrap().is_empty()).then_some(());
    wait_until("templates came", SOON, has_templates);
    lab.ping(100);
    let octets = (100 * PACKET).to_string();
    let seen = || {
        let place = |flow: &Vec<Vec<String>>| {
            let at = flow[4].iter().position(|count| *count == octets)?;
            let cell = |column: usize| flow[column][at.min(flow[column].len() - 1)].clone();
            Some((0..9).map(cell).collect::<Vec<_>>())
        };
        flows().iter().filter_map(place).find(|flow| flow[0] == "10.1.0.1")
    };
    let flow = wait_until("the flow is told", SOON, seen);
    let expected = ["10.1.0.1", "10.1.0.2", "1", "100", &octets, &left, &right, "7", "77"];
    assert_eq!(flow, expected);
}

#[test]
fn a_collector_that_does_not_listen_is_told_of_once_and_disturbs_nothing() {
    // Bound and closed, so that nothing listens there.
    let target = Collector::new().target();
    let mut lab = Lab::new(&format!("[network.sflow]\nsampling = 1\ntargets = [\"{target}\"]"));
    wait_until("the fault is told", SOON, || {
        lab.ping(10);
        let status = lab.tramad.ctl("get Bridge lab status");
        status.contains("nothing listens there").then_some(())
    });
    lab.ping(200);
    lab.tramad.wait_for_log(&format!("collector {target}: nothing listens there"), SOON);
    assert_eq!(lab.tramad.log().matches("nothing listens there").count(), 1);
    let refused = lab.tramad.try_ctl(&[
        "--",
        "--id=@s",
        "create",
        "sFlow",
        "targets=collector",
        "--",
        "set",
        "Bridge",
        "lab",
        "sflow=@s",
    ]);
    assert!(refused.text.contains("is not an address with a port"), "{refused:?}");
    let refused = lab.tramad.try_ctl(&["create", "NetFlow", "targets=x", "--", "list-br"]);
    assert_eq!(refused.status, 0, "a record alone is warned of: {refused:?}");
    lab.tramad.ctl("clear Bridge lab sflow");
    wait_until("nothing is exported", SOON, || {
        (lab.tramad.ctl("get Bridge lab status") == "{}\n").then_some(())
    });
}
