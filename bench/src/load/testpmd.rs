//! DPDK's testpmd with virtio-user ports: an independent generator.

use std::time::Duration;

use trama_vhost_net_backend::Role;

use super::{Context, Measured};
use crate::cores::LOAD_CORE;
use crate::peers::End;
use crate::process::{Process, Result, pause, unpinned};
use crate::usage::Window;

const START: Duration = Duration::from_secs(30);
/// How often the circulation is restarted if a first frame was lost while the ports connected.
const ATTEMPTS: usize = 8;
/// Size of a buffer for a frame of 9000 bytes and DPDK's headroom; the default is 2048.
const JUMBO_BUFFER: &str = "--mbuf-size=9728";

/// Measures the frames a second, all ports together, of twelve bursts each way that circulate
/// between each pair of ports as known unicast (`mac` mode: each port sends to the other's
/// address).
pub(super) fn circulate(context: &Context, bytes: usize) -> Result<Measured> {
    let mut testpmd = start(context, "mac", bytes)?;
    for _ in 0..ATTEMPTS {
        testpmd.send_line("start tx_first 12")?;
        if all_receive(context, &mut testpmd)? {
            return measure(context, testpmd);
        }
        testpmd.send_line("stop")?;
    }
    Err("no frames arrived in both directions".into())
}

/// Measures the frames a second that arrive when every port sends to unknown addresses, from
/// sources that were on another port a burst ago: all frames are flooded, every source moves.
pub(super) fn flood_and_move(context: &Context, bytes: usize) -> Result<Measured> {
    let mut testpmd = start(context, "flowgen", bytes)?;
    testpmd.send_line("start")?;
    for _ in 0..ATTEMPTS {
        if all_receive(context, &mut testpmd)? {
            return measure(context, testpmd);
        }
    }
    Err("not every port received frames".into())
}

fn start(context: &Context, mode: &str, bytes: usize) -> Result<Process> {
    // Line-buffered: its output is a pipe here.
    let mut command = unpinned("stdbuf");
    let core = context.core.to_string();
    command.args(["-oL", "dpdk-testpmd", "-l", &format!("{core},{LOAD_CORE}")]);
    command.args(["--main-lcore", &core, "--no-pci", "--single-file-segments"]);
    command.args(["-m", "512", "--huge-dir", context.huge, "--file-prefix", "bench-load"]);
    let mut ports = 0;
    for end in &context.switch.ends {
        let End::Vhost { socket, backend_role } = end else {
            return Err("testpmd supports vhost-user ports only".into());
        };
        command.arg(format!(
            "--vdev=net_virtio_user{ports},mac={},path={},queue_size=1024,server={}",
            mac(ports),
            socket.display(),
            u8::from(*backend_role == Role::Client)
        ));
        ports += 1;
    }
    command.args(["--", "-i", &format!("--forward-mode={mode}"), "--nb-cores=1", "--no-mlockall"]);
    command.args(["--txd=1024", "--rxd=1024"]);
    // Enough for each port's two full rings and the circulating frames. With its default pool of
    // some 155,000 buffers the generator is slower: 13 to 15 Mpps through the null device instead
    // of 16 to 21.
    command.args([&format!("--total-num-mbufs={}", 3072 * ports), "--mbcache=512"]);
    if bytes > 2000 {
        command.arg(JUMBO_BUFFER);
    }
    for port in 0..ports {
        command.arg(format!("--eth-peer={port},{}", mac(port ^ 1)));
    }
    let mut testpmd = Process::spawn("dpdk-testpmd (generator)", command)?;
    testpmd.wait_for("Checking link statuses", START)?;
    testpmd.send_line(&format!("set txpkts {bytes}"))?;
    Ok(testpmd)
}

fn mac(port: usize) -> String {
    format!("52:54:00:00:00:{:02x}", port + 1)
}

fn all_receive(context: &Context, testpmd: &mut Process) -> Result<bool> {
    rates(context, testpmd)?;
    pause(Duration::from_millis(700))?;
    Ok(rates(context, testpmd)?.iter().all(|&rate| rate > 0.0))
}

fn measure(context: &Context, mut testpmd: Process) -> Result<Measured> {
    let pids = context.switch.pids();
    rates(context, &mut testpmd)?;
    let window = Window::open(&pids);
    pause(Duration::from_secs(context.seconds))?;
    let usage = window.close();
    let rate = rates(context, &mut testpmd)?;
    testpmd.send_line("quit")?;
    Ok(Measured::of(rate.iter().sum(), usage))
}

/// Returns the frames a second that each port received since the previous call.
fn rates(context: &Context, testpmd: &mut Process) -> Result<Vec<f64>> {
    testpmd.send_line("show port stats all")?;
    let mut rate = || {
        let line = testpmd.wait_for("Rx-pps:", Duration::from_secs(5))?;
        let value = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        value.ok_or_else(|| format!("unexpected statistics of testpmd: {line}"))
    };
    context.switch.ends.iter().map(|_| rate()).collect()
}
