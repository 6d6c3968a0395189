//! The mode of a socket, a key of `[daemon]` and of `[[port]]`.

use trama_vhost_net_backend::access::parse_mode;

use super::reader::Reader;
use crate::Fault;
use crate::config::model::socket::SocketMode;

/// The key `socket-mode`.
pub(super) fn read_mode(reader: &mut Reader<'_, '_, '_>) -> Option<SocketMode> {
    let text = reader.string("socket-mode")?;
    reader.converted("socket-mode", parse_mode(&text).ok().map(SocketMode), || {
        Fault::new(format!("{text:?} is not a socket's mode"), r#"use "0600" to "0666""#)
    })
}
