//! Durations and sizes as people write them: `"20us"`, `"300s"`, `"8Ki"`.

use std::time::Duration;

/// Units of time in nanoseconds, longest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of counts and bytes.
const SIZE_UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("B", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a whole number with a unit, such as `"20us"`; `None` if it is not one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_with(text, &TIME_UNITS).map(Duration::from_nanos)
}

/// Reads a whole number with or without a unit, such as `"8Ki"`; `None` if it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_with(text, &SIZE_UNITS)
}

/// Writes a duration in the longest unit that holds it exactly; [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    // Up to an hour, seconds are used: "300s" is the usual form of an ageing time.
    let units = TIME_UNITS.iter().filter(|(unit, _)| *unit != "m" || nanos >= TIME_UNITS[1].1);
    for (unit, factor) in units {
        if nanos.is_multiple_of(*factor) {
            return format!("{}{unit}", nanos / factor);
        }
    }
    format!("{nanos}ns")
}

/// Writes bytes in the longest unit that holds them exactly; [`parse_size`] reads them back.
pub fn format_bytes(bytes: u64) -> String {
    let units = SIZE_UNITS.iter().rev().filter(|(unit, _)| unit.ends_with("iB"));
    let longest = units.into_iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    longest
        .map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn parse_with(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_duration("20us"), Some(Duration::from_micros(20)));
        assert_eq!(parse_duration("12 h"), Some(Duration::from_secs(43_200)));
        assert_eq!(parse_size("8Ki"), Some(8192));
        assert_eq!(parse_size("1500"), Some(1500));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("2 TiB"), Some(2 << 40));
        assert_eq!(format_bytes(64 << 20), "64MiB");
        assert_eq!(format_bytes(0), "0B");
        for bad in ["", "s", "20", "1.5s", "-1s", "20 parsecs", "99999999999999999999d", "300000d"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(format_duration(Duration::from_secs(300)), "300s");
        assert_eq!(format_duration(Duration::from_secs(43_200)), "12h");
        assert_eq!(format_duration(Duration::from_secs(5400)), "90m");
    }

    proptest! {
        #[test]
        fn sizes_survive(bytes in any::<u64>(), zeros in 0u32..64) {
            let bytes = bytes << zeros;
            prop_assert_eq!(parse_size(&format_bytes(bytes)), Some(bytes));
        }

        #[test]
        fn durations_survive(nanos in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
    }
}
