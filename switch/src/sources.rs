//! The addresses from which the guest behind a port has sent. They decide whether an unknown
//! unicast frame may be for it.
//!
//! Most guests have one address and receive unknown unicast frames for that one. A guest with
//! several may contain a bridge with stations that have not sent yet, so it receives all such
//! frames. A guest whose interface got a new address also counts as having several at first. Once
//! all frames of a guest came from one address for the ageing time, it receives only frames for its
//! last addresses again: one of them may have been silent for longer than the MAC table remembers
//! it.
//!
//! Addresses are recorded when the MAC table is written, once per tick for each address in use, not
//! for each frame.

use trama_frame::MacAddr;

use crate::mac_table::MacTable;
use crate::time::Time;

/// Most addresses remembered per port.
const MAX_SOURCES: usize = 8;

/// The addresses seen as a source on a port.
#[derive(Default)]
pub(crate) struct Sources {
    /// Latest first. Unused places hold zero, which is never a source.
    latest: [MacAddr; MAX_SOURCES],
    /// When the guest last changed its address, while it counts as having several.
    changed: Option<Time>,
}

impl Sources {
    /// Records that the guest sends from `mac`, which `table` has just learned or seen again.
    pub(crate) fn record(&mut self, mac: MacAddr, now: Time, table: &MacTable) {
        if mac == self.latest[0] {
            self.changed = self.changed.filter(|since| !table.is_beyond_age(*since, now));
            return;
        }
        if !self.is_empty() {
            self.changed = Some(now);
        }
        let place = self.latest.iter().position(|known| *known == mac).unwrap_or(MAX_SOURCES - 1);
        self.latest[..=place].rotate_right(1);
        self.latest[0] = mac;
    }

    /// Returns whether the guest has sent nothing yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.latest[0].is_zero()
    }

    /// Returns whether the guest sends from more than one address.
    pub(crate) fn has_several(&self) -> bool {
        self.changed.is_some()
    }

    /// Returns whether `mac` is one of the guest's last source addresses.
    pub(crate) fn contains(&self, mac: MacAddr) -> bool {
        !mac.is_zero() && self.latest.contains(&mac)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGE: u64 = 10;

    /// Builds the sources after the numbered addresses sent in these ticks.
    fn noted(seen: &[(u64, u64)]) -> Sources {
        let table = MacTable::new(16, MacTable::TICK * AGE as u32, 1);
        let mut sources = Sources::default();
        for (at, number) in seen {
            let now = Time(at * MacTable::TICK.as_nanos() as u64);
            sources.record(mac(*number), now, &table);
        }
        sources
    }

    fn mac(number: u64) -> MacAddr {
        MacAddr::from_u64(0x0200_0000_0000 + number)
    }

    #[test]
    fn one_address_is_one_however_often_it_is_seen() {
        let sources = noted(&[(0, 1), (1, 1), (50, 1)]);
        assert!(!sources.has_several() && sources.contains(mac(1)) && !sources.contains(mac(2)));
        assert!(Sources::default().is_empty() && !sources.is_empty());
        assert!(!sources.contains(MacAddr::ZERO), "what is not in use");
    }

    #[test]
    fn two_alternating_addresses_count_as_several() {
        let sources = noted(&[(0, 1), (5, 2), (12, 1), (22, 2), (32, 1), (42, 1)]);
        assert!(sources.has_several());
        // Silence of all addresses proves nothing.
        assert!(noted(&[(0, 1), (5, 2)]).has_several());
    }

    #[test]
    fn a_replaced_address_stops_counting_after_the_ageing_time() {
        assert!(noted(&[(0, 1), (5, 2), (5 + AGE, 2)]).has_several());
        let sources = noted(&[(0, 1), (5, 2), (6 + AGE, 2)]);
        assert!(!sources.has_several());
        assert!(
            sources.contains(mac(1)) && sources.contains(mac(2)),
            "each may be silent for long"
        );
        assert!(noted(&[(0, 1), (5, 2), (6 + AGE, 2), (99, 1)]).has_several(), "again");
    }

    #[test]
    fn the_last_eight_are_remembered() {
        let all: Vec<(u64, u64)> = (1..=9).map(|number| (0, number)).collect();
        let sources = noted(&all);
        assert!(!sources.contains(mac(1)) && (2..=9).all(|number| sources.contains(mac(number))));
        // The second sends again; the third is now the oldest.
        let sources = noted(&[&all[..], &[(0, 2), (0, 10)]].concat());
        assert!(sources.contains(mac(2)) && !sources.contains(mac(3)));
    }

    #[test]
    fn ageing_goes_by_the_table() {
        let table = MacTable::new(16, Duration::from_secs(300), 1);
        let mut sources = noted(&[(0, 1), (1, 2)]);
        sources.record(mac(2), Time(299_000_000_000), &table);
        assert!(sources.has_several());
    }
}
