//! DPDK's testpmd with virtio-user devices: a vhost-user frontend that nobody here wrote.
//!
//! It runs without huge pages (a memfd of small ones is as shareable), so it needs no preparation
//! of the machine and leaves nothing behind when it is killed.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Process, SOON, tied_command, unique, wait_until};

/// A testpmd with two devices, which forwards what the one receives out of the other.
pub struct Testpmd {
    process: Process,
    _dir: TempDir,
}

/// Frames that circulate have come to a halt if none comes for so long.
const PAUSE: Duration = Duration::from_secs(2);

/// What a device has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
}

impl Testpmd {
    /// Addresses of the two devices.
    pub const MACS: [&str; 2] = ["52:54:00:00:0d:00", "52:54:00:00:0d:01"];

    /// Starts testpmd with two devices on `sockets`, each with these properties of
    /// `net_virtio_user`, such as `queue_size=256,mrg_rxbuf=0` or `server=1`. Pairs of queues are
    /// given there as `queues=2`; frames of many flows then use them all.
    #[track_caller]
    pub fn start(sockets: [&Path; 2], properties: &str) -> Testpmd {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Its answers would wait in a buffer until that is full.
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
        // Answers come through a file: nobody has to read a pipe in time.
        let answers = dir.path().join("testpmd.log");
        command.env("XDG_RUNTIME_DIR", dir.path());
        let mut process = Process::spawn_commanded("testpmd", command, &answers);
        process.wait_for_log("testpmd> ", SOON);
        Testpmd { process, _dir: dir }
    }

    /// Gives testpmd one command.
    #[track_caller]
    pub fn tell(&mut self, command: &str) {
        let input = self.process.child().stdin.as_mut().expect("piped");
        writeln!(input, "{command}").expect("write to testpmd");
    }

    /// Puts `bursts` of 32 frames on the way in each direction, which circulate until `stop`, and
    /// waits until each device has received `more` frames. Starts again when none has come for two
    /// seconds: first frames that meet a ring that is not there yet are gone for good.
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

    /// What each device has counted.
    #[track_caller]
    pub fn counted(&mut self) -> [Counted; 2] {
        let before = self.process.log().len();
        self.tell("show port stats all");
        wait_until("testpmd shows its counters", SOON, || {
            let log = self.process.log();
            // What comes before belongs to an earlier command, such as the sums of `stop`.
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

    /// The frames that each queue of both devices has received or sent, as `direction` says ("rx"
    /// or "tx"), in the order of devices and queues.
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
