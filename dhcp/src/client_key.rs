//! The key that identifies a client in the lease table and in the lease store.

use trama_frame::MacAddr;

/// Identifies a client: a tag and octets, comparable and storable.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientKey(pub(crate) Box<[u8]>);

impl ClientKey {
    /// Longest key in octets: the tag, a client identifier, a hardware address.
    pub const MAX_LEN: usize = 1 + 255 + 6;

    /// A client known by its hardware address.
    pub fn from_mac(mac: MacAddr) -> ClientKey {
        ClientKey([&[0], &mac.0[..]].concat().into())
    }

    /// A client known by its identifier (option 61).
    pub fn from_id(id: &[u8]) -> ClientKey {
        ClientKey([&[1], id].concat().into())
    }

    /// A client whose identifier another client uses already: the hardware address is added.
    pub fn from_id_and_mac(id: &[u8], mac: MacAddr) -> ClientKey {
        ClientKey([&[2], &mac.0[..], id].concat().into())
    }
}
