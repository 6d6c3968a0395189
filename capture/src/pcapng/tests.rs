//! What is written is read again; Wireshark reads it, too.

use std::process::Command;

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn frames() -> impl Strategy<Value = Frame<'static>> {
    let texts = (option::of(".{0,50}"), any::<bool>());
    let numbers = (0..2_u32, 0..1_u64 << 62, any::<u64>(), any::<u32>(), any::<u64>());
    (numbers, texts, vec(any::<u8>(), 0..100), 0..1000_u32).prop_map(
        |((interface, time, id, queue, missed), (comment, is_in), bytes, more)| Frame {
            interface,
            time: Duration::from_nanos(time),
            way: if is_in { Way::In } else { Way::Out },
            id,
            queue,
            missed,
            comment: comment.map(Cow::Owned),
            len: bytes.len() as u32 + more,
            bytes: Cow::Owned(bytes),
        },
    )
}

fn interfaces() -> [Interface<'static>; 2] {
    let interface = |name, description| Interface { name, description };
    [
        interface("vm1".into(), "lab, access VLAN 10".into()),
        interface("höst".into(), "lab, trunk".into()),
    ]
}

fn written(frames: &[Frame<'_>], statistics: &[Statistics<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "trama 1.0", MAX_SNAPLEN).unwrap();
    for (place, interface) in interfaces().iter().enumerate() {
        assert_eq!(writer.interface(interface).unwrap(), place as u32);
    }
    frames.iter().for_each(|frame| writer.frame(frame).unwrap());
    statistics.iter().for_each(|it| writer.statistics(it).unwrap());
    std::mem::take(writer.get_mut())
}

fn ends() -> [Statistics<'static>; 2] {
    let time = Duration::new(1_800_000_000, 123_456_789);
    let end = |interface, captured, missed, comment: Option<&'static str>| Statistics {
        interface,
        time,
        captured,
        missed,
        comment: comment.map(Cow::Borrowed),
    };
    [end(0, 7, 0, None), end(1, u64::MAX - 3, 3, Some("the port was deleted"))]
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        frames in vec(frames(), 0..10),
        cut in 1..200_usize,
    ) {
        let file = written(&frames, &ends());
        let (mut reader, mut whole) = (Reader::default(), Vec::new());
        let mut expected = vec![Block::Section];
        expected.extend(interfaces().map(Block::Interface));
        expected.extend(frames.into_iter().map(Block::Frame));
        expected.extend(ends().map(Block::Statistics));
        let mut expected = expected.into_iter();
        for part in file.chunks(cut) {
            reader.push(part);
            while let Some((bytes, block)) = reader.next().unwrap() {
                prop_assert_eq!(Some(block), expected.next());
                whole.extend_from_slice(bytes);
            }
        }
        prop_assert!(reader.is_whole() && expected.next().is_none());
        prop_assert_eq!(whole, file);
    }

    #[test]
    fn no_bytes_panic(
        frames in vec(frames(), 1..3),
        at in any::<proptest::sample::Index>(),
        noise in vec(any::<u8>(), 0..40),
    ) {
        let mut file = written(&frames, &ends());
        let at = at.index(file.len());
        file.splice(at..(at + noise.len()).min(file.len()), noise);
        let mut reader = Reader::default();
        reader.push(&file);
        while let Ok(Some(_)) = reader.next() {}
    }
}

#[test]
fn another_file_is_refused() {
    for bytes in [&b"HTTP/1.1 200 OK\r\n"[..], &[0xff; 64], &[0; 64]] {
        let mut reader = Reader::default();
        reader.push(bytes);
        let error = reader.next().unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
        assert!(!reader.is_whole());
    }
}

#[test]
fn another_crate_reads_the_same() {
    let frame = Frame {
        interface: 0,
        time: Duration::new(7, 9),
        way: Way::In,
        id: 1,
        queue: 0,
        missed: 0,
        comment: Some("why".into()),
        len: 61,
        bytes: vec![1; 61].into(),
    };
    let file = written(&[frame], &ends());
    let mut reader = pcap_file::pcapng::PcapNgReader::new(file.as_slice()).unwrap();
    let mut blocks = 0;
    while let Some(block) = reader.next_block() {
        blocks += 1;
        if let Some(packet) = block.unwrap().into_enhanced_packet() {
            assert_eq!((packet.timestamp, packet.original_len), (Duration::new(7, 9), 61));
            assert!(packet.options.contains(&EnhancedPacketOption::Flags(1)));
            assert!(packet.options.contains(&EnhancedPacketOption::Comment("why".into())));
        }
    }
    assert_eq!(blocks, 5);
}

#[test]
fn wireshark_reads_every_field() {
    let frame = Frame {
        interface: 1,
        time: Duration::new(1_800_000_000, 123_456_789),
        way: Way::Out,
        id: 0x0102_0304_0506_0708,
        queue: 5,
        missed: 9,
        comment: Some("dropped at vm1: runt: short".into()),
        len: 1500,
        bytes: vec![0xff; 60].into(),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.pcapng");
    std::fs::write(&file, written(&[frame], &ends())).unwrap();
    let fields = [
        ("frame.interface_name", "höst"),
        ("frame.interface_description", "lab, trunk"),
        ("frame.time_epoch", "1800000000.123456789"),
        ("frame.packet_flags_direction", "0x00000002"),
        ("frame.packet_id", "72623859790382856"),
        ("frame.interface_queue", "5"),
        ("frame.drop_count", "9"),
        ("frame.comment", "dropped at vm1: runt: short"),
        ("frame.len", "1500"),
        ("frame.cap_len", "60"),
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&file).args(["-T", "fields"]);
    for (field, _) in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark; scripts/install.sh test installs it");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), &output.stderr);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(errors));
    let found: Vec<_> = text.trim_end().split('\t').collect();
    assert_eq!(found, fields.map(|(_, value)| value));
    let summary = Command::new("capinfos").arg("-A").arg(&file).output().unwrap();
    let summary = String::from_utf8_lossy(&summary.stdout);
    for line in [
        "Time precision = nanoseconds (9)",
        "Capture application: trama 1.0",
        "Number of stat entries = 1",
    ] {
        assert!(summary.contains(line), "{line}: {summary}");
    }
}
