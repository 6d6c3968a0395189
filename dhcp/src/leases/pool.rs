//! The leasable addresses of a subnet, and which of them are fresh: no binding remembers them.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use super::Address;
use super::bitset::BitSet;

/// A run of leasable addresses and the index of its first.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Run {
    first: u128,
    last: u128,
    base: usize,
}

/// The leasable addresses of a subnet, numbered from zero over all its ranges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pool<A> {
    runs: Vec<Run>,
    leasable: BitSet,
    fresh: BitSet,
    total: usize,
    version: PhantomData<A>,
}

impl<A: Address> Pool<A> {
    /// The addresses of `ranges`, which do not overlap, without those in `except`.
    pub(crate) fn new(ranges: &[RangeInclusive<A>], except: &[A]) -> Pool<A> {
        let (mut runs, mut total) = (Vec::new(), 0);
        for range in ranges {
            let (first, last) = (range.start().number(), range.end().number());
            runs.push(Run { first, last, base: total });
            total += (last - first) as usize + 1;
        }
        let mut leasable = BitSet::new(total);
        (0..total).for_each(|index| leasable.insert(index));
        let mut pool =
            Pool { runs, fresh: leasable.clone(), leasable, total, version: PhantomData };
        for address in except {
            if let Some(index) = pool.index(*address) {
                pool.leasable.remove(index);
                pool.fresh.remove(index);
            }
        }
        pool
    }

    /// How many addresses may be leased.
    pub(crate) fn size(&self) -> usize {
        self.leasable.count()
    }

    /// How many addresses are fresh: leasable, and no binding remembers them.
    #[cfg(test)]
    pub(crate) fn fresh(&self) -> usize {
        self.fresh.count()
    }

    /// Whether the address may be leased to any client.
    pub(crate) fn contains(&self, address: A) -> bool {
        self.index(address).is_some_and(|index| self.leasable.contains(index))
    }

    /// Whether the address is fresh.
    pub(crate) fn is_fresh(&self, address: A) -> bool {
        self.index(address).is_some_and(|index| self.fresh.contains(index))
    }

    /// Returns the fresh address at or after the place that `hash` picks, and goes on from the
    /// start after the end. A client gets the same one as long as it is fresh.
    pub(crate) fn pick(&self, hash: u64) -> Option<A> {
        let start = hash.checked_rem(self.total as u64)? as usize;
        let index = self.fresh.next(start).or_else(|| self.fresh.next(0))?;
        self.address(index)
    }

    /// Lets an address of the ranges be leased, or not. It has no binding.
    pub(crate) fn set_leasable(&mut self, address: A, is_leasable: bool) {
        let Some(index) = self.index(address) else { return };
        for set in [&mut self.leasable, &mut self.fresh] {
            if is_leasable { set.insert(index) } else { set.remove(index) }
        }
    }

    /// Marks an address as used. Ignores addresses that are not leasable.
    pub(crate) fn claim(&mut self, address: A) {
        if let Some(index) = self.index(address) {
            self.fresh.remove(index);
        }
    }

    /// Marks an address as fresh again. Ignores addresses that are not leasable.
    pub(crate) fn release(&mut self, address: A) {
        if let Some(index) = self.index(address).filter(|index| self.leasable.contains(*index)) {
            self.fresh.insert(index);
        }
    }

    fn index(&self, address: A) -> Option<usize> {
        let bits = address.number();
        let run = self.runs.iter().find(|run| (run.first..=run.last).contains(&bits))?;
        Some(run.base + (bits - run.first) as usize)
    }

    fn address(&self, index: usize) -> Option<A> {
        let run = self.runs.iter().rev().find(|run| run.base <= index)?;
        Some(A::from_number(run.first + (index - run.base) as u128))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing::ip;

    #[test]
    fn every_leasable_address_is_picked_once() {
        let ranges = [ip("10.0.2.250")..=ip("10.0.3.5"), ip("10.0.2.10")..=ip("10.0.2.19")];
        let except = [ip("10.0.3.0"), ip("10.0.2.10"), ip("10.0.2.9")];
        let mut pool = Pool::new(&ranges, &except);
        assert_eq!((pool.size(), pool.fresh()), (20, 20));
        let mut picked = Vec::new();
        while let Some(address) = pool.pick(1_000_003 * picked.len() as u64) {
            assert!(pool.is_fresh(address) && pool.contains(address));
            pool.claim(address);
            assert!(!pool.is_fresh(address) && pool.contains(address));
            picked.push(address);
        }
        picked.sort();
        let mut expected: Vec<Ipv4Addr> = (11..20).map(|n| Ipv4Addr::new(10, 0, 2, n)).collect();
        expected.extend((250..=255).map(|n| Ipv4Addr::new(10, 0, 2, n)));
        expected.extend((1..=5).map(|n| Ipv4Addr::new(10, 0, 3, n)));
        assert_eq!(picked, expected);
        pool.release(ip("10.0.3.0"));
        assert_eq!(pool.fresh(), 0);
        pool.release(ip("10.0.3.5"));
        assert_eq!(pool.pick(0), Some(ip("10.0.3.5")));
    }

    #[test]
    fn an_empty_pool_has_nothing() {
        assert_eq!(Pool::<Ipv4Addr>::new(&[], &[]).pick(3), None);
    }
}
