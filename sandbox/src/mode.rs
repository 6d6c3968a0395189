//! How strictly a process is restricted, and what could not be put in force.

use std::fmt;
use std::str::FromStr;

/// With the value `trap` in this environment variable, a call that is not on the list ends the
/// process: it prints the call's number and the thread's name. Tests use it, so that a list with a
/// gap fails them.
pub const TRAP_VARIABLE: &str = "TRAMA_SANDBOX";

/// How strictly files and system calls are restricted. Privileges are dropped in each mode.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mode {
    /// Calls that are not on the list fail, and files that are not named cannot be opened.
    #[default]
    Enforce,
    /// The kernel logs calls that are not on the list and executes them. Files are not restricted.
    Log,
    /// Neither calls nor files are restricted.
    Off,
}

impl Mode {
    /// The name, as it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Log => "log",
            Mode::Off => "off",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no mode.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not \"enforce\", \"log\" or \"off\"")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        let modes = [Mode::Enforce, Mode::Log, Mode::Off];
        let found = modes.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// A part of the sandbox that is not in force, and why. The process goes on without it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct Missing {
    pub(crate) part: &'static str,
    pub(crate) reason: String,
}

impl Missing {
    pub(crate) fn new(part: &'static str, reason: impl fmt::Display) -> Missing {
        Missing { part, reason: reason.to_string() }
    }

    /// That `mode` leaves out `part`; `None` if `mode` enforces it.
    pub(crate) fn by(mode: Mode, part: &'static str) -> Option<Missing> {
        let reason = format!("daemon.sandbox is \"{mode}\"");
        (mode != Mode::Enforce).then_some(Missing { part, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for mode in [Mode::Enforce, Mode::Log, Mode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "on".parse::<Mode>().unwrap_err();
        assert_eq!(error.to_string(), r#""on" is not "enforce", "log" or "off""#);
    }
}
