//! The generators: DPDK's testpmd for vhost-user ports, iperf3 for namespaces. Nobody here wrote them.

use std::time::{Duration, Instant};

use crate::peers::{LOAD_CORE, TapPeer, VhostPeer};
use crate::process::{Process, Result, pinned, run, testpmd};

const MACS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
const START: Duration = Duration::from_secs(30);
/// How often the circulation is started anew if a first frame was lost while the ports connected.
const ATTEMPTS: usize = 8;

/// Frames a second, both ways together, that circulate between testpmd's two virtio-user ports
/// through the peer as known unicast (`mac` mode: each port sends to the other's address).
pub fn circulate(peer: &VhostPeer, huge: &str, size: usize, seconds: u64) -> Result<f64> {
    let server = u8::from(peer.generator_listens);
    let mut command = testpmd();
    command.args(["-l", "0,1", "--main-lcore", "0", "--no-pci", "--single-file-segments"]);
    command.args(["-m", "512", "--huge-dir", huge, "--file-prefix", "bench-load"]);
    for (i, (mac, socket)) in MACS.iter().zip(&peer.sockets).enumerate() {
        let path = socket.display();
        command.arg(format!(
            "--vdev=net_virtio_user{i},mac={mac},path={path},queue_size=1024,server={server}"
        ));
    }
    command.args(["--", "-i", "--forward-mode=mac", "--nb-cores=1", "--no-mlockall"]);
    command.args(["--txd=1024", "--rxd=1024"]);
    // Enough for four full rings and what circulates. With its default pool of some 155,000 buffers
    // the generator falls, in some runs, into walking all of them: each frame is then cold memory
    // at both ends, and 5 to 6 Mpps is what the generator can do.
    command.args(["--total-num-mbufs=6144", "--mbcache=512"]);
    for (i, other) in [1, 0].into_iter().enumerate() {
        command.arg(format!("--eth-peer={i},{}", MACS[other]));
    }
    let mut testpmd = Process::spawn("dpdk-testpmd (generator)", command)?;
    testpmd.wait_for("Checking link statuses", START)?;
    testpmd.say(&format!("set txpkts {size}"))?;
    start_circulation(&mut testpmd)?;
    rates(&mut testpmd)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let rate = rates(&mut testpmd)?;
    testpmd.say("quit")?;
    Ok(rate.iter().sum())
}

fn start_circulation(testpmd: &mut Process) -> Result<()> {
    for _ in 0..ATTEMPTS {
        testpmd.say("start tx_first 12")?;
        rates(testpmd)?;
        std::thread::sleep(Duration::from_millis(700));
        if rates(testpmd)?.iter().all(|&rate| rate > 0.0) {
            return Ok(());
        }
        testpmd.say("stop")?;
    }
    Err("no frames came through in both directions".into())
}

/// What each port received a second since this was last asked.
fn rates(testpmd: &mut Process) -> Result<[f64; 2]> {
    testpmd.say("show port stats all")?;
    let mut rate = || -> Result<f64> {
        let line = testpmd.wait_for("Rx-pps:", Duration::from_secs(5))?;
        let value = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        value.ok_or_else(|| format!("testpmd's statistics changed their form: {line}"))
    };
    Ok([rate()?, rate()?])
}

/// Bits a second of one TCP stream from the first host to the second.
pub fn tcp_stream(peer: &TapPeer, seconds: u64) -> Result<f64> {
    let [client, server] = [&peer.hosts[0].0, &peer.hosts[1].0];
    let mut command = pinned(LOAD_CORE, "ip");
    command.args(["netns", "exec", server, "iperf3", "-s", "-1", "--forceflush"]);
    let mut listener = Process::spawn("iperf3 (server)", command)?;
    listener.wait_for("Server listening", START)?;
    let core = LOAD_CORE.to_string();
    let time = seconds.to_string();
    let deadline = Instant::now() + START;
    let report = loop {
        let args = [
            "-c",
            &core,
            "ip",
            "netns",
            "exec",
            client,
            "iperf3",
            "-c",
            "10.77.0.2",
            "-J",
            "-t",
            &time,
            "-O",
            "1",
        ];
        match run("taskset", &args) {
            Ok(report) => break report,
            Err(e) if Instant::now() > deadline => return Err(e),
            // The bridge's ports may still be learning.
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    };
    let report: serde_json::Value =
        serde_json::from_str(&report).map_err(|e| format!("iperf3's report: {e}"))?;
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .ok_or_else(|| "iperf3's report names no received rate".into())
}
