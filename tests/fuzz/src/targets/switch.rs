//! Frames into the engine of the switch.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, memfd_create};
use trama_frame::{Offloads, VnetHeader};
use trama_switch::{
    Device, Engine, Epoch, MacImage, NetworkId, PortSettings, Stream, StreamLink, Time, VlanMode,
    VlanSet,
};
use trama_test_kit::{Station, access, network, port, trunk, vid};
use trama_virtqueue::TABLE_AT;

use crate::input::Input;

/// Rounds within which the switch has nothing left to do.
const ROUNDS: usize = 1000;

pub(super) fn settle(engine: &mut Engine, clock: &mut u64) {
    for _ in 0..ROUNDS {
        *clock += 1_000_000;
        if !engine.poll(Time(*clock)) {
            return;
        }
    }
    panic!("the switch does not come to rest");
}

fn stations(engine: &mut Engine, network: NetworkId) -> Vec<Station> {
    let carries = || VlanSet::from_iter([vid(5), vid(10), vid(20)]);
    let modes = [
        (access(10), Offloads::ALL),
        (trunk(), Offloads::NONE),
        (VlanMode::NativeTagged { tag: vid(10), trunks: carries() }, Offloads::CSUM),
        (VlanMode::NativeUntagged { tag: vid(20), trunks: carries() }, Offloads::ALL),
    ];
    let names = ["a", "b", "c", "d"];
    let add = |((mode, offloads), name): (_, &str)| {
        let settings = PortSettings { name: name.into(), ..port(network, mode) };
        Station::add(engine, settings, offloads)
    };
    modes.into_iter().zip(names).map(add).collect()
}

/// A port, a header and a frame, again and again.
pub(super) fn switch(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut engine = Engine::new(7);
    let network = network(&mut engine, 1500);
    let stations = stations(&mut engine, network);
    let offloads = [Offloads::ALL, Offloads::NONE, Offloads::CSUM, Offloads::ALL];
    let (mut clock, mut sent) = (0, [0; 4]);
    while !input.is_empty() {
        let from = usize::from(input.byte()) % stations.len();
        let header = VnetHeader::from_bytes(&input.array());
        sent[from] += u64::from(stations[from].handle.inject(header, input.piece()).is_ok());
        settle(&mut engine, &mut clock);
        for (station, offloads) in stations.iter().zip(offloads) {
            for got in station.handle.captured() {
                assert!(got.bytes.len() >= 14, "a frame without a header leaves the switch");
                let mut header = got.header;
                let head = &got.bytes[..got.bytes.len().min(128)];
                let needed = trama_frame::vnet::validate(&mut header, head, got.bytes.len());
                let needed = needed.expect("a frame with a wrong header leaves the switch");
                assert!(offloads.contains(needed), "a station gets what it cannot take");
            }
        }
    }
    for (station, sent) in stations.iter().zip(sent) {
        let counted = station.counters.snapshot();
        let told = counted.rx_frames + counted.drops.iter().sum::<u64>();
        assert!(told >= sent, "a frame was lost without a reason: {told} of {sent}");
    }
}

/// Parts of a stream in pieces; a port whose stream is bad gets the next piece on a new one.
pub(super) fn streams(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut engine = Engine::new(7);
    let network = network(&mut engine, 1500);
    let (id, _) = engine.add_port(port(network, trunk()), Device::Stream(Stream::new())).unwrap();
    let station = Station::add(&mut engine, port(network, trunk()), Offloads::ALL);
    let (mut clock, mut peer, mut sent) = (0, None::<UnixStream>, Vec::new());
    while !input.is_empty() {
        let stream = peer.get_or_insert_with(|| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            drop(engine.connect_stream(id, StreamLink::new(ours.into())).unwrap());
            sent.clear();
            theirs
        });
        let piece = input.piece();
        let is_open = stream.write_all(piece).is_ok();
        sent.extend_from_slice(piece);
        settle(&mut engine, &mut clock);
        let mut waiting = framed(&mut sent).into_iter();
        for got in station.frames() {
            assert!(waiting.any(|it| it == got), "a frame that the stream does not have: {got:?}");
        }
        if !is_open || engine.stream_end(id).is_some() {
            drop(engine.disconnect_stream(id).unwrap());
            peer = None;
        }
    }
}

/// Takes the whole frames at the beginning of a stream.
fn framed(stream: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = stream.split_first_chunk::<4>()
        && let Some(frame) = rest.get(..u32::from_be_bytes(*len) as usize)
    {
        frames.push(frame.to_vec());
        stream.drain(..4 + frame.len());
    }
    frames
}

/// The memory of a MAC table: its head, then its rows.
pub(super) fn mac_image(bytes: &[u8]) {
    let mut input = Input(bytes);
    let file = File::from(memfd_create("macs", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(input.piece(), 0).unwrap();
    file.write_all_at(input.rest(), TABLE_AT as u64).unwrap();
    let Ok(image) = MacImage::read(file.into()) else { return };
    let mut engine = Engine::new(9);
    let network = network(&mut engine, 1500);
    let _stations = stations(&mut engine, network);
    let epoch = Epoch::from_nanos(0);
    let learned = image
        .parts()
        .map(|part| engine.import_macs(network, part, epoch, Time(1_000_000_000)).unwrap())
        .sum::<usize>();
    assert!(learned <= image.len());
    assert!(engine.fdb(network, Time(1_000_000_000)).len() <= learned);
}

pub(super) mod seeds {
    use std::io::Read;
    use std::time::Duration;

    use trama_switch::{NetworkSettings, WorkerGroup};
    use trama_test_kit::{c_tag, frame, large_segment, mac, tagged};

    use super::*;
    use crate::input::put_piece;

    fn steps(frames: &[(u8, VnetHeader, Vec<u8>)]) -> Vec<u8> {
        let mut seed = Vec::new();
        for (port, header, bytes) in frames {
            seed.push(*port);
            seed.extend_from_slice(&header.to_bytes());
            put_piece(&mut seed, bytes);
        }
        seed
    }

    pub(in super::super) fn switch() -> Vec<Vec<u8>> {
        let plain = VnetHeader::default();
        let all = trama_frame::MacAddr::BROADCAST;
        let (header, large) = large_segment(mac(1), mac(3), 3000);
        vec![
            steps(&[(0, plain, frame(all, mac(1), 60)), (1, plain, frame(mac(1), mac(2), 60))]),
            steps(&[
                (1, plain, tagged(c_tag(10), &frame(all, mac(2), 100))),
                (2, plain, frame(mac(2), mac(3), 1000)),
                (3, plain, tagged(c_tag(20), &frame(mac(3), mac(4), 60))),
                (1, plain, tagged(c_tag(0), &frame(mac(3), mac(4), 60))),
            ]),
            steps(&[(0, header, large.clone()), (2, header, large)]),
        ]
    }

    pub(in super::super) fn streams() -> Vec<Vec<u8>> {
        let framed = |len: usize| {
            let bytes = frame(mac(1), mac(2), len);
            [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
        };
        let whole = [framed(60), framed(1000), framed(14)].concat();
        let seed = |part: usize| {
            let mut seed = Vec::new();
            whole.chunks(part).for_each(|piece| put_piece(&mut seed, piece));
            seed
        };
        vec![seed(whole.len()), seed(7), seed(200)]
    }

    pub(in super::super) fn mac_image() -> Vec<Vec<u8>> {
        let mut engine = Engine::new(7);
        let settings = NetworkSettings {
            name: "lab".into(),
            mtu: 1500,
            mac_table_size: 64,
            mac_aging: Duration::from_secs(300),
        };
        let (id, mut network) = WorkerGroup::new(1).network(settings);
        let mut image = File::from(network.keep_macs(Epoch::from_nanos(0)).unwrap());
        engine.take_network(network, Time::ZERO);
        let stations = stations(&mut engine, id);
        for number in 0..20 {
            let all = trama_frame::MacAddr::BROADCAST;
            stations[usize::from(number % 4)].send(&frame(all, mac(number), 60));
        }
        settle(&mut engine, &mut 0);
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes).unwrap();
        let (head, rows) = bytes.split_at(TABLE_AT);
        let used = head.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let mut seed = Vec::new();
        put_piece(&mut seed, &head[..used]);
        seed.extend_from_slice(rows);
        vec![seed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_valid() {
        let seed = seeds::mac_image().remove(0);
        let mut input = Input(&seed);
        let file = File::from(memfd_create("macs", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(input.piece(), 0).unwrap();
        file.write_all_at(input.rest(), TABLE_AT as u64).unwrap();
        assert_eq!(MacImage::read(file.into()).unwrap().len(), 20, "{} bytes", seed.len());
    }
}
