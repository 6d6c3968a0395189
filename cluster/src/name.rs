//! Names of hosts, networks and ports, as the configuration allows them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Longest name, in octets.
const MAX_LEN: usize = 63;

/// 1 to 63 letters, digits and any of `-_.:@+`, without `-` at the start. A name has no `/`, and so
/// is one part of a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct Name(SmolStr);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a name: use 1 to {MAX_LEN} letters, digits and any of -_.:@+ (no '-' at the start)")]
pub struct NameError;

fn check(text: &str) -> Result<(), NameError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
    let has_length = (1..=MAX_LEN).contains(&text.len());
    if has_length && text.chars().all(is_allowed) && !text.starts_with('-') {
        Ok(())
    } else {
        Err(NameError)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        check(text).map(|()| Name(text.into()))
    }
}

impl TryFrom<SmolStr> for Name {
    type Error = NameError;

    fn try_from(text: SmolStr) -> Result<Name, NameError> {
        check(&text).map(|()| Name(text))
    }
}

impl From<Name> for SmolStr {
    fn from(name: Name) -> SmolStr {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
