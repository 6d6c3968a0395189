//! What would happen to a frame.

use trama_api::explain::{Answer, Request};

use crate::exchange::{NoAnswer, connect, late, patiently, wait};
use crate::{Daemon, Failed};

impl Daemon {
    /// Asks what would happen to a frame.
    ///
    /// # Errors
    /// There is no daemon, it does not answer in time, or it refuses.
    pub fn explain(&self, request: &Request) -> Result<Answer, Failed> {
        let ask = async || connect(self).await?.post("explain", request, None).await;
        wait(self, async { patiently(ask).await.map_err(NoAnswer::reported) }, || late(self))
    }
}
