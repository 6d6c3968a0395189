//! The numbers of what runs.

use trama_api::top::{Numbers, Request};
use trama_api::transaction::VERSION;

use crate::exchange::{NoAnswer, connect, late, patiently, wait};
use crate::{Daemon, Failed};

impl Daemon {
    /// Asks for the numbers of a network, or of all.
    ///
    /// # Errors
    /// There is no daemon, it does not answer in time, or there is no such network.
    pub fn numbers(&self, network: Option<&str>) -> Result<Numbers, Failed> {
        let request = Request { version: VERSION, network: network.map(str::to_owned) };
        let ask = async || connect(self).await?.post("top", &request, None).await;
        wait(self, async { patiently(ask).await.map_err(NoAnswer::reported) }, || late(self))
    }
}
