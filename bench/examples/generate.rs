//! The traffic generator as a program: puts one load on a switch, or runs the null device in place
//! of a switch.
//!
//! ```sh
//! generate null-device --sockets a.sock,b.sock &
//! generate load --sockets a.sock,b.sock --size 64 --direction both --seconds 2
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trama_bench::generator::{
    Direction, Error, Forwarding, Goal, Group, Limits, Load, NullDevice, NullDeviceOptions,
    Options, Outcome, Result, Serving, pin_to, search,
};
use trama_vhost_net_backend::Role;

/// Generates traffic for a vhost-user switch
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate one load and print the result
    Load(LoadArguments),
    /// Search for the highest rates without loss and with 0.5 % loss
    Search(LoadArguments),
    /// Copy frames between pairs of sockets until terminated
    NullDevice {
        /// Sockets to serve; each consecutive pair is connected
        #[arg(long, value_delimiter = ',', required = true)]
        sockets: Vec<PathBuf>,
        /// Connect to the frontends instead of listening
        #[arg(long)]
        client: bool,
        /// CPU core to run on
        #[arg(long, default_value_t = 0)]
        core: usize,
        /// Serve each ring as soon as it has frames: lower latency, lower throughput
        #[arg(long)]
        immediate: bool,
    },
}

#[derive(Args)]
struct LoadArguments {
    /// Sockets of the switch's ports
    #[arg(long, value_delimiter = ',', required = true)]
    sockets: Vec<PathBuf>,
    /// Listen on the sockets and let the switch connect
    #[arg(long)]
    server: bool,
    /// Frame size in bytes, without the frame check sequence
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Traffic pattern: which ports send to which
    #[arg(long, value_enum, default_value = "both")]
    direction: DirectionName,
    /// Offered load in frames per second, all ports together (default: as fast as possible)
    #[arg(long)]
    rate: Option<f64>,
    /// Duration in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// VLAN of each port's frames, 0 for untagged
    #[arg(long, value_delimiter = ',')]
    vlans: Vec<u16>,
    /// Source MAC addresses per port
    #[arg(long, default_value_t = 1)]
    sources: u32,
    /// Destination MAC addresses per port
    #[arg(long, default_value_t = 1)]
    destinations: u32,
    /// Use the same source addresses on all ports
    #[arg(long)]
    moving: bool,
    /// Send large TCP segments with this payload per segment (GSO size)
    #[arg(long)]
    gso: Option<u16>,
    /// Entries per ring
    #[arg(long, default_value_t = 1024)]
    queue_size: u16,
    /// Wait for the device's calls instead of polling
    #[arg(long)]
    sleeping: bool,
    /// CPU core to run on
    #[arg(long, default_value_t = 1)]
    core: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum DirectionName {
    Uni,
    Both,
    Mesh,
    FanIn,
    FanOut,
    Flood,
}

impl LoadArguments {
    fn load(&self) -> Load {
        let direction = match self.direction {
            DirectionName::Uni => Direction::Uni,
            DirectionName::Both => Direction::Both,
            DirectionName::Mesh => Direction::Mesh,
            DirectionName::FanIn => Direction::FanIn,
            DirectionName::FanOut => Direction::FanOut,
            DirectionName::Flood => Direction::Flood,
        };
        Load {
            rate: self.rate,
            duration: Duration::from_secs_f64(self.seconds),
            vlans: self.vlans.iter().map(|vlan| Some(*vlan).filter(|id| *id != 0)).collect(),
            sources: self.sources,
            destinations: self.destinations,
            moving: self.moving,
            gso: self.gso,
            ..Load::new(self.size, direction)
        }
    }

    fn connect(&self, load: &Load) -> Result<Group> {
        pin_to(self.core)?;
        let options = Options {
            queue_size: self.queue_size,
            largest_frame: self.size.max(1522),
            offloads: self.gso.is_some(),
            backend_role: if self.server { Role::Client } else { Role::Server },
            sleeping: self.sleeping,
            ..Options::default()
        };
        let mut group = Group::connect(&self.sockets, options)?;
        group.learn(load)?;
        Ok(group)
    }
}

fn print(outcome: &Outcome) {
    println!(
        "{:.3} Mpps for {:.3} s: {} offered, {} sent, {} received, {} lost ({:.4} %)",
        outcome.rate() / 1e6,
        outcome.seconds,
        outcome.offered,
        outcome.sent,
        outcome.received,
        outcome.lost,
        100.0 * outcome.loss_ratio(),
    );
    println!(
        "{} duplicates, {} reordered, {} strays, {} sent late",
        outcome.duplicates, outcome.reordered, outcome.strays, outcome.late
    );
    for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
        if let Some(nanos) = outcome.latency(percentile) {
            println!("latency p{percentile}: {:.1} us", nanos as f64 / 1e3);
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Load(arguments) => {
            let load = arguments.load();
            print(&arguments.connect(&load)?.run(&load)?);
        }
        Command::Search(arguments) => {
            let load = arguments.load();
            let mut group = arguments.connect(&load)?;
            let most = group.run(&Load { rate: None, ..load.clone() })?;
            let limits = Limits { min: 1000.0, max: 1.2 * most.rate() };
            let goals = [Goal::new(0.0), Goal::new(0.005)];
            let results = search(&goals, limits, |rate, duration| {
                let outcome = group.run(&Load { rate: Some(rate), duration, ..load.clone() })?;
                eprintln!(
                    "{:.3} Mpps, {duration:?}: {:.4} % lost",
                    rate / 1e6,
                    100.0 * outcome.loss_ratio()
                );
                Ok::<_, Error>(outcome.loss_ratio())
            })?;
            println!("at most {:.3} Mpps", most.rate() / 1e6);
            for (goal, result) in goals.iter().zip(results) {
                println!("loss ratio {}: {result:?}", goal.loss_ratio);
            }
        }
        Command::NullDevice { sockets, client, core, immediate } => {
            let role = if *client { Role::Client } else { Role::Server };
            let serving = if *immediate { Serving::Immediate } else { Serving::Batched };
            let pairs = NullDeviceOptions::new(Forwarding::Pairs);
            let options = NullDeviceOptions { role, core: Some(*core), serving, ..pairs };
            let _device = NullDevice::start(sockets, options)?;
            println!("ready");
            loop {
                std::thread::park();
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}
