//! Storm limits: what a port may flood in a second.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use trama_frame::VlanId;
use trama_switch::{FloodKind, PortFilter, Storm, StormLimits};

use super::*;

const LIMITS: StormLimits = StormLimits { broadcast: 10, multicast: 5, unknown: 3 };

fn limited_lab() -> Lab {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    let filter = PortFilter { storm: LIMITS, ..PortFilter::default() };
    lab.set(0, |settings| settings.filter = filter);
    lab
}

/// Sends a burst of these frames from port 0; returns how many port 1 receives.
fn burst(lab: &mut Lab, frames: &[Vec<u8>]) -> usize {
    frames.iter().for_each(|bytes| lab.stations[0].send(bytes));
    lab.settle();
    let got = lab.stations[1].frames();
    lab.stations[2].frames();
    got.len()
}

#[test]
fn a_port_floods_no_more_than_its_limits() {
    let mut lab = limited_lab();
    let group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    for (dst, limit) in [(MacAddr::BROADCAST, 10), (group, 5), (mac(77), 3)] {
        let frames = vec![frame(dst, mac(1), 60); 40];
        let before = lab.dropped(0, DropReason::Storm);
        assert_eq!(burst(&mut lab, &frames), limit, "{dst}");
        assert_eq!(lab.dropped(0, DropReason::Storm) - before, 40 - limit as u64, "{dst}");
    }
    // What passes is counted, what does not is not; nothing else is counted as lost.
    let counters = lab.stations[0].counters.snapshot();
    assert_eq!((counters.rx_frames, counters.rx_bytes), (18, 18 * 60));
    assert_eq!((counters.flooded_frames, counters.dropped_total()), (18, 3 * 40 - 18));
    // After a second, as many again.
    lab.clock += 1_000_000_000;
    assert_eq!(burst(&mut lab, &vec![frame(MacAddr::BROADCAST, mac(1), 60); 40]), 10);
    // A port without limits floods at will.
    lab.stations[1].send(&frame(MacAddr::BROADCAST, mac(2), 60));
    assert_eq!(lab.dropped(1, DropReason::Storm), 0);
}

#[test]
fn a_storm_does_not_concern_known_destinations() {
    let mut lab = limited_lab();
    lab.send(1, &frame(mac(99), mac(2), 60));
    let broadcast = frame(MacAddr::BROADCAST, mac(1), 60);
    let known = frame(mac(2), mac(1), 60);
    let mixed: Vec<_> = (0..30).flat_map(|_| [broadcast.clone(), known.clone()]).collect();
    assert_eq!(burst(&mut lab, &mixed), 30 + 10);
    assert_eq!(lab.dropped(0, DropReason::Storm), 20);
}

#[test]
fn a_storm_is_reported_once_and_ends() {
    let mut lab = limited_lab();
    let (event, mut seen) = UnixStream::pair().unwrap();
    seen.set_nonblocking(true).unwrap();
    lab.engine.set_alarm(event.into());
    let frames = vec![frame(MacAddr::BROADCAST, mac(1), 60); 40];
    let storms = |lab: &Lab| lab.engine.storms(Time(lab.clock));
    let kind = FloodKind::Broadcast;
    assert!(storms(&lab).is_empty());
    for _ in 0..3 {
        burst(&mut lab, &frames);
    }
    assert_eq!(storms(&lab), [(lab.stations[0].id, vec![Storm { kind, vlan: VlanId::NONE }])]);
    assert_eq!(seen.read(&mut [0; 64]).unwrap(), 8, "one event");
    assert_eq!(seen.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    lab.clock += 5_000_000_000;
    assert!(storms(&lab).is_empty());
    burst(&mut lab, &frames);
    assert_eq!(seen.read(&mut [0; 64]).unwrap(), 8, "the next storm");
}
