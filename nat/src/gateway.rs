//! The engine: a frame in, what follows from it out.
//!
//! 1. A frame that is for another station, or is no frame, is refused at once.
//! 2. ARP and neighbour discovery are answered for the gateway's own addresses (`neighbour`).
//! 3. IP packets for the gateway are checked and handed to ICMP and to the UDP services (`ip`).
//!
//! The gateway keeps no table of neighbours: an answer goes to the station that asked. One frame
//! in is at most one frame out, but for what a service sends by the clock; so nobody gets more
//! out of the gateway than he puts in.

use std::time::Duration;

use smoltcp::wire::{EthernetFrame, EthernetProtocol};
use trama_frame::MacAddr;

use crate::config::Config;
use crate::drop_reason::{Counters, DropReason};
use crate::{ip, neighbour};

/// Who sent a frame, for limits: whatever tells one sender from another and is hard to change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u64);

/// What the engine wants done; collects over as many calls as the caller likes.
#[derive(Default, Debug)]
pub struct Output {
    /// Frames for the switch.
    pub frames: Vec<Vec<u8>>,
}

/// A gateway's engine.
pub struct Gateway {
    pub(crate) config: Config,
    counters: Counters,
}

impl Gateway {
    /// A gateway with these settings.
    pub fn new(config: Config) -> Gateway {
        Gateway { config, counters: Counters::default() }
    }

    /// Changes the settings and keeps what is under way.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a drop that the caller had to make.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.counters.drop(reason);
    }

    /// Takes one frame, from its destination address on, that came from `port`.
    pub fn handle(&mut self, now: Duration, port: PortId, frame: &[u8], out: &mut Output) {
        let before = out.frames.len();
        self.counters.received += 1;
        if let Err(reason) = self.receive(now, port, frame, out) {
            self.counters.drop(reason);
        }
        self.counters.sent += (out.frames.len() - before) as u64;
    }

    fn receive(
        &mut self,
        _now: Duration,
        _port: PortId,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let frame = EthernetFrame::new_checked(bytes).map_err(|_| DropReason::BadEthernet)?;
        let (from, to) = (MacAddr(frame.src_addr().0), MacAddr(frame.dst_addr().0));
        if from.is_multicast() || from.is_zero() || from == self.config.mac() {
            return Err(DropReason::BadEthernet);
        }
        if to != self.config.mac() && !to.is_multicast() {
            return Err(DropReason::OtherStation);
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => {
                out.frames.push(neighbour::arp(&self.config, from, frame.payload())?);
            }
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => {
                let packet = ip::parse(&self.config, from, to, &frame)?;
                out.frames.push(ip::answer(&self.config, &packet)?);
            }
            EthernetProtocol::Unknown(_) => return Err(DropReason::UnknownEthertype),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
