//! Connects the network card of one virtual machine to one TAP device.
//!
//! It is a switch with two ports: frames of the guest leave by the TAP device and the other way
//! round, VLAN tags and large segments included. The program runs in the foreground until SIGTERM,
//! SIGINT or SIGHUP, and removes its TAP device and its socket when it ends.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use trama_switch::{
    Device, Engine, EngineError, HdrLen, NetworkSettings, PortId, PortSettings, Spin, Tap,
    TapOptions, VhostDevice, VlanMode, VlanSet, WorkerHandle, WorkerOptions,
};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Access, DeviceSettings, Role, Session, SessionOptions, access};

/// Connects one vhost-user frontend (QEMU, cloud-hypervisor, DPDK) to one TAP device.
#[derive(Parser, Debug)]
#[command(name = "trama-vhost-net", version)]
struct Arguments {
    /// The vhost-user socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Owner of the socket: a user's name or number
    #[arg(long, value_name = "USER", value_parser = access::user_id)]
    socket_owner: Option<u32>,
    /// Group of the socket: a name or a number; the default mode is then 0660
    #[arg(long, value_name = "GROUP", value_parser = access::group_id)]
    socket_group: Option<u32>,
    /// Mode of the socket, 0600 to 0666; connecting requires write permission
    #[arg(long, value_name = "MODE", value_parser = access::parse_mode)]
    socket_mode: Option<u32>,
    /// Which side listens on the socket: this program (server) or the frontend (client)
    #[arg(long, value_name = "ROLE", default_value_t = Role::Server)]
    role: Role,
    /// The TAP device; created if it does not exist
    #[arg(long, value_name = "NAME")]
    tap: String,
    /// The named network namespace of the TAP device
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// An address for the TAP device, with its prefix length; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = parse_cidr)]
    address: Vec<(IpAddr, u8)>,
    /// The largest packet in bytes, without the Ethernet header
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..=65_520))]
    mtu: u16,
    /// Number of queue pairs that the guest may use
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    queues: u16,
    /// How long to poll after the last frame before sleeping: never, always, or a time
    #[arg(long, default_value = "60us", value_name = "TIME")]
    spin: Spin,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    trama_log::start("RUST_LOG", trama_log::Format::Text);
    abort_on_panic();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a panic of any thread end the process, with the usual message: a program whose worker or
/// session has ended looks alive and moves no frames.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

type Failure = Box<dyn std::error::Error>;

fn run(arguments: Arguments) -> Result<(), Failure> {
    // First, so that no signal is missed while the rest is set up.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let tap = Tap::open(&TapOptions {
        ifname: arguments.tap.clone(),
        netns: arguments.netns,
        address: arguments.address,
        mtu: arguments.mtu,
        mac: None,
        vnet_header: true,
        must_be_new: false,
    })?;
    let (worker, thread) = start_worker(arguments.spin)?;
    let (mtu, queues) = (arguments.mtu, arguments.queues);
    let port = worker.call(move |engine, _| connect(engine, mtu, queues, tap))??;
    let access = Access {
        owner: arguments.socket_owner,
        group: arguments.socket_group,
        mode: arguments.socket_mode.or(arguments.socket_group.map(|_| access::GROUP_MODE)),
    };
    let options = SessionOptions {
        queue_pairs: queues,
        device: DeviceSettings { mtu, mac: None },
        access,
        ..SessionOptions::new(&arguments.socket, arguments.role)
    };
    let session = Session::spawn(options, SwitchPort::new(worker.clone(), port)?)?;
    tracing::info!(tap = arguments.tap, socket = %arguments.socket.display(), "ready");

    let signal = signals.forever().next();
    tracing::info!(signal, "ending");
    session.stop();
    worker.stop();
    thread.join().map_err(|_| "the worker thread panicked")?;
    Ok(())
}

fn start_worker(spin: Spin) -> std::io::Result<(WorkerHandle, JoinHandle<()>)> {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hash keys are the process's random numbers.
    let seed = RandomState::new().hash_one(0);
    WorkerHandle::spawn(WorkerOptions { spin, name: "worker".into(), seed })
}

/// Makes a network of two ports and returns the guest's.
fn connect(
    engine: &mut Engine,
    mtu: u16,
    queue_pairs: u16,
    tap: Tap,
) -> Result<PortId, EngineError> {
    let network = engine.add_network(NetworkSettings {
        name: "vhost-net".into(),
        mtu,
        mac_table_size: 8192,
        mac_aging: Duration::from_secs(300),
    });
    let port = |name: &str| PortSettings {
        name: name.into(),
        network: Some(network),
        vlan: VlanMode::Trunk { trunks: VlanSet::all() },
        cable: true,
        filter: Default::default(),
        mark: 0,
        hdr_len: HdrLen::Headers,
    };
    engine.add_port(port("tap"), Device::Tap(tap))?;
    let (guest, _) =
        engine.add_port(port("guest"), Device::Vhost(VhostDevice::new(queue_pairs)))?;
    Ok(guest)
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or("give an address as 192.0.2.1/24")?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address} is not an IP address"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse() {
        Ok(prefix) if prefix <= longest => Ok((address, prefix)),
        _ => Err(format!("the prefix length of {address} must be 0 to {longest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn addresses_need_a_prefix_that_fits() {
        assert_eq!(parse_cidr("10.0.0.1/24"), Ok((IpAddr::from([10, 0, 0, 1]), 24)));
        assert_eq!(parse_cidr("::1/128").unwrap().1, 128);
        for wrong in ["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "::1/129", "10.0.0.1/-1", "/", ""] {
            assert!(parse_cidr(wrong).is_err(), "{wrong}");
        }
    }
}
