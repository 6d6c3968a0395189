//! Loads for a group of ports, and their results.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Error, Result};

/// The target of a frame that every other port should receive.
pub(super) const FLOOD: u16 = 0xffff;

/// The traffic pattern. Ports are numbered in the order of their sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Each even port to the odd one after it.
    Uni,
    /// Each even port and the odd one after it to each other.
    Both,
    /// Every port to every other, in turn.
    Mesh,
    /// All others to port 0.
    FanIn,
    /// Port 0 to all others, in turn.
    FanOut,
    /// Every port to an unknown address: each frame should reach all other ports.
    Flood,
}

/// The load on a switch.
#[derive(Clone, Debug)]
pub struct Load {
    /// Size of a frame as sent, in bytes: with its tag, if any, without the frame check sequence,
    /// which a ring does not carry. At least 60, or 64 with a tag.
    pub size: usize,
    /// Frame size of each port; ports beyond the list send frames of `size`.
    pub sizes: Vec<usize>,
    /// The traffic pattern.
    pub direction: Direction,
    /// Offered load in frames a second, all senders together, on an open-loop schedule; `None`: as
    /// fast as the rings take them.
    pub rate: Option<f64>,
    /// How long to send.
    pub duration: Duration,
    /// The VLAN whose tag the frames of each port carry; ports beyond the list send untagged.
    pub vlans: Vec<Option<u16>>,
    /// Stations (source addresses) of each port, which take turns.
    pub sources: u32,
    /// Stations of each port that are destinations, in turn.
    pub destinations: u32,
    /// All ports send from the same source addresses, which therefore move all the time.
    pub moving: bool,
    /// Payload per segment of the large TCP segments to send. All ports must be connected with
    /// `offloads`.
    pub gso: Option<u16>,
}

impl Load {
    /// Returns a load of frames of `size` bytes for one second, known unicast with one station per
    /// port.
    pub fn new(size: usize, direction: Direction) -> Load {
        Load {
            size,
            sizes: Vec::new(),
            direction,
            rate: None,
            duration: Duration::from_secs(1),
            vlans: Vec::new(),
            sources: 1,
            destinations: 1,
            moving: false,
            gso: None,
        }
    }

    /// Returns the size of a port's frames.
    pub(super) fn size(&self, port: usize) -> usize {
        self.sizes.get(port).copied().unwrap_or(self.size)
    }

    /// Returns the size of the largest frame of any port.
    pub fn largest(&self) -> usize {
        self.sizes.iter().copied().fold(self.size, usize::max)
    }

    /// Returns the VLAN tag of a port's frames.
    pub(super) fn vlan(&self, port: usize) -> Option<u16> {
        self.vlans.get(port).copied().flatten()
    }

    /// Returns the senders among `ports`, each with its targets.
    pub(super) fn routes(&self, ports: usize) -> Result<Vec<(usize, Vec<u16>)>> {
        let wrong = match self.direction {
            _ if ports < 2 => "it needs at least two ports",
            Direction::Uni | Direction::Both if ports % 2 == 1 => {
                "ports are paired; one is left over"
            }
            _ if self.rate.is_some_and(|rate| !(1.0..=1e9).contains(&rate)) => {
                "the rate is not from 1 to 1,000,000,000 frames a second"
            }
            _ if self.duration > Duration::from_secs(3600) => "it lasts more than an hour",
            _ if self.sources.min(self.destinations) == 0 => "a port needs at least one station",
            _ if self.sources.max(self.destinations) > 1 << 24 => {
                "a port has at most 2^24 stations"
            }
            _ => return Ok(self.direction.routes(ports)),
        };
        Err(Error::Load(wrong.into()))
    }
}

impl Direction {
    fn routes(self, ports: usize) -> Vec<(usize, Vec<u16>)> {
        let all = || 0..ports;
        let others = |port| all().filter(move |to| *to != port).map(|to| to as u16).collect();
        match self {
            Direction::Uni => all().step_by(2).map(|port| (port, vec![port as u16 + 1])).collect(),
            Direction::Both => all().map(|port| (port, vec![port as u16 ^ 1])).collect(),
            Direction::Mesh => all().map(|port| (port, others(port))).collect(),
            Direction::FanIn => all().skip(1).map(|port| (port, vec![0])).collect(),
            Direction::FanOut => vec![(0, others(0))],
            Direction::Flood => all().map(|port| (port, vec![FLOOD])).collect(),
        }
    }
}

/// The result of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Frames offered: those scheduled or, without a schedule, those that the rings took.
    pub offered: u64,
    /// Frames that the rings took.
    pub sent: u64,
    /// Frames that should have arrived: those offered, each times its number of receivers.
    pub expected: u64,
    /// Frames that arrived where they should, each counted once.
    pub received: u64,
    /// Frames that did not arrive, including those that found no room in time.
    pub lost: u64,
    /// Frames received again (or more than 1024 behind the newest, where this cannot be told).
    pub duplicates: u64,
    /// Frames that arrived after a later one of the same stream; they count as received, too.
    /// Frames of different stations may overtake each other: Open vSwitch sorts each burst by flow.
    pub reordered: u64,
    /// Frames at ports other than their target: flooded although the address is known.
    pub strays: u64,
    /// Frames sent more than 10 µs after their time. Latency includes the delay.
    pub late: u64,
    /// Seconds for which a polling generator was descheduled, in pauses of 0.1 ms and more.
    pub paused: f64,
    /// Seconds from the first frame's time to the last arrival, at least the sending time.
    pub seconds: f64,
    /// Nanoseconds from scheduled time to arrival; `None` without a schedule.
    pub latency: Option<Histogram<u64>>,
    /// The 99th percentile of each window of 10 ms, in nanoseconds, ascending; windows with fewer
    /// than 100 arrivals are left out.
    pub window_p99: Vec<u64>,
}

impl Outcome {
    /// Returns the frames received a second.
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.seconds
    }

    /// Returns the fraction of the expected frames that was lost.
    pub fn loss_ratio(&self) -> f64 {
        self.lost as f64 / self.expected.max(1) as f64
    }

    /// Returns a percentile (0 to 100) of latency in nanoseconds; 100 is the maximum. Lost frames
    /// do not count.
    pub fn latency(&self, percentile: f64) -> Option<u64> {
        self.latency.as_ref().map(|histogram| histogram.value_at_percentile(percentile))
    }

    /// Returns the 99th percentile of the median window of 10 ms, in nanoseconds: a pause of the
    /// machine affects only the windows that it touches.
    pub fn median_window_p99(&self) -> Option<u64> {
        self.window_p99.get(self.window_p99.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(direction: Direction, ports: usize) -> Vec<(usize, Vec<u16>)> {
        Load::new(60, direction).routes(ports).unwrap()
    }

    #[test]
    fn directions_name_senders_and_targets() {
        assert_eq!(routes(Direction::Uni, 4), [(0, vec![1]), (2, vec![3])]);
        let both = [(0, vec![1]), (1, vec![0]), (2, vec![3]), (3, vec![2])];
        assert_eq!(routes(Direction::Both, 4), both);
        assert_eq!(routes(Direction::Mesh, 3), [(0, vec![1, 2]), (1, vec![0, 2]), (2, vec![0, 1])]);
        assert_eq!(routes(Direction::FanIn, 3), [(1, vec![0]), (2, vec![0])]);
        assert_eq!(routes(Direction::FanOut, 3), [(0, vec![1, 2])]);
        assert_eq!(routes(Direction::Flood, 2), [(0, vec![FLOOD]), (1, vec![FLOOD])]);
    }

    #[test]
    fn loads_that_make_no_sense_are_refused() {
        let load = Load::new(60, Direction::Both);
        let refused = |load: &Load, ports, reason: &str| {
            let error = load.routes(ports).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        refused(&load, 1, "two ports");
        refused(&load, 3, "left over");
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused(&Load { rate: Some(rate), ..load.clone() }, 2, "the rate");
        }
        refused(&Load { sources: 0, ..load.clone() }, 2, "one station");
        refused(&Load { destinations: (1 << 24) + 1, ..load.clone() }, 2, "2^24");
        refused(&Load { duration: Duration::MAX, ..load.clone() }, 2, "an hour");
    }
}
