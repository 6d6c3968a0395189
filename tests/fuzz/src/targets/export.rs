//! Samples to collectors: sFlow and IPFIX.

use std::net::Ipv4Addr;
use std::time::Duration;

use trama_export::ipfix::{Cache, Exporter, Limits};
use trama_export::sflow::Agent;
use trama_export::{Interface, MAX_DATAGRAM, Sample};

use crate::input::Input;

/// Most flows of the cache.
const FLOWS: usize = 4;
/// Seconds since the Unix epoch.
const BEGIN: u64 = 1_700_000_000;

/// Sampled frames over time.
pub(super) fn export(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut agent = Agent::new(Ipv4Addr::LOCALHOST.into(), 1, 64);
    let (active, idle) = (Duration::from_secs(60), Duration::from_secs(15));
    let mut cache = Cache::new(Limits { flows: FLOWS, active, idle }, 64);
    let mut exporter = Exporter::new(1);
    let (mut up, mut samples, mut counted) = (Duration::ZERO, 0, 0);
    let (mut datagrams, mut messages) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let [kind, parts, vlan] = input.array();
        up += Duration::from_millis(input.short().into());
        let (now, time) = (BEGIN + up.as_secs(), 1000 * BEGIN + up.as_millis() as u64);
        let more = usize::from(input.short());
        // The switch samples the first 128 bytes.
        let header = input.piece();
        let header = &header[..header.len().min(128)];
        let sample = Sample {
            header,
            len: header.len() + more,
            parts: parts.into(),
            part_header: header.len().min(54),
            input: (kind & 1 == 0).then_some(kind.into()),
            output: [Interface::Port(7), Interface::Several, Interface::Dropped]
                [usize::from(kind) % 3],
            vlan: vlan.into(),
            priority: kind & 7,
        };
        samples += 1;
        datagrams.extend(agent.frame(&sample, more as u64, up));
        let ended = cache.frame(&sample, time).into_iter().chain(cache.expire(time));
        for (flow, reason) in ended.collect::<Vec<_>>() {
            counted += 1;
            messages.extend(exporter.flow(&flow, reason, now as u32));
        }
        assert!(cache.len() <= FLOWS, "{} flows", cache.len());
    }
    datagrams.extend(agent.flush(up));
    for (flow, reason) in cache.end() {
        counted += 1;
        messages.extend(exporter.flow(&flow, reason, 0));
    }
    messages.extend(exporter.flush(0));
    assert_eq!(datagrams.iter().map(|it| sflow_samples(it)).sum::<u32>(), samples);
    let sequences: Vec<u32> = messages.iter().map(|it| ipfix_sequence(it)).collect();
    assert!(sequences.is_sorted() && sequences.iter().all(|it| *it < counted.max(1)));
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("a datagram ends within a field"))
}

/// Reads a datagram of sFlow; returns how many samples it has.
fn sflow_samples(datagram: &[u8]) -> u32 {
    assert!(datagram.len() <= MAX_DATAGRAM, "a datagram of {} bytes", datagram.len());
    assert_eq!(word(datagram, 0), 5, "the version");
    let (count, mut at) = (word(datagram, 24), 28);
    for _ in 0..count {
        let (len, mut record) = (word(datagram, at + 4) as usize, at + 40);
        assert_eq!((word(datagram, at), len % 4), (1, 0), "a flow sample");
        at += 8 + len;
        for _ in 0..word(datagram, record - 4) {
            record += 8 + word(datagram, record + 4) as usize;
        }
        assert_eq!(record, at, "records do not fill their sample");
    }
    assert_eq!(at, datagram.len(), "samples do not fill their datagram");
    count
}

/// Reads the head of a message of IPFIX; returns its sequence number.
fn ipfix_sequence(message: &[u8]) -> u32 {
    assert!(message.len() <= MAX_DATAGRAM, "a message of {} bytes", message.len());
    assert_eq!(word(message, 0), 10 << 16 | message.len() as u32, "version and length");
    assert_eq!(word(message, 16) & 0xffff, message.len() as u32 - 16, "the set's length");
    word(message, 8)
}

pub(super) mod seeds {
    use super::super::packets::{arp, fragments4, pings, tcp4, udp4, udp6};
    use crate::input::put_piece;

    pub(in super::super) fn export() -> Vec<Vec<u8>> {
        let [v4, v6] = pings([10, 0, 2, 1], [0xfd; 16]);
        let mut tagged = udp4([10, 0, 2, 1], 80, b"tagged");
        tagged.splice(12..12, [0x81, 0, 0x20, 5]);
        let frames = [
            tcp4([10, 0, 2, 1], 80, (true, false, false)),
            udp6([0xfd; 16], 53, b"plain"),
            arp(1, [10, 0, 2, 1]),
            v4,
            v6,
            tagged,
            fragments4(&udp4([10, 0, 2, 1], 9, &[5; 100]), 48).swap_remove(1),
        ];
        let seed = |kinds: &[u8]| {
            let mut seed = Vec::new();
            for (frame, kind) in frames.iter().cycle().zip(kinds) {
                seed.extend_from_slice(&[*kind, 1, 10, 0, 8, 16, 0]);
                put_piece(&mut seed, frame);
            }
            seed
        };
        vec![seed(&[0, 1, 2, 3, 4, 5, 6]), seed(&[0; 40]), seed(&[3; 14])]
    }
}
