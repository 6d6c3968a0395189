//! The ports that events are about: by number as the workers know them, by mark as gateways do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;
use trama_switch::counters::{Lasting, PortCounters};
use trama_switch::{DropReason, PortId};

use crate::config::derived::running::written_name;

/// A port that runs, or has run.
pub(crate) struct Known {
    /// Its name.
    pub(super) name: SmolStr,
    /// Its network, as it is written.
    pub(super) network: Option<SmolStr>,
    /// Its mark; 0 for none.
    mark: u16,
    counters: Lasting<PortCounters>,
    /// Drops by reason, as far as events have told of them.
    told: Arc<Mutex<[u64; DropReason::COUNT]>>,
}

impl Known {
    /// Describes a port, of whose drops until now no event tells.
    pub(crate) fn new(
        (name, network): (&str, Option<&str>),
        mark: u16,
        counters: Lasting<PortCounters>,
    ) -> Known {
        let told = Arc::new(Mutex::new(counters.snapshot().drops));
        let network = network.map(|network| written_name(network).into());
        Known { name: name.into(), network, mark, counters, told }
    }

    /// Returns how many frames were dropped for a reason since the last call.
    pub(super) fn take_drops(&self, reason: DropReason) -> u64 {
        let now = self.counters.drops[reason as usize].get();
        let told = &mut lock(&self.told)[reason as usize];
        now.saturating_sub(std::mem::replace(told, now))
    }
}

/// The ports that run.
#[derive(Default)]
pub(super) struct Ports(Mutex<Maps>);

#[derive(Default)]
struct Maps {
    by_id: HashMap<PortId, Arc<Known>>,
    by_mark: HashMap<u64, PortId>,
}

impl Ports {
    /// Adds a port, or changes what is known of it.
    pub(super) fn set(&self, id: PortId, mut port: Known) {
        let mut maps = lock(&self.0);
        if let Some(before) = maps.by_id.get(&id) {
            port.told = before.told.clone();
        }
        if port.mark != 0 {
            maps.by_mark.insert(port.mark.into(), id);
        }
        maps.by_id.insert(id, Arc::new(port));
    }

    pub(super) fn forget(&self, id: PortId) {
        let Maps { by_id, by_mark } = &mut *lock(&self.0);
        let Some(port) = by_id.remove(&id) else { return };
        let mark = u64::from(port.mark);
        if by_mark.get(&mark) == Some(&id) {
            by_mark.remove(&mark);
        }
    }

    pub(super) fn get(&self, id: PortId) -> Option<Arc<Known>> {
        lock(&self.0).by_id.get(&id).cloned()
    }

    /// Returns the name of the port of a network with this mark.
    pub(super) fn name(&self, network: &str, mark: u64) -> Option<SmolStr> {
        let maps = lock(&self.0);
        let port = maps.by_id.get(maps.by_mark.get(&mark)?)?;
        (port.network.as_deref() == Some(network)).then(|| port.name.clone())
    }

    /// Counts no drop until now for the next events.
    pub(super) fn skip_drops(&self) {
        for port in lock(&self.0).by_id.values() {
            *lock(&port.told) = port.counters.snapshot().drops;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
