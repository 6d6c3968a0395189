//! DPDK's testpmd with virtio-user devices: an independent vhost-user frontend.
//!
//! It runs without huge pages, since a memfd of small pages is as shareable. So it needs no
//! preparation of the machine and leaves nothing behind when it is killed.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Process, SOON, tied_command, unique, wait_until};

/// A testpmd with two devices, which forwards the frames of each to the other.
pub struct Testpmd {
    process: Process,
    _dir: TempDir,
}

/// Time without a frame after which the circulation has stopped.
const PAUSE: Duration = Duration::from_secs(2);

/// Counters of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
}

impl Testpmd {
    /// MAC addresses of the two devices.
    pub const MACS: [&str; 2] = ["52:54:00:00:0d:00", "52:54:00:00:0d:01"];

    /// Starts testpmd with two devices on `sockets`, each with these properties of
    /// `net_virtio_user`, such as `queue_size=256,mrg_rxbuf=0` or `server=1`. `queues=2` sets the
    /// queue pairs; then the frames are of many flows and use all pairs.
    #[track_caller]
    pub fn start(sockets: [&Path; 2], properties: &str) -> Testpmd {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Line-buffered, or its answers would wait until the buffer is full.
        let mut command = tied_command("stdbuf");
        command.args(["-o0", "dpdk-testpmd"]);
        command.args(["--no-huge", "--no-pci", "--single-file-segments", "-m", "256"]);
        command.args(["-l", "0,1", "--log-level", "warning"]);
        command.args(["--file-prefix", &format!("trama-{}-{}", std::process::id(), unique())]);
        for (index, socket) in sockets.iter().enumerate() {
            if properties.contains("server=1") {
                // A killed testpmd leaves its socket, and the next one does not replace it.
                let _ = std::fs::remove_file(socket);
            }
            let (path, mac) = (socket.display(), Self::MACS[index]);
            let device = format!("net_virtio_user{index},path={path},mac={mac},{properties}");
            command.args(["--vdev", &device]);
        }
        command.args(["--", "-i", "--nb-cores=1", "--total-num-mbufs=16384"]);
        command.args(["--txd=1024", "--rxd=1024", "--forward-mode=mac"]);
        if let Some((_, queues)) = properties.split_once("queues=") {
            let count = queues.split(',').next().unwrap_or_default();
            command.args([&format!("--rxq={count}"), &format!("--txq={count}")]);
            command.arg("--txonly-multi-flow");
        }
        for (index, peer) in Self::MACS.iter().rev().enumerate() {
            command.arg(format!("--eth-peer={index},{peer}"));
        }
        // Answers go to a file, so that no pipe must be drained in time.
        let answers = dir.path().join("testpmd.log");
        command.env("XDG_RUNTIME_DIR", dir.path());
        let mut process = Process::spawn_commanded("testpmd", command, &answers);
        process.wait_for_log("testpmd> ", SOON);
        Testpmd { process, _dir: dir }
    }

    /// Runs a testpmd command.
    #[track_caller]
    pub fn tell(&mut self, command: &str) {
        let input = self.process.child().stdin.as_mut().expect("piped");
        writeln!(input, "{command}").expect("write to testpmd");
    }

    /// Sends `bursts` of 32 frames in each direction, which circulate until `stop`, and waits until
    /// each device has received `more` frames. Sends again when none has arrived for two seconds:
    /// first frames are lost if a ring is not ready yet.
    #[track_caller]
    pub fn circulate(&mut self, bursts: u32, more: u64, limit: Duration) {
        wait_until(&format!("testpmd receives {more} more frames"), limit, || {
            let before = self.counted();
            self.tell(&format!("start tx_first {bursts}"));
            let (mut last, mut progress) = (before, Instant::now());
            while progress.elapsed() < PAUSE {
                let now = self.counted();
                if (0..2).all(|i| now[i].received >= before[i].received + more) {
                    return Some(());
                }
                if (0..2).all(|i| now[i].received > last[i].received) {
                    (last, progress) = (now, Instant::now());
                }
            }
            self.tell("stop");
            None
        });
    }

    /// Waits until each device has received `more` frames of those that circulate; returns how many
    /// both have received a second.
    #[track_caller]
    pub fn goes_on(&mut self, more: u64, limit: Duration) -> f64 {
        let (before, since) = (self.counted(), Instant::now());
        let sum = |counted: [Counted; 2]| counted.iter().map(|it| it.received).sum::<u64>();
        let now = wait_until(&format!("testpmd receives {more} more frames"), limit, || {
            let now = self.counted();
            (0..2).all(|i| now[i].received >= before[i].received + more).then_some(now)
        });
        (sum(now) - sum(before)) as f64 / since.elapsed().as_secs_f64()
    }

    /// Returns the counters of each device.
    #[track_caller]
    pub fn counted(&mut self) -> [Counted; 2] {
        let before = self.process.log().len();
        self.tell("show port stats all");
        wait_until("testpmd shows its counters", SOON, || {
            let log = self.process.log();
            // Earlier output belongs to another command, such as the totals of `stop`.
            let answer = log.get(before..)?;
            let answer = &answer[answer.find("NIC statistics for port 0")?..];
            let values = |name: &str| -> Vec<u64> {
                answer
                    .split(name)
                    .skip(1)
                    .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
                    .collect()
            };
            let (received, sent) = (values("RX-packets:"), values("TX-packets:"));
            // The second device's throughput line ends the answer.
            let complete = answer.matches("Tx-bps:").count() == 2;
            complete.then(|| [0, 1].map(|i| Counted { received: received[i], sent: sent[i] }))
        })
    }

    /// Returns the frames that each queue of both devices has received or sent, as `direction`
    /// ("rx" or "tx") selects, in the order of devices and queues.
    #[track_caller]
    pub fn counted_by_queue(&mut self, direction: &str) -> Vec<u64> {
        let before = self.process.log().len();
        self.tell("show port xstats all");
        wait_until("testpmd shows its queues", SOON, || {
            let log = self.process.log();
            let answer = log.get(before..)?;
            // The prompt after both devices' answers.
            let answer = answer.get(answer.find("statistics for port 1")?..).map(|_| answer)?;
            answer.ends_with("testpmd> ").then_some(())?;
            let of_queue = |line: &str| -> Option<u64> {
                let (name, value) = line.trim().split_once(": ")?;
                let queue = name.strip_prefix(direction)?.strip_prefix("_q")?;
                queue.strip_suffix("_good_packets").and_then(|_| value.parse().ok())
            };
            Some(answer.lines().filter_map(of_queue).collect())
        })
    }

    /// Kills testpmd as `kill -9` does.
    pub fn kill(mut self) {
        self.process.end(rustix::process::Signal::KILL, SOON);
    }
}
