//! What a burst asks of a MAC table: the network's own, or one that is only looked at.

use trama_frame::{MacAddr, VlanId};

use crate::mac_table::{Address, Learned, MacTable, PortIndex};
use crate::sources::Sources;
use crate::time::Time;

/// Where the sources of a burst are learned and its destinations looked up; as of [`MacTable`].
pub(crate) trait Addresses {
    fn address(&self, vlan: VlanId, mac: MacAddr) -> Address;
    fn is_large(&self) -> bool;
    fn prefetch_second(&self, address: Address);
    fn learn_at(&mut self, address: Address, port: PortIndex, now: Time) -> Learned;
    fn lookup_at(&self, address: Address, now: Time) -> Option<PortIndex>;
    /// Records a source that was just learned or seen again.
    fn record(&self, sources: &mut Sources, mac: MacAddr, now: Time);
}

impl Addresses for MacTable {
    #[inline(always)]
    fn address(&self, vlan: VlanId, mac: MacAddr) -> Address {
        self.address(vlan, mac)
    }

    #[inline(always)]
    fn is_large(&self) -> bool {
        self.is_large()
    }

    #[inline(always)]
    fn prefetch_second(&self, address: Address) {
        self.prefetch_second(address);
    }

    #[inline(always)]
    fn learn_at(&mut self, address: Address, port: PortIndex, now: Time) -> Learned {
        self.learn_at(address, port, now)
    }

    #[inline(always)]
    fn lookup_at(&self, address: Address, now: Time) -> Option<PortIndex> {
        self.lookup_at(address, now)
    }

    #[inline]
    fn record(&self, sources: &mut Sources, mac: MacAddr, now: Time) {
        sources.record(mac, now, self);
    }
}
