//! The addresses that the guest behind a port has sent from. They decide which frames to an address
//! that is not learned may be for it.
//!
//! One address is the rule, and such a guest hears what is for that address. A guest that has shown
//! more may hold a bridge with stations that have not spoken yet: it hears all such frames. So does
//! one whose interface was given another address, but from then on it uses the new one alone. Once
//! all that a guest sent for the ageing time came from one address, it no longer hears all, only
//! what is for the last addresses that it has shown: one of them may have been silent for longer
//! than the MAC table remembers it.
//!
//! Addresses are noted where the MAC table is written, once a tick for each that is in use, and not
//! for each frame.

use trama_frame::MacAddr;

use crate::mac_table::MacTable;
use crate::time::Time;

/// Most addresses remembered of one port.
const MOST: usize = 8;

/// The addresses that a port was seen to send from.
#[derive(Default)]
pub(crate) struct Sources {
    /// The latest first. Places that are not in use hold zero, which no frame is sent from.
    latest: [MacAddr; MOST],
    /// When the guest last went from one address to another, while it counts as having several.
    changed: Option<Time>,
}

impl Sources {
    /// The guest sends from `mac`, which `table` has just learned or seen again.
    pub(crate) fn note(&mut self, mac: MacAddr, now: Time, table: &MacTable) {
        if mac == self.latest[0] {
            self.changed = self.changed.filter(|since| !table.is_beyond_age(*since, now));
            return;
        }
        if !self.are_none() {
            self.changed = Some(now);
        }
        let place = self.latest.iter().position(|known| *known == mac).unwrap_or(MOST - 1);
        self.latest[..=place].rotate_right(1);
        self.latest[0] = mac;
    }

    /// Whether it has sent nothing yet.
    pub(crate) fn are_none(&self) -> bool {
        self.latest[0].is_zero()
    }

    /// Whether it sends from more than one address.
    pub(crate) fn are_several(&self) -> bool {
        self.changed.is_some()
    }

    /// Whether this is one of the last addresses that it sent from.
    pub(crate) fn have(&self, mac: MacAddr) -> bool {
        !mac.is_zero() && self.latest.contains(&mac)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGE: u64 = 10;

    /// Notes that the numbered addresses send in these ticks.
    fn noted(seen: &[(u64, u64)]) -> Sources {
        let table = MacTable::new(16, MacTable::TICK * AGE as u32, 1);
        let mut sources = Sources::default();
        for (at, number) in seen {
            let now = Time(at * MacTable::TICK.as_nanos() as u64);
            sources.note(mac(*number), now, &table);
        }
        sources
    }

    fn mac(number: u64) -> MacAddr {
        MacAddr::from_u64(0x0200_0000_0000 + number)
    }

    #[test]
    fn one_address_is_one_however_often_it_is_seen() {
        let sources = noted(&[(0, 1), (1, 1), (50, 1)]);
        assert!(!sources.are_several() && sources.have(mac(1)) && !sources.have(mac(2)));
        assert!(Sources::default().are_none() && !sources.are_none());
        assert!(!sources.have(MacAddr::ZERO), "what is not in use");
    }

    #[test]
    fn two_that_speak_in_turn_are_several_for_as_long_as_they_do() {
        let sources = noted(&[(0, 1), (5, 2), (12, 1), (22, 2), (32, 1), (42, 1)]);
        assert!(sources.are_several());
        // Silence of all proves nothing.
        assert!(noted(&[(0, 1), (5, 2)]).are_several());
    }

    #[test]
    fn an_address_that_took_the_place_of_another_is_one_after_the_ageing_time() {
        assert!(noted(&[(0, 1), (5, 2), (5 + AGE, 2)]).are_several());
        let sources = noted(&[(0, 1), (5, 2), (6 + AGE, 2)]);
        assert!(!sources.are_several());
        assert!(sources.have(mac(1)) && sources.have(mac(2)), "each may be silent for long");
        assert!(noted(&[(0, 1), (5, 2), (6 + AGE, 2), (99, 1)]).are_several(), "again");
    }

    #[test]
    fn the_last_eight_are_remembered() {
        let all: Vec<(u64, u64)> = (1..=9).map(|number| (0, number)).collect();
        let sources = noted(&all);
        assert!(!sources.have(mac(1)) && (2..=9).all(|number| sources.have(mac(number))));
        // The second speaks again; the third is now the eldest.
        let sources = noted(&[&all[..], &[(0, 2), (0, 10)]].concat());
        assert!(sources.have(mac(2)) && !sources.have(mac(3)));
    }

    #[test]
    fn ageing_goes_by_the_table() {
        let table = MacTable::new(16, Duration::from_secs(300), 1);
        let mut sources = noted(&[(0, 1), (1, 2)]);
        sources.note(mac(2), Time(299_000_000_000), &table);
        assert!(sources.are_several());
    }
}
