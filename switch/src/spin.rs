//! How long an idle worker polls, and how people write it: `never`, `60us`, `always`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a worker polls silent ports before it sleeps.
///
/// ```
/// use std::time::Duration;
///
/// use trama_switch::Spin;
///
/// assert_eq!("60us".parse(), Ok(Spin::For(Duration::from_micros(60))));
/// assert_eq!(Spin::For(Duration::from_millis(1)).to_string(), "1ms");
/// assert_eq!("0us".parse(), Ok(Spin::Never));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spin {
    /// Sleeps at once.
    Never,
    /// Polls for this long after a port's last frame.
    For(Duration),
    /// Never sleeps.
    Always,
}

/// Units of time in nanoseconds, longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The text is neither `never` nor `always` nor a whole number with a unit of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("give never, always, or a time such as 20us")]
pub struct ParseSpinError;

impl From<Duration> for Spin {
    /// Zero is [`Spin::Never`].
    fn from(time: Duration) -> Spin {
        if time.is_zero() { Spin::Never } else { Spin::For(time) }
    }
}

impl FromStr for Spin {
    type Err = ParseSpinError;

    fn from_str(text: &str) -> Result<Spin, ParseSpinError> {
        match text {
            "never" | "0" => Ok(Spin::Never),
            "always" => Ok(Spin::Always),
            _ => nanos(text).map(|nanos| Duration::from_nanos(nanos).into()).ok_or(ParseSpinError),
        }
    }
}

/// Reads a whole number with a unit, with or without a space between them.
fn nanos(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes a time in the longest unit that holds it exactly; [`FromStr`] reads it back.
impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = match self {
            Spin::Never | Spin::For(Duration::ZERO) => return f.write_str("never"),
            Spin::Always => return f.write_str("always"),
            Spin::For(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        };
        let exact = UNITS.into_iter().find(|(_, factor)| time.is_multiple_of(*factor));
        let (unit, factor) = exact.unwrap_or(("ns", 1));
        write!(f, "{}{unit}", time / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_is_a_word_or_a_time() {
        let cases = [
            ("never", Spin::Never),
            ("0us", Spin::Never),
            ("always", Spin::Always),
            ("20us", Spin::For(Duration::from_micros(20))),
            ("1 ms", Spin::For(Duration::from_millis(1))),
            ("2s", Spin::For(Duration::from_secs(2))),
        ];
        for (text, spin) in cases {
            assert_eq!(text.parse(), Ok(spin), "{text}");
            assert_eq!(spin.to_string().parse(), Ok(spin), "{text}");
        }
        for wrong in ["", "20", "us", "-1us", "99999999999999999999s", "18446744073709551615s"] {
            assert_eq!(wrong.parse::<Spin>(), Err(ParseSpinError), "{wrong}");
        }
    }
}
