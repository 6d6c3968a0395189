//! The last frame that was dropped for each reason at each port.
//!
//! A thread takes what the workers tell: one a second. It sleeps while no frame is dropped.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use trama_switch::news::{DropNotice, DropNotices};
use trama_switch::{DropReason, PortId};

use crate::events::Events;

/// Most frames that are kept; then all are forgotten.
const MOST: usize = 1 << 16;

/// A frame that was dropped.
#[derive(Clone, Debug)]
pub(crate) struct LastDrop {
    pub at: Instant,
    pub notice: DropNotice,
}

/// The last dropped frames.
#[derive(Clone, Default)]
pub(crate) struct LastDrops(Arc<Mutex<HashMap<(PortId, DropReason), LastDrop>>>);

impl LastDrops {
    /// Takes what the workers tell, until they have ended, and notes events of it.
    ///
    /// # Errors
    /// There are too many threads.
    pub(crate) fn start(notices: DropNotices, events: Arc<Events>) -> io::Result<LastDrops> {
        let drops = LastDrops::default();
        let own = drops.clone();
        let thread = std::thread::Builder::new().name("drops".into());
        thread.spawn(move || own.run(&notices, |notice| events.note_drop(notice)))?;
        Ok(drops)
    }

    fn run(&self, notices: &DropNotices, tell: impl Fn(&DropNotice)) {
        while let Some(notice) = notices.wait() {
            tell(&notice);
            self.keep(notice);
        }
    }

    fn keep(&self, notice: DropNotice) {
        let mut drops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if drops.len() >= MOST {
            drops.clear();
        }
        let key = (notice.port, notice.reason);
        drops.insert(key, LastDrop { at: Instant::now(), notice });
    }

    /// Returns the last frame of each reason, by port.
    pub(crate) fn by_port(&self) -> HashMap<PortId, Vec<LastDrop>> {
        let drops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_port: HashMap<PortId, Vec<LastDrop>> = HashMap::new();
        for ((port, _), drop) in drops.iter() {
            by_port.entry(*port).or_default().push(drop.clone());
        }
        by_port
    }

    /// Returns the last frame that was dropped at a port, for this reason or for any.
    pub(crate) fn of(&self, port: PortId, reason: Option<DropReason>) -> Option<LastDrop> {
        let drops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = |of: &DropReason| reason.is_none_or(|reason| reason == *of);
        let of_port = drops.iter().filter(|((at, of), _)| *at == port && is_asked(of));
        of_port.map(|(_, drop)| drop).max_by_key(|drop| drop.at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trama_switch::news::drop_notices;
    use trama_switch::{Device, Engine, PortSettings, Time};

    #[test]
    fn the_newest_of_a_reason_is_kept_and_the_thread_ends_with_the_workers() {
        let (teller, notices) = drop_notices();
        let mut engine = Engine::new(1);
        engine.set_drop_teller(teller);
        let (device, handle) = trama_switch::dummy(16);
        let settings = PortSettings {
            name: "p".into(),
            network: None,
            vlan: trama_switch::VlanMode::Access { tag: trama_frame::VlanId::NONE },
            cable: true,
            filter: Default::default(),
            mark: 0,
            hdr_len: Default::default(),
        };
        let (port, _) = engine.add_port(settings, Device::Dummy(device)).unwrap();
        handle.inject(Default::default(), &[7; 60]).unwrap();
        engine.poll(Time(1));
        drop(engine);
        let drops = LastDrops::default();
        drops.run(&notices, |_| {});
        let last = drops.of(port, None).unwrap().notice;
        assert_eq!((last.reason, last.head), (DropReason::NotAttached, vec![7; 60]));
        assert!(drops.of(port, Some(DropReason::Runt)).is_none());
    }
}
