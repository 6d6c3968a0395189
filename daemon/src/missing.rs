//! Says what of the sandbox is not in force, once for the whole daemon.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Warns of each text that was not said before.
pub fn warn(texts: &[String]) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for text in texts {
        if said.insert(text.clone()) {
            tracing::warn!("not in force: {text}");
        }
    }
}
