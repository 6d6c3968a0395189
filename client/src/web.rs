//! The page in the browser.

use trama_api::state::Invitation;

use crate::exchange::{NoAnswer, connect, late, patiently, wait};
use crate::{Daemon, Failed};

impl Daemon {
    /// Asks for a code that opens one session of the page.
    ///
    /// # Errors
    /// There is no daemon, it does not answer in time, or the page is off.
    pub fn invite(&self) -> Result<Invitation, Failed> {
        let ask = async || connect(self).await?.post("web", &(), None).await;
        wait(self, async { patiently(ask).await.map_err(NoAnswer::reported) }, || late(self))
    }
}
