//! Settings of Open vSwitch that trama keeps for the software that set them, and does not act on.

use std::collections::BTreeMap;

/// Values by column, each in Open vSwitch's notation; an absent column has its default.
pub type Kept = BTreeMap<String, String>;
