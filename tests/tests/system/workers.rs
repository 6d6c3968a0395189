//! Two networks keep their worker busy: one moves to the idle worker automatically, with its ports,
//! and no connection or learned address is lost.

use std::time::{Duration, Instant};

use trama_frame::VnetHeader;
use trama_test_kit::{Card, connect};
use trama_tests::{Tramad, wait_until};
use trama_vhost_net_backend::features;

const LIMIT: Duration = Duration::from_secs(60);

/// Receivers on each loaded network. A large frame is cut for each of them, so that one full ring
/// keeps the worker busy until the sender has refilled it, even on a busy machine.
const RECEIVERS: usize = 30;

/// Starts three networks; the second and third share a worker, because the first has more ports.
fn tramad() -> Tramad {
    let mut text = "[daemon]\ncontrol = \"{dir}/control.sock\"\nstate = \"{dir}/state\"\n\
                    metrics = \"{metrics}\"\nworkers = 2\n"
        .to_owned();
    for (network, ports) in [("silent", RECEIVERS + 10), ("a", RECEIVERS + 1), ("b", RECEIVERS + 1)]
    {
        text += &format!("[[network]]\nname = \"{network}\"\n");
        for port in 0..ports {
            text += &format!(
                "[[port]]\nname = \"{network}{port}\"\nnetwork = \"{network}\"\n\
                 type = \"vhost-user\"\npath = \"{{dir}}/{network}{port}.sock\"\n"
            );
        }
    }
    Tramad::start(&text)
}

/// Returns a large TCP frame to cut into hundreds of segments: cheap to send, costly to switch.
fn tiny_segments() -> (VnetHeader, Vec<u8>) {
    let mut bytes = vec![0; 1900];
    bytes[..6].fill(0xff);
    bytes[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    let length = (bytes.len() - 14) as u16;
    bytes[14..18].copy_from_slice(&[0x45, 0, (length >> 8) as u8, length as u8]);
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[46] = 0x50;
    let header = VnetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 8,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    (header, bytes)
}

/// Fills a card's transmit ring.
fn fill(card: &mut Card, header: &VnetHeader, bytes: &[u8]) {
    card.tx[0].reclaim().unwrap();
    while card.tx[0].free() > 0 {
        card.tx[0].send(&header.to_bytes(), &[bytes]).unwrap();
    }
    if card.tx[0].publish() {
        card.kicks[1].write(1).unwrap();
    }
}

#[test]
fn a_network_leaves_a_loaded_worker() {
    let tramad = tramad();
    let worker =
        |network: &str| tramad.metric("trama_network_worker", &[&format!("network=\"{network}\"")]);
    assert_eq!((worker("silent"), worker("a"), worker("b")), (0, 1, 1));
    let plug = |name: &str, mask| Card::plug(connect(&tramad.path(name)), mask, 1);
    // The receivers have not negotiated segmentation offload.
    let plain = features::VERSION_1 | features::VHOST_USER_PROTOCOL_FEATURES;
    let mut senders = ["a0.sock", "b0.sock"].map(|name| plug(name, features::ALL));
    let receivers = ["a", "b"].iter().flat_map(|network| {
        (1..=RECEIVERS).map(move |port| plug(&format!("{network}{port}.sock"), plain))
    });
    let _receivers: Vec<Card> = receivers.collect();
    let (header, bytes) = tiny_segments();
    let deadline = Instant::now() + LIMIT;
    let mut looked = Instant::now();
    while looked.elapsed() < Duration::from_millis(200) || worker("a") == worker("b") {
        assert!(Instant::now() < deadline, "nothing moved: {:#?}", tramad.metrics());
        if looked.elapsed() >= Duration::from_millis(200) {
            looked = Instant::now();
        }
        senders.iter_mut().for_each(|card| fill(card, &header, &bytes));
    }
    assert!(tramad.log().contains("moved from loaded worker 1 to 0"), "{}", tramad.log());
    // Both still forward on their workers, with their learned addresses.
    for (card, network) in senders.iter_mut().zip(["a", "b"]) {
        assert!(tramad.ctl(&format!("fdb/show {network}")).contains("02:00:00:00:00:01"));
        let port = format!("{network}0");
        let before = tramad.statistic(&port, "rx_packets");
        wait_until("more frames come through", LIMIT, || {
            fill(card, &header, &bytes);
            (tramad.statistic(&port, "rx_packets") > before + 1000).then_some(())
        });
        let connects = tramad.metric("trama_port_connects_total", &[&format!("port=\"{port}\"")]);
        assert_eq!(connects, 1);
    }
    tramad.stop();
}
