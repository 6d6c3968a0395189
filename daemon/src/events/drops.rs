//! Dropped frames: those of one reason at one port in a second are one event.
//!
//! A worker tells of the first frame of each second, with its head; the counters say how many there
//! were. After an event the counter is looked at once more a second later, so that no drop is left
//! out: notices may find no room. Without drops the thread sleeps.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use trama_api::event::{Facts, Kind, bounded};
use trama_frame::{MacAddr, ethernet};
use trama_switch::news::DropNotice;
use trama_switch::{DropReason, PortId};

use super::Events;
use super::ports::Known;

/// Time over which drops are gathered: that of the workers' notices.
const SECOND: Duration = Duration::from_secs(1);

/// Drops of one reason at one port that are gathered.
struct Gathered {
    port: Arc<Known>,
    /// The first frame; `None` in the second after it.
    first: Option<DropNotice>,
    due: Instant,
}

/// Starts the thread, which ends with the events.
pub(super) fn start(notices: Receiver<DropNotice>, events: Weak<Events>) -> io::Result<()> {
    let run = move || run(&notices, &events);
    std::thread::Builder::new().name("events".into()).spawn(run).map(drop)
}

fn run(notices: &Receiver<DropNotice>, events: &Weak<Events>) {
    let mut gathered: HashMap<(PortId, DropReason), Gathered> = HashMap::new();
    loop {
        let notice = match gathered.values().map(|it| it.due).min() {
            None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => notices.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let Some(events) = events.upgrade() else { return };
        match notice {
            Ok(notice) => take(&mut gathered, &events, notice),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        gathered.retain(|(_, reason), drops| drops.due > now || drops.tell(*reason, &events));
    }
}

fn take(
    gathered: &mut HashMap<(PortId, DropReason), Gathered>,
    events: &Events,
    notice: DropNotice,
) {
    let key = (notice.port, notice.reason);
    if let Some(drops) = gathered.get_mut(&key) {
        drops.first.get_or_insert(notice);
    } else if let Some(port) = events.ports.get(notice.port) {
        let due = Instant::now() + SECOND;
        gathered.insert(key, Gathered { port, first: Some(notice), due });
    }
}

impl Gathered {
    /// Adds the event of the last second. Returns whether another one may follow.
    fn tell(&mut self, reason: DropReason, events: &Events) -> bool {
        let count = self.port.take_drops(reason);
        let first = self.first.take();
        if count == 0 {
            return false;
        }
        let facts = Facts {
            network: self.port.network.clone(),
            port: Some(self.port.name.clone()),
            verdict: Some("dropped".into()),
            reason: Some(reason.name().into()),
            count: Some(count),
            ..first.map(|notice| head(&notice)).unwrap_or_default()
        };
        events.add(Kind::Drop, facts);
        self.due += SECOND;
        true
    }
}

/// What the first bytes of a frame say.
fn head(notice: &DropNotice) -> Facts {
    let Some(header) = ethernet::parse(&notice.head) else {
        let detail = format!("{} bytes, which end within the header", notice.len);
        return Facts { detail: Some(bounded(&detail)), ..Facts::default() };
    };
    let vlan = header.tag.map(|tag| format!("VLAN {}, ", tag.vid().get())).unwrap_or_default();
    let to = match header.dst {
        MacAddr([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => "broadcast".to_owned(),
        mac => mac.to_string(),
    };
    Facts {
        mac: Some(bounded(&header.src.to_string())),
        detail: Some(bounded(&format!("{vlan}{} → {to}", header.src))),
        ..Facts::default()
    }
}

#[cfg(test)]
mod tests {
    use trama_switch::counters::{Lasting, PortCounters};

    use super::*;
    use crate::events::tests::some_port;

    fn notice(port: PortId, vlan: Option<u8>) -> DropNotice {
        let mut head = [[0xff; 6], [2, 0, 0, 0, 0, 3]].concat();
        head.extend(vlan.iter().flat_map(|vlan| [0x81, 0, 0, *vlan]));
        head.extend([8, 0]);
        DropNotice { port, reason: DropReason::VlanNotAllowed, len: 60, head }
    }

    #[test]
    fn events_of_a_port_add_up_to_its_counter() {
        let events = Events::start(16).unwrap();
        let counters: Lasting<PortCounters> = Lasting::default();
        counters.drop(DropReason::VlanNotAllowed, 5);
        let port = some_port();
        events.set_port(port, Known::new(("vm3", Some("lab")), 9, counters.clone()));
        let mut gathered = HashMap::new();
        counters.drop(DropReason::VlanNotAllowed, 12);
        take(&mut gathered, &events, notice(port, Some(20)));
        let drops = gathered.get_mut(&(port, DropReason::VlanNotAllowed)).unwrap();
        assert!(drops.tell(DropReason::VlanNotAllowed, &events));
        // Their notice found no room.
        counters.drop(DropReason::VlanNotAllowed, 3);
        assert!(drops.tell(DropReason::VlanNotAllowed, &events));
        assert!(!drops.tell(DropReason::VlanNotAllowed, &events), "all are told");
        let told = events.ring().read(0, 16).events;
        let lines: Vec<_> = told.iter().map(|it| trama_api::event::line(it).what).collect();
        let first = "vlan_not_allowed ×12: VLAN 20, 02:00:00:00:00:03 → broadcast";
        assert_eq!(lines, [first, "vlan_not_allowed ×3"]);
    }

    #[test]
    fn the_thread_tells_by_itself() {
        let events = Events::start(16).unwrap();
        let mut next = events.next.subscribe();
        let counters: Lasting<PortCounters> = Lasting::default();
        let port = some_port();
        events.set_port(port, Known::new(("vm3", None), 0, counters.clone()));
        counters.drop(DropReason::VlanNotAllowed, 2);
        events.note_drop(&notice(port, None));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(next.changed()).unwrap();
        assert_eq!(events.totals().counts[1], ("drop", 1));
        assert_eq!(events.ring().read(0, 1).events[0].facts.count, Some(2));
    }
}
