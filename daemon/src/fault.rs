//! What is wrong and what to do about it, as people are told.

use std::fmt;

/// What is wrong, and what to do about it. Displayed as `message; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty if the message says it all.
    pub remedy: String,
}

impl Fault {
    /// A fault with its remedy.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { message: message.into(), remedy: remedy.into() }
    }

    /// A fault whose message says it all.
    pub fn plain(message: impl Into<String>) -> Fault {
        Fault::new(message, "")
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault::plain(message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_shown_with_its_remedy() {
        assert_eq!(Fault::new("is empty", "add a name").to_string(), "is empty; add a name");
        assert_eq!(Fault::plain("is empty").to_string(), "is empty");
    }
}
