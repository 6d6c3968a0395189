//! Announcements of guests that have moved to a port.

use trama_switch::{PortFilter, Spoof, Station as Behind};

use super::*;

/// Announces a station at a port; returns the frames that each port received.
fn announce(lab: &mut Lab, port: usize, station: MacAddr) -> Vec<Vec<Vec<u8>>> {
    let id = lab.stations[port].id;
    lab.engine.announce(id, station, Time(lab.clock)).unwrap();
    lab.stations.iter().map(Station::frames).collect()
}

#[test]
fn an_announced_station_is_reached_where_it_is_now() {
    let mut lab = Lab::new(&[access(7), access(7), trunk(), access(8)]);
    lab.send(0, &frame(MacAddr::BROADCAST, mac(1), 60));
    let to_it = tagged(c_tag(7), &frame(mac(1), mac(3), 60));
    let reaches = |lab: &mut Lab| {
        let got = lab.send(2, &to_it);
        [0, 1].map(|port: usize| got[port].len())
    };
    assert_eq!(reaches(&mut lab), [1, 0]);
    let got = announce(&mut lab, 1, mac(1));
    // A request reverse of RFC 903, broadcast; in VLAN 8 it is not seen.
    let mut request = frame(MacAddr::BROADCAST, mac(1), 60);
    request[12..].fill(0);
    request[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    request[22..28].copy_from_slice(&mac(1).0);
    request[32..38].copy_from_slice(&mac(1).0);
    assert_eq!(got, [vec![request.clone()], vec![], vec![tagged(c_tag(7), &request)], vec![]]);
    assert_eq!(reaches(&mut lab), [0, 1]);
}

#[test]
fn an_announcement_keeps_to_the_rules_of_its_port() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    for station in [MacAddr::ZERO, MacAddr::BROADCAST] {
        assert!(nothing(&announce(&mut lab, 0, station)));
    }
    assert_eq!(lab.dropped(0, DropReason::SourceInvalid), 2);
    lab.set(0, |settings| {
        settings.filter = PortFilter {
            station: Behind::Known(mac(1)),
            spoof: Spoof::Deny,
            ..PortFilter::default()
        };
    });
    assert!(nothing(&announce(&mut lab, 0, mac(2))));
    assert_eq!(lab.dropped(0, DropReason::SourceForged), 1);
    assert_eq!(announce(&mut lab, 0, mac(1))[1].len(), 1);
    lab.set(0, |settings| settings.cable = false);
    assert!(nothing(&announce(&mut lab, 0, mac(1))));
}
