//! What the answers of all requests share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::assets::Assets;
use crate::hub::Hub;
use crate::session::Key;
use crate::upstream::Upstream;

/// Streams of changes at once.
pub(crate) const READERS: usize = 32;
/// Captures at once.
pub(crate) const CAPTURES: usize = 4;

/// What the answers of all requests share.
pub(crate) struct App {
    pub(crate) hub: Arc<Hub>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) key: Key,
    /// Names of this server, besides those of loopback.
    pub(crate) hosts: Vec<String>,
    pub(crate) assets: Assets,
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) captures: Arc<Semaphore>,
}
