//! A switch with dummy ports on one network, on the caller's thread and clock.

use trama_frame::Offloads;
use trama_switch::{DropReason, Engine, NetworkId, PortSettings, Time, VlanMode};

use crate::{Station, network, port, trunk};

/// A network with a station on each port.
pub struct Lab {
    /// The switch.
    pub engine: Engine,
    /// Its only network.
    pub network: NetworkId,
    /// The stations, in the order of their ports.
    pub stations: Vec<Station>,
    /// The time of its next round, in nanoseconds.
    pub clock: u64,
}

impl Lab {
    /// Makes one with a port of each mode.
    pub fn new(modes: &[VlanMode]) -> Lab {
        let mut engine = Engine::new(7);
        let network = network(&mut engine, 1500);
        let add =
            |mode: &VlanMode| Station::add(&mut engine, port(network, mode.clone()), Offloads::ALL);
        let stations = modes.iter().map(add).collect();
        Lab { engine, network, stations, clock: 0 }
    }

    /// Moves frames until none waits.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            self.clock += 1_000_000;
            if !self.engine.poll(Time(self.clock)) {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }

    /// Sends one frame; returns the frames that each station received.
    pub fn send(&mut self, from: usize, bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.stations[from].send(bytes);
        self.settle();
        self.stations.iter().map(Station::frames).collect()
    }

    /// Returns how many frames were dropped at a port for a reason.
    pub fn dropped(&self, port: usize, reason: DropReason) -> u64 {
        self.stations[port].counters.snapshot().dropped(reason)
    }

    /// Changes a port; `change` begins with the settings of a trunk.
    pub fn set(&mut self, port: usize, change: impl FnOnce(&mut PortSettings)) {
        let mut settings = crate::port(self.network, trunk());
        change(&mut settings);
        self.engine.set_port(self.stations[port].id, settings).unwrap();
    }
}
