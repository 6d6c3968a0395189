use super::*;
use proptest::prelude::*;

/// RFC 1071 word for word.
fn slow_sum(data: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in data.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum as every machine and every length computes it.
fn all_ways(data: &[u8]) -> [u16; 2] {
    [sum_words(data), sum_wide(data)].map(|native| u16::from_be(fold64(native)))
}

#[test]
fn example_of_rfc_1071() {
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(fold(sum(&data)), 0xddf2);
    assert_eq!(internet(&data), !0xddf2);
    assert_eq!(internet(&[]), 0xffff);
}

/// The most that a sum has to hold, at every length of the tail.
#[test]
fn all_ones_never_overflow() {
    let ones = vec![0xff; 1 << 17];
    for len in (0..300).chain(ones.len() - 70..ones.len()) {
        for sum in all_ways(&ones[..len]) {
            assert_eq!(sum, slow_sum(&ones[..len]), "{len}");
        }
    }
}

#[test]
fn fold_keeps_the_residue() {
    for value in [0, 1, 0xffff, 0x1_0000, 0x1_ffff, 0xffff_ffff, 0x1_0000_ffff_ffff, u64::MAX] {
        let folded = u64::from(fold64(value));
        assert_eq!(folded % 0xffff, value % 0xffff, "{value:x}");
        assert_eq!(folded == 0, value == 0, "{value:x}");
    }
}

fn needs_csum(csum_start: u16, csum_offset: u16) -> VnetHeader {
    VnetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..VnetHeader::default() }
}

#[test]
fn completion_out_of_bounds_changes_nothing() {
    for (start, offset) in [(61, 0), (60, 0), (59, 0), (58, 1), (0, 59), (u16::MAX, u16::MAX)] {
        let mut frame = [0xab; 60];
        let mut header = needs_csum(start, offset);
        complete(&mut frame, &mut header);
        assert_eq!((frame, header), ([0xab; 60], needs_csum(start, offset)));
    }
}

#[test]
fn udp_never_sends_zero() {
    // The covered words sum to 0xffff, so the checksum comes out as zero.
    let covered = [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (offset, expected) in [(6, 0xffff), (16, 0)] {
        let mut frame = covered;
        complete(&mut frame, &mut needs_csum(0, offset));
        let at = usize::from(offset);
        assert_eq!(u16::from_be_bytes([frame[at], frame[at + 1]]), expected);
    }
}

proptest! {
    #[test]
    fn every_way_is_the_slow_one(
        data in proptest::collection::vec(any::<u8>(), 0..4096),
        skip in 0usize..33,
    ) {
        let data = &data[skip.min(data.len())..];
        for sum in all_ways(data) {
            prop_assert_eq!(sum, slow_sum(data));
        }
        prop_assert_eq!(fold(sum(data)), slow_sum(data));
    }

    #[test]
    fn stretches_combine(
        data in proptest::collection::vec(any::<u8>(), 0..600),
        cut in 0usize..600,
        carries: u16,
    ) {
        let cut = cut.min(data.len());
        let (first, second) = data.split_at(cut);
        prop_assert_eq!(fold(combine(sum(first), sum(second), cut)), slow_sum(&data));
        let even = cut & !1;
        prop_assert_eq!(fold(add(sum(&data[..even]), &data[even..])), slow_sum(&data));
        // Any u32 is a partial sum.
        let unfolded = u32::from(carries) << 16 | sum(&data);
        prop_assert_eq!(add(unfolded, &[]) % 0xffff, (u32::from(carries) + sum(&data)) % 0xffff);
    }

    #[test]
    fn completed_data_sums_to_ones(
        mut frame in proptest::collection::vec(any::<u8>(), 34..2000),
        start in 14u16..30,
        offset in 0u16..2000,
    ) {
        // Even, as every protocol has it.
        let offset = (offset % (frame.len() as u16 - start - 2)) & !1;
        let before = frame.clone();
        let mut header = needs_csum(start, offset);
        let at = usize::from(start + offset);
        let partial = u16::from_be_bytes([frame[at], frame[at + 1]]);
        complete(&mut frame, &mut header);
        prop_assert_eq!(header, VnetHeader::default());
        prop_assert_eq!(&frame[..at], &before[..at]);
        prop_assert_eq!(&frame[at + 2..], &before[at + 2..]);
        let whole = combine(sum(&frame[usize::from(start)..]), u32::from(partial), 0);
        prop_assert_eq!(fold(whole), 0xffff);
    }
}
