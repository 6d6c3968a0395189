//! Looks at a table without writing to it.

use std::time::Duration;

use trama_frame::{MacAddr, VlanId};

use super::{Address, Learned, MacTable, PortIndex, tick};
use crate::time::Time;

impl MacTable {
    /// Returns the time since an address was last seen; `None` if it is not known, or static.
    pub(crate) fn age(&self, vlan: VlanId, mac: MacAddr, now: Time) -> Option<Duration> {
        let value = self.value(self.find(self.address(vlan, mac))?);
        let age = Self::TICK * tick(now).saturating_sub(value.tick());
        (!value.is_static() && self.is_live(value, tick(now))).then_some(age)
    }

    /// Returns what [`MacTable::learn_at`] would; `Refreshed` or `New` for whatever it would write.
    pub(crate) fn would_learn(&self, address: Address, port: PortIndex) -> Learned {
        match self.find(address).map(|slot| self.value(slot)) {
            Some(value) if !value.is_static() => Learned::Refreshed,
            Some(value) if value.port() == port => Learned::Known,
            Some(_) => Learned::Foreign,
            None if address.is_station() => Learned::New,
            None => Learned::Ignored,
        }
    }
}
