//! Plug-ins by which container engines attach containers to networks of trama.
//!
//! An engine runs a plug-in with its own rights, once for each step in a container's life, and
//! speaks JSON with it. [`cni`] is the program `trama-cni`, [`netavark`] is `trama-netavark`. Both
//! make the interface in the container's namespace and hand it to the daemon, as `tramactl attach`
//! does ([`trama_client::Interface`]). Docker's is a program that runs and answers instead
//! ([`docker`], `trama-docker`), and dockerd moves the interface.
//!
//! Plug-ins keep no state: a port's name follows from the container's identity (`names.rs`), and
//! the rest is in the column `external_ids` of the port (`ports.rs`).
#![forbid(unsafe_code)]

pub mod cni;
pub mod docker;
mod forwards;
mod names;
pub mod netavark;
mod networks;
mod ports;

use std::io::Read;

/// Largest input of a plug-in, in bytes.
const MAX_INPUT: u64 = 4 << 20;

/// Reads what an engine sends, to its end.
///
/// # Errors
/// It cannot be read.
pub fn read_input(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
