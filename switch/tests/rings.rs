//! vhost ports: both drivers in this process, the engine between them.
#![cfg(test)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_frame::{MacAddr, Offloads, VnetHeader};
use trama_switch::{
    Device, DropReason, Engine, EngineError, HdrLen, NetworkId, PortFault, PortSettings, RingFds,
    Time, VhostDevice, VlanMode,
};
use trama_test_kit::{
    Guest, LINUX_FEATURES, PLAIN, Station, access, eventfd, frame, large_segment, mac, network,
    port, trunk,
};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingFeatures,
};

/// Features of drivers before virtio 1.0 without mergeable buffers.
const SHORT: RingFeatures = RingFeatures { mergeable: false, short_header: true, ..LINUX_FEATURES };

/// An engine, a network, and a clock that passes every hold-off in a round.
struct Lab {
    engine: Engine,
    network: NetworkId,
    clock: u64,
}

impl Lab {
    fn new() -> Lab {
        let mut engine = Engine::new(3);
        let network = network(&mut engine, 1500);
        Lab { engine, network, clock: 0 }
    }

    fn guest(&mut self, options: DriverOptions) -> Guest {
        Guest::add(&mut self.engine, port(self.network, trunk()), options, options)
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.clock += 1_000_000;
            if !self.engine.poll(Time(self.clock)) {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }
}

fn options(shape: ChainShape, features: RingFeatures) -> DriverOptions {
    DriverOptions { size: 256, features, shape, buffer_size: HEADER_LEN + 2000 }
}

#[test]
fn every_shape_of_chain_carries_every_length() {
    let plain = RingFeatures { mergeable: true, ..RingFeatures::default() };
    let in_order = RingFeatures { in_order: true, ..plain };
    let cases = [
        (ChainShape::Single, plain),
        (ChainShape::Single, in_order),
        (ChainShape::HeaderSplit, LINUX_FEATURES),
        (ChainShape::Scattered(4), plain),
        (ChainShape::Indirect(3), LINUX_FEATURES),
        (ChainShape::Single, RingFeatures { mergeable: false, ..LINUX_FEATURES }),
        (ChainShape::Single, SHORT),
        (ChainShape::HeaderSplit, SHORT),
        (ChainShape::Indirect(3), RingFeatures { in_order: true, ..SHORT }),
    ];
    for (shape, features) in cases {
        let mut lab = Lab::new();
        let mut a = lab.guest(options(shape, features));
        let mut b = lab.guest(options(ChainShape::Single, features));
        for len in (14..200).chain([1000, 1513, 1514]) {
            let there = frame(mac(2), mac(1), len);
            a.send(&PLAIN, &there);
            lab.settle();
            let got: Vec<_> = b.frames().into_iter().map(|(_, bytes)| bytes).collect();
            assert_eq!(got, [there], "{shape:?} {len}");
        }
        assert_eq!(a.counters.snapshot().dropped_total(), 0);
        assert_eq!(b.counters.snapshot().tx_frames, 189);
    }
}

#[test]
fn a_large_frame_fills_several_buffers_and_keeps_its_header() {
    let mut lab = Lab::new();
    let big = DriverOptions {
        buffer_size: HEADER_LEN + 65_536,
        ..options(ChainShape::Indirect(20), LINUX_FEATURES)
    };
    let small = options(ChainShape::Single, LINUX_FEATURES);
    let mut a = Guest::add(&mut lab.engine, port(lab.network, trunk()), big, small);
    let mut b = lab.guest(small);
    lab.engine.set_offloads(b.id, Offloads::CSUM | Offloads::TSO4);
    let (header, bytes) = large_segment(mac(2), mac(1), 60_040);
    a.send(&header.to_bytes(), &bytes);
    lab.settle();
    let got = b.frames();
    assert_eq!(got.len(), 1);
    assert!(got[0].1 == bytes, "60 KB arrive as they left");
    assert_eq!(got[0].0, VnetHeader { num_buffers: 30, ..header });
    let counters = (a.counters.snapshot().rx_gso_frames, b.counters.snapshot().tx_gso_frames);
    assert_eq!(counters, (1, 1));
    // A driver without offloads gets 42 complete ones.
    lab.engine.set_offloads(b.id, Offloads::NONE);
    a.send(&header.to_bytes(), &bytes);
    lab.settle();
    let got = b.frames();
    assert_eq!(got.len(), 42);
    assert!(got.iter().all(|(header, bytes)| header.is_plain() && bytes.len() <= 1502));
    assert_eq!(b.counters.snapshot().software_gso_frames, 1);
}

/// Drivers without mergeable buffers, with either header: one buffer holds a whole frame or the
/// frame is dropped with its reason, and the following ones pass.
#[test]
fn a_frame_that_fits_no_buffer_is_dropped_and_blocks_nothing() {
    let long = RingFeatures { mergeable: false, ..LINUX_FEATURES };
    for (features, size) in [(long, 64), (SHORT, 64), (SHORT, 128), (SHORT, 256)] {
        let mut lab = Lab::new();
        let network = network(&mut lab.engine, 9000);
        let large = options(ChainShape::Scattered(8), LINUX_FEATURES);
        let large = DriverOptions { buffer_size: HEADER_LEN + 65_536, ..large };
        let firmware = DriverOptions {
            size,
            buffer_size: features.header_len() + 1514,
            ..options(ChainShape::HeaderSplit, features)
        };
        let mut a = Guest::add(&mut lab.engine, port(network, trunk()), large, large);
        let mut b = Guest::add(&mut lab.engine, port(network, trunk()), firmware, firmware);
        for len in [1514, 1515, 9014, 1514] {
            a.send(&PLAIN, &frame(mac(2), mac(1), len));
        }
        lab.settle();
        let lens: Vec<_> = b.frames().iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lens, [1514, 1514], "{features:?}");
        assert_eq!(b.counters.snapshot().dropped(DropReason::EgressTooLarge), 2);
        // Two descriptors per frame; software segments what the driver did not negotiate.
        let (header, bytes) = large_segment(mac(2), mac(1), 60_040);
        a.send(&header.to_bytes(), &bytes);
        lab.settle();
        let got = b.frames();
        assert_eq!(got.len(), 42.min(usize::from(size / 2)));
        assert!(got.iter().all(|(header, _)| header.is_plain()));
        let full = b.counters.snapshot().dropped(DropReason::EgressFull);
        assert_eq!(got.len() as u64 + full, 42);
        a.send(&PLAIN, &frame(mac(2), mac(1), 1514));
        lab.settle();
        assert_eq!(b.frames().len(), 1, "{features:?}");
    }
}

#[test]
fn a_port_that_wants_marks_gets_the_ingress_ports() {
    let mut lab = Lab::new();
    let big = DriverOptions {
        buffer_size: HEADER_LEN + 65_536,
        ..options(ChainShape::Single, LINUX_FEATURES)
    };
    let small = options(ChainShape::Single, LINUX_FEATURES);
    let marked = |mark| PortSettings { mark, ..port(lab.network, trunk()) };
    let wants_marks = PortSettings { hdr_len: HdrLen::IngressMark, ..port(lab.network, trunk()) };
    let [first, second] = [marked(7), marked(0xff09)];
    let mut first = Guest::add(&mut lab.engine, first, big, small);
    let mut second = Guest::add(&mut lab.engine, second, big, small);
    let mut marked_receiver = Guest::add(&mut lab.engine, wants_marks, small, big);
    let mut other = lab.guest(small);
    let all = frame(MacAddr::BROADCAST, mac(1), 60);
    first.send(&PLAIN, &all);
    second.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(3), 60));
    other.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(4), 60));
    lab.settle();
    let marks = |frames: Vec<(VnetHeader, Vec<u8>)>| -> Vec<u16> {
        frames.iter().map(|(header, _)| header.hdr_len).collect()
    };
    assert_eq!(marks(marked_receiver.frames()), [7, 0xff09, 0], "a port without a mark has none");
    assert_eq!(marks(other.frames()), [0, 0], "only where it is wanted");
    let (header, bytes) = large_segment(mac(2), mac(1), 60_040);
    lab.engine.set_offloads(marked_receiver.id, Offloads::CSUM | Offloads::TSO4);
    first.send(&header.to_bytes(), &bytes);
    lab.settle();
    let got = marked_receiver.frames();
    let [(whole, _)] = &got[..] else { panic!("{} frames", got.len()) };
    assert_eq!(*whole, VnetHeader { hdr_len: 7, num_buffers: 1, ..header });
    lab.engine.set_offloads(marked_receiver.id, Offloads::NONE);
    first.send(&header.to_bytes(), &bytes);
    lab.settle();
    assert_eq!(marks(marked_receiver.frames()), [7; 42], "what software cuts, too");
}

#[test]
fn a_gateways_ring_is_shared_by_its_senders() {
    let mut lab = Lab::new();
    let all = options(ChainShape::Single, LINUX_FEATURES);
    let is_gateway = PortSettings { hdr_len: HdrLen::IngressMark, ..port(lab.network, trunk()) };
    let mut gateway = Guest::add(&mut lab.engine, is_gateway, all, all);
    gateway.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(9), 60));
    let mut senders = [1, 2, 3].map(|at| (mac(at), lab.guest(all)));
    lab.settle();
    let mut send = |lab: &mut Lab, who: usize, count: usize| {
        let (from, guest) = &mut senders[who];
        for _ in 0..count {
            guest.send(&PLAIN, &frame(mac(9), *from, 60));
        }
        lab.settle();
        let counters = guest.counters.snapshot();
        (counters.rx_frames, counters.dropped(DropReason::GatewayShare))
    };
    assert_eq!(send(&mut lab, 0, 250), (250, 45), "four fifths of the ring");
    assert_eq!(send(&mut lab, 1, 200), (200, 159), "four fifths of the rest");
    assert_eq!(send(&mut lab, 2, 5), (5, 0), "a newcomer finds room");
    assert_eq!(gateway.frames().len(), 205 + 41 + 5);
    // The gateway has replaced all buffers, and everyone is paid back.
    assert_eq!(send(&mut lab, 0, 205), (455, 45));
    assert_eq!(send(&mut lab, 2, 40), (45, 0));
    assert_eq!(gateway.frames().len(), 245);
    assert_eq!(gateway.counters.snapshot().dropped_total(), 0, "counted where they came from");
}

#[test]
fn a_gateway_without_buffers_has_its_drops_counted_at_the_sender() {
    let mut lab = Lab::new();
    let all = options(ChainShape::Single, LINUX_FEATURES);
    let large = DriverOptions { buffer_size: HEADER_LEN + 65_536, ..all };
    let is_gateway = PortSettings { hdr_len: HdrLen::IngressMark, ..port(lab.network, trunk()) };
    let mut gateway = Guest::add(&mut lab.engine, is_gateway, all, all);
    gateway.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(2), 60));
    let mut sender = Guest::add(&mut lab.engine, port(lab.network, trunk()), large, all);
    lab.engine.set_offloads(gateway.id, Offloads::CSUM | Offloads::TSO4);
    lab.settle();
    // Each takes 30 of 256 buffers. The seventh begins within the share and ends beyond it.
    let (header, bytes) = large_segment(mac(2), mac(1), 60_040);
    for _ in 0..9 {
        sender.send(&header.to_bytes(), &bytes);
    }
    lab.settle();
    assert_eq!(sender.counters.snapshot().dropped(DropReason::GatewayShare), 2);
    assert_eq!(gateway.frames().len(), 7);
    assert_eq!(gateway.counters.snapshot().dropped_total(), 0);
}

#[test]
fn more_than_a_ring_goes_through_in_order() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let mut b = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let (mut sent, mut received) = (0u64, 0u64);
    while received < 10_000 {
        a.tx.reclaim().unwrap();
        while sent < 10_000 && a.tx.free() > 0 {
            let mut bytes = frame(mac(2), mac(1), 60);
            bytes[14..22].copy_from_slice(&sent.to_be_bytes());
            a.tx.send(&PLAIN, &[&bytes]).unwrap();
            sent += 1;
        }
        a.tx.publish();
        lab.settle();
        for (_, bytes) in b.frames() {
            assert_eq!(bytes[14..22], received.to_be_bytes());
            received += 1;
        }
    }
    assert_eq!(b.counters.snapshot().tx_frames, 10_000);
}

#[test]
fn a_receiver_without_buffers_drops_only_its_own_frames() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let b = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let c = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::NONE);
    for _ in 0..2 {
        for _ in 0..200 {
            a.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(1), 60));
        }
        lab.settle();
    }
    assert_eq!(b.counters.snapshot().tx_frames, 256);
    assert_eq!(b.counters.snapshot().dropped(DropReason::EgressFull), 144);
    assert_eq!(c.frames().len(), 400);
    a.tx.reclaim().unwrap();
    assert_eq!(a.tx.free(), 256, "the sender got everything back");
}

#[test]
fn frames_for_a_port_without_started_rings_are_dropped() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let device = Device::Vhost(VhostDevice::new(1));
    let (id, counters) = lab.engine.add_port(port(lab.network, trunk()), device).unwrap();
    a.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(1), 60));
    lab.settle();
    assert_eq!(counters.snapshot().dropped(DropReason::EgressNotReady), 1);
    assert!(matches!(lab.engine.stop_ring(id, 0), Err(EngineError::NotStarted(0))));
    assert!(matches!(lab.engine.stop_ring(id, 7), Err(EngineError::NoSuchRing { .. })));
}

#[test]
fn a_frontend_that_reconnects_loses_nothing() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let mut b = lab.guest(options(ChainShape::HeaderSplit, LINUX_FEATURES));
    let bytes = frame(mac(2), mac(1), 60);
    for _ in 0..5 {
        a.send(&PLAIN, &bytes);
    }
    lab.settle();
    assert_eq!(b.frames().len(), 5);
    assert_eq!(lab.engine.stop_ring(a.id, 1).unwrap(), 5);
    assert_eq!(lab.engine.stop_ring(b.id, 0).unwrap(), 5);
    a.send(&PLAIN, &bytes);
    lab.settle();
    assert!(b.frames().is_empty(), "stopped");
    for (guest, ring) in [(&mut a, 1), (&mut b, 0)] {
        let map = guest.memory.map();
        let mut setup = if ring == 1 { guest.tx.setup(map) } else { guest.rx.setup(map) };
        setup.next = 5;
        lab.engine.start_ring(guest.id, ring, setup, RingFds::default()).unwrap();
    }
    lab.settle();
    assert_eq!(b.frames().len(), 1);
    // The memory map is replaced under both.
    lab.engine.set_memory(a.id, a.memory.map()).unwrap();
    lab.engine.set_memory(b.id, b.memory.map()).unwrap();
    a.send(&PLAIN, &bytes);
    lab.settle();
    assert_eq!(b.frames().len(), 1);
    // A map without the rings is refused.
    let elsewhere = DriverMemory::new(1 << 16).unwrap().map();
    let refused = lab.engine.set_memory(a.id, elsewhere);
    assert!(matches!(refused, Err(EngineError::Ring { index: 0, .. })), "{refused:?}");
}

#[test]
fn a_broken_ring_is_reported_once_and_affects_no_other_port() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let mut b = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let mut c = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let event = eventfd();
    lab.engine.set_fault_event(a.id, Some(Arc::new(event.try_clone().unwrap()))).unwrap();
    // A ring that claims to be 300 ahead of a queue of 256.
    let map = a.memory.map();
    let mut setup = a.tx.setup(map);
    setup.next = 0u16.wrapping_sub(300);
    lab.engine.start_ring(a.id, 1, setup, RingFds::default()).unwrap();
    b.send(&PLAIN, &frame(mac(3), mac(2), 60));
    lab.settle();
    assert_eq!(c.frames().len(), 1);
    let broken = lab.engine.broken_ports();
    assert!(matches!(broken[..], [(id, PortFault::Ring { index: 1, .. })] if id == a.id));
    assert!(lab.engine.broken_ports().is_empty(), "wants_marks once");
    assert!(lab.engine.port_fault(a.id).is_some(), "but not forgotten");
    assert!(rustix::io::read(&event, &mut [0; 8]).is_ok(), "and signalled");
    b.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(2), 60));
    lab.settle();
    assert_eq!(c.frames().len(), 1);
    assert_eq!(a.counters.snapshot().dropped(DropReason::EgressNotReady), 2);
    lab.engine.detach(a.id);
    assert!(lab.engine.port_fault(a.id).is_none());
    a.start(&mut lab.engine);
    a.send(&PLAIN, &frame(mac(3), mac(1), 60));
    b.send(&PLAIN, &frame(MacAddr::BROADCAST, mac(2), 60));
    lab.settle();
    assert_eq!((a.frames().len(), c.frames().len()), (1, 2));
}

#[test]
fn flows_spread_over_queue_pairs_and_stay_in_theirs() {
    spread_flows(trunk(), &[]);
    // A tag is pushed in one direction and popped in the other.
    spread_flows(access(10), &[0x81, 0, 0, 10]);
}

/// Sends from a port of this mode to one that sees its frames with this tag, and back.
fn spread_flows(mode: VlanMode, tag: &[u8]) {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    lab.engine.set_port(a.id, port(lab.network, mode)).unwrap();
    let device = Device::Vhost(VhostDevice::new(4));
    let (id, _) = lab.engine.add_port(port(lab.network, trunk()), device).unwrap();
    let each = options(ChainShape::Single, LINUX_FEATURES);
    let memory = DriverMemory::new(8 * each.memory_size()).unwrap();
    let map = memory.map();
    let mut pairs: Vec<(DriverRx, DriverTx)> = (0..4)
        .map(|_| (DriverRx::new(&memory, each).unwrap(), DriverTx::new(&memory, each).unwrap()))
        .collect();
    for (pair, (rx, tx)) in pairs.iter_mut().enumerate() {
        let (receive, transmit) = (rx.setup(map.clone()), tx.setup(map.clone()));
        lab.engine.start_ring(id, 2 * pair, receive, RingFds::default()).unwrap();
        lab.engine.start_ring(id, 2 * pair + 1, transmit, RingFds::default()).unwrap();
        rx.refill();
    }
    let mut got = [0; 4];
    for flow in 0..100u16 {
        let mut bytes = frame(mac(9), mac(1), 60);
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17]);
        bytes[34..36].copy_from_slice(&flow.to_be_bytes());
        for _ in 0..2 {
            a.send(&PLAIN, &bytes);
        }
        lab.settle();
        for (count, (rx, _)) in got.iter_mut().zip(&mut pairs) {
            let taken = rx.discard(10).unwrap();
            assert!(taken == 0 || taken == 2, "one flow in two queues");
            *count += taken;
        }
    }
    assert_eq!(got.iter().sum::<usize>(), 200);
    assert!(got.iter().all(|count| *count >= 20), "{got:?}");
    // All four transmit.
    for (_, tx) in &mut pairs {
        let bytes = frame(mac(1), mac(9), 60);
        tx.send(&PLAIN, &[&bytes[..12], tag, &bytes[12..]]).unwrap();
        tx.publish();
    }
    lab.settle();
    assert_eq!(a.frames().len(), 4);
}

#[test]
fn calls_are_made_when_they_are_wanted_once_a_turn() {
    let mut lab = Lab::new();
    let mut a = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let mut b = lab.guest(options(ChainShape::Single, LINUX_FEATURES));
    let call = eventfd();
    let call_of_the_switch: OwnedFd = call.try_clone().unwrap();
    lab.engine.set_call(b.id, 0, Some(call_of_the_switch));
    let called = || {
        let mut count = [0; 8];
        rustix::io::read(&call, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    assert_eq!(called(), 1, "whatever the descriptor before it was wants_marks");
    let _ = b.rx.arm();
    for _ in 0..100 {
        a.send(&PLAIN, &frame(mac(2), mac(1), 60));
    }
    lab.settle();
    assert_eq!(called(), 1);
    assert_eq!(b.counters.snapshot().calls, 1);
    b.frames();
    b.rx.disarm();
    a.send(&PLAIN, &frame(mac(2), mac(1), 60));
    lab.settle();
    assert_eq!((called(), b.frames().len()), (0, 1));
}

#[test]
fn a_kick_that_cannot_be_waited_for_is_refused() {
    let (worker, thread) = trama_switch::WorkerHandle::spawn(trama_switch::WorkerOptions {
        spin: trama_switch::Spin::Never,
        name: "w".into(),
        seed: 1,
    })
    .unwrap();
    let refused = worker.call(|engine, _| {
        let network = network(engine, 1500);
        let options = options(ChainShape::Single, LINUX_FEATURES);
        let guest = Guest::add(engine, port(network, trunk()), options, options);
        let kick = Some(File::open("/proc/self/exe").unwrap().into());
        engine.set_kick(guest.id, 1, kick)
    });
    assert!(matches!(refused, Ok(Err(EngineError::Kick { index: 1, .. }))), "{refused:?}");
    worker.stop();
    thread.join().unwrap();
}
