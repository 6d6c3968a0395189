//! Filters of captures, and captures.

use trama_capture::filter::{Filter, Glimpse};
use trama_capture::{pcapng, text};

use crate::input::Input;

const REASONS: [&str; 3] = ["ring_full", "no_port", "storm"];

/// A filter, then a frame.
pub(super) fn filter(bytes: &[u8]) {
    let mut input = Input(bytes);
    let words = String::from_utf8_lossy(input.piece());
    let frame = input.rest();
    let _ = text::packet(frame, frame.len() as u32);
    match Filter::parse(&words, &REASONS) {
        Ok(filter) => {
            for drop in [None, Some(0), Some(2)] {
                let _ = filter.matches(&Glimpse { head: frame, len: frame.len(), drop });
            }
            // A filter that reads the same is the same.
            assert_eq!(Filter::parse(&words, &REASONS), Ok(filter));
        }
        Err(mistake) => {
            let columns = 1..=words.chars().count() + 1;
            assert!(columns.contains(&mistake.column), "{mistake}: {words:?}");
        }
    }
}

/// Bytes of a capture, whose blocks do not depend on how they arrive.
pub(super) fn pcapng(bytes: &[u8]) {
    let mut input = Input(bytes);
    let part = usize::from(input.byte()) + 1;
    let bytes = input.rest();
    let whole = blocks(bytes, bytes.len().max(1));
    assert_eq!(blocks(bytes, part), whole, "blocks depend on how the bytes arrive");
}

/// Returns the blocks in words, and whether the bytes are those of a capture.
fn blocks(bytes: &[u8], part: usize) -> (Vec<String>, bool) {
    let (mut reader, mut found) = (pcapng::Reader::default(), Vec::new());
    for part in bytes.chunks(part) {
        reader.push(part);
        loop {
            match reader.next() {
                Ok(Some((_, block))) => {
                    if let pcapng::Block::Frame(frame) = &block {
                        let _ = text::line(frame, "vm1", true);
                    }
                    found.push(format!("{block:?}"));
                }
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

pub(super) mod seeds {
    use std::time::Duration;

    use trama_capture::pcapng::{Frame, Interface, Statistics, Way, Writer};

    use super::super::packets::{arp, pings, tcp4, udp4};
    use crate::input::put_piece;

    pub(in super::super) fn filter() -> Vec<Vec<u8>> {
        let [v4, v6] = pings([10, 0, 2, 1], [0xfd; 16]);
        let seed = |(words, frame): (&str, &Vec<u8>)| {
            let mut seed = Vec::new();
            put_piece(&mut seed, words.as_bytes());
            seed.extend_from_slice(frame);
            seed
        };
        [
            ("tcp and port 80", &tcp4([10, 0, 2, 1], 80, (true, false, false))),
            ("udp or (icmp and not vlan 5) or icmp6", &v4),
            ("host 10.0.2.15 and net 10.0.0.0/8", &udp4([10, 0, 2, 1], 53, b"x")),
            ("ether host 02:00:00:00:00:01 or arp", &arp(1, [10, 0, 2, 1])),
            ("drop ring_full or drop storm", &v6),
            ("src host fd00::f and ip6 and greater 20", &v6),
            ("((((not not less 99))))", &v4),
            ("tcp src port 10-99 or 443 and ether dst 02:00:00:00:00:01 and vlan", &v4),
        ]
        .map(seed)
        .into()
    }

    pub(in super::super) fn pcapng() -> Vec<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), "trama", 128).unwrap();
        let port = Interface { name: "vm1".into(), description: "a guest".into() };
        let interface = writer.interface(&port).unwrap();
        let bytes = udp4([10, 0, 2, 1], 53, b"payload");
        let time = Duration::from_secs(1_700_000_000);
        writer
            .frame(&Frame {
                interface,
                time,
                way: Way::In,
                id: 7,
                queue: 1,
                missed: 3,
                comment: Some("ring_full".into()),
                len: bytes.len() as u32,
                bytes: (&bytes).into(),
            })
            .unwrap();
        let statistics =
            Statistics { interface, time, captured: 5, missed: 2, comment: Some("over".into()) };
        writer.statistics(&statistics).unwrap();
        let capture = std::mem::take(writer.get_mut());
        [0, 3, 255].map(|part| [&[part], &capture[..]].concat()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_valid() {
        for seed in seeds::filter() {
            let words = String::from_utf8(Input(&seed).piece().to_vec()).unwrap();
            Filter::parse(&words, &REASONS).unwrap();
        }
        for seed in seeds::pcapng() {
            let (blocks, is_capture) = blocks(&seed[1..], 7);
            assert!(is_capture && blocks.len() >= 2, "{blocks:?}");
        }
    }
}
