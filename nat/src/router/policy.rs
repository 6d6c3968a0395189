//! What machines may reach through the gateway.

/// Decides where flows may lead.
#[derive(Default)]
pub(crate) struct Policy {}
