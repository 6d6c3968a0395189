//! Source addresses: invalid ones, and the frames that a guest with one or several receives.

use trama_switch::{PortFilter, Promiscuous, Spoof, Station as Behind, StormLimits};

use super::*;

#[test]
fn frames_from_invalid_sources_are_dropped() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    for (count, source) in [MacAddr::ZERO, group, MacAddr::BROADCAST].into_iter().enumerate() {
        for to in [mac(2), MacAddr::BROADCAST] {
            assert!(nothing(&lab.send(0, &frame(to, source, 60))), "{source}");
        }
        assert!(nothing(&lab.send(0, &tagged(c_tag(7), &frame(mac(2), source, 60)))), "{source}");
        assert_eq!(lab.dropped(0, DropReason::SourceInvalid), 3 * (count as u64 + 1));
    }
    assert!(lab.engine.fdb(lab.network, Time(lab.clock)).is_empty());
    let counters = lab.stations[0].counters.snapshot();
    assert_eq!((counters.rx_frames, counters.rx_bytes, counters.dropped_total()), (0, 0, 9));
    // Good frames of the same burst pass.
    let good = frame(mac(2), mac(1), 60);
    lab.stations[0].send(&frame(mac(2), MacAddr::ZERO, 60));
    assert_eq!(lab.send(0, &good)[1], [good]);
}

/// The address of port 1, which port 0 tries to take by all means, stays there.
#[test]
fn an_own_address_cannot_be_taken() {
    let own = PortFilter { own_address: Some(mac(1)), ..PortFilter::default() };
    let mut lab = Lab::new(&[access(7), access(7), trunk()]);
    let stolen = frame(MacAddr::BROADCAST, mac(1), 60);
    lab.send(0, &stolen);
    let set_owner = |lab: &mut Lab, vlan: u16| {
        lab.set(1, |settings| (settings.filter, settings.vlan) = (own, access(vlan)));
    };
    set_owner(&mut lab, 7);
    let to_owner = frame(mac(1), mac(3), 60);
    let reaches_owner_alone = |lab: &mut Lab| {
        let got = lab.send(2, &tagged(c_tag(7), &to_owner));
        got[0].is_empty() && got[1].len() == 1
    };
    assert!(reaches_owner_alone(&mut lab), "learned elsewhere before, and never sent from here");
    assert!(nothing(&lab.send(0, &stolen)));
    assert!(nothing(&lab.send(2, &tagged(c_tag(7), &stolen))), "another port");
    wait(&mut lab, 10_000);
    lab.engine.flush_fdb(None);
    lab.engine.flush_fdb(Some(lab.network));
    assert!(nothing(&lab.send(0, &stolen)));
    assert!(reaches_owner_alone(&mut lab));
    assert_eq!(
        (lab.dropped(0, DropReason::OwnAddress), lab.dropped(2, DropReason::OwnAddress)),
        (2, 1)
    );
    // The owner sends as before. In another VLAN the address is anyone's.
    assert_eq!(lab.send(1, &stolen)[0].len(), 1);
    lab.set(0, |settings| settings.vlan = access(8));
    assert_eq!(lab.send(0, &stolen)[2].len(), 1);
    // The entry follows the port's VLAN and goes with the port.
    set_owner(&mut lab, 8);
    assert!(nothing(&lab.send(0, &stolen)));
    lab.set(1, |settings| settings.network = None);
    assert_eq!(lab.send(0, &stolen)[2].len(), 1);
}

/// Makes a lab whose port 1 has a filter.
fn lab_with_one_guest(filter: PortFilter) -> Lab {
    let mut lab = Lab::new(&[trunk(), trunk(), trunk()]);
    lab.set(1, |settings| settings.filter = filter);
    lab
}

/// Returns whether port 1 receives a frame from port 0 to an unknown address.
fn receives(lab: &mut Lab, to: MacAddr) -> bool {
    let bytes = frame(to, mac(100), 60);
    !lab.send(0, &bytes)[1].is_empty()
}

const LEARNED: PortFilter = PortFilter {
    station: Behind::Learned,
    promiscuous: Promiscuous::Deny,
    is_outside: false,
    spoof: Spoof::Allow,
    own_address: None,
    storm: StormLimits::NONE,
};

fn wait(lab: &mut Lab, seconds: u64) {
    lab.clock += seconds * 1_000_000_000;
}

#[test]
fn a_guest_with_two_addresses_is_reached_at_both_after_they_were_forgotten() {
    let mut lab = lab_with_one_guest(LEARNED);
    assert!(receives(&mut lab, mac(77)), "it has not said what its address is");
    lab.send(1, &frame(mac(9), mac(1), 60));
    assert!(!receives(&mut lab, mac(77)) && !receives(&mut lab, mac(2)));
    lab.send(1, &frame(mac(9), mac(2), 60));
    assert!(receives(&mut lab, mac(77)), "it may be a bridge");
    // The first goes on sending, the second falls silent.
    for _ in 0..3 {
        wait(&mut lab, 200);
        lab.send(1, &frame(mac(9), mac(1), 60));
    }
    assert!(!receives(&mut lab, mac(77)), "one of its addresses only is in use");
    assert!(receives(&mut lab, mac(2)), "it may be silent for long");
    let known = lab.engine.fdb(lab.network, Time(lab.clock));
    assert!(known.iter().all(|(_, entry)| entry.mac != mac(2)));
    // A new guest starts without addresses.
    lab.engine.detach(lab.stations[1].id);
    lab.send(1, &frame(mac(9), mac(3), 60));
    assert!(
        !receives(&mut lab, mac(2)) && !receives(&mut lab, mac(77)) && receives(&mut lab, mac(3))
    );
}

#[test]
fn unknown_unicast_stops_once_an_old_address_has_aged_out() {
    let mut lab = lab_with_one_guest(LEARNED);
    lab.send(1, &frame(mac(9), mac(1), 60));
    for _ in 0..4 {
        wait(&mut lab, 100);
        lab.send(1, &frame(mac(9), mac(2), 60));
    }
    assert!(receives(&mut lab, mac(77)), "not for long enough");
    wait(&mut lab, 100);
    lab.send(1, &frame(mac(9), mac(2), 60));
    assert!(!receives(&mut lab, mac(77)));
}

#[test]
fn unknown_unicast_follows_the_stated_address_and_the_sources_allowed() {
    let known = PortFilter { station: Behind::Known(mac(1)), ..LEARNED };
    for spoof in Spoof::ALL {
        let mut lab = lab_with_one_guest(PortFilter { spoof, ..known });
        assert!(!receives(&mut lab, mac(77)) && receives(&mut lab, mac(1)));
        lab.send(1, &frame(mac(9), mac(1), 60));
        assert!(!receives(&mut lab, mac(77)));
        lab.send(1, &frame(mac(9), mac(2), 60));
        assert_eq!(receives(&mut lab, mac(77)), spoof == Spoof::Allow);
        // From now on it may not: earlier addresses no longer count.
        lab.set(1, |settings| settings.filter = PortFilter { spoof: Spoof::Deny, ..known });
        lab.engine.flush_fdb(None);
        assert!(
            !receives(&mut lab, mac(77))
                && !receives(&mut lab, mac(2))
                && receives(&mut lab, mac(1))
        );
    }
}
