//! Entries of the keeper: opened things that outlive `tramad`.

use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trama_frame::checksum;
use trama_keeper::Keeper;

/// The format of values; what another version has put counts as absent. A value is this number, a
/// checksum of the rest, and the rest.
const FORMAT: u32 = 3;

/// An entry of the keeper, which is removed when this is dropped.
#[derive(Debug)]
pub struct Entry {
    keeper: Keeper,
    key: String,
}

impl Entry {
    /// Leaves the entry with the keeper, as another value takes care of it.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// What was asked for.
pub(crate) struct Asked<T> {
    pub(crate) opened: T,
    /// Its entry, if the keeper has it.
    pub(crate) entry: Option<Entry>,
    /// Why what an earlier switch had is not used.
    pub(crate) refused: Option<String>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A keeper that has ended keeps nothing.
        let _ = self.keeper.remove(&self.key);
    }
}

/// What the keeper has under a key: the value, the descriptors and the entry.
pub(crate) type Found<T> = (T, Vec<OwnedFd>, Entry);

/// Looks for an entry. One that cannot be read is an error, and is removed.
pub(crate) fn find<T: DeserializeOwned>(
    keeper: &Keeper,
    key: &str,
) -> Result<Option<Found<T>>, Unreadable> {
    let Ok(Some(kept)) = keeper.get(key) else { return Ok(None) };
    let entry = Entry { keeper: keeper.clone(), key: key.to_owned() };
    Ok(Some((read(&kept.value).ok_or(Unreadable)?, kept.fds, entry)))
}

/// An entry was put by another version, or is torn.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Returns an entry; `None`, and no entry is left, if the keeper has none that can be read.
pub(crate) fn get<T: DeserializeOwned>(keeper: &Keeper, key: &str) -> Option<Found<T>> {
    find(keeper, key).ok()?
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let ((format, sum), value) = postcard::take_from_bytes::<(u32, u16)>(bytes).ok()?;
    let is_whole = format == FORMAT && sum == checksum::internet(value);
    match postcard::take_from_bytes(value).ok().filter(|_| is_whole)? {
        (value, []) => Some(value),
        _ => None,
    }
}

fn written<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let value = postcard::to_allocvec(value).ok()?;
    let mut bytes = postcard::to_allocvec(&(FORMAT, checksum::internet(&value))).ok()?;
    bytes.extend(value);
    Some(bytes)
}

/// Puts an entry. A keeper that does not take it is no error: the thing ends with this process.
pub(crate) fn put<T: Serialize>(
    keeper: &Keeper,
    key: &str,
    value: &T,
    fds: &[BorrowedFd<'_>],
) -> Option<Entry> {
    keeper.put(key, &written(value)?, fds).ok()?;
    Some(Entry { keeper: keeper.clone(), key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::request::{Reply, Request, TapRequest};

    use super::*;

    fn value() -> (Request, Reply) {
        let request = TapRequest {
            ifname: "tap0".into(),
            netns: Some("red".into()),
            address: vec![("10.0.0.1".parse().unwrap(), 24)],
            mtu: 1500,
            mac: Some([2, 0, 0, 0, 0, 1]),
            vnet_header: true,
        };
        let (namespace, mac) = (Some((4, 4_026_532_008)), None);
        (Request::Tap(request), Reply::Tap { offloads: 63, vnet_header: true, namespace, mac })
    }

    #[test]
    fn a_value_is_read_whole_or_not_at_all() {
        let bytes = written(&value()).unwrap();
        assert_eq!(read::<(Request, Reply)>(&bytes), Some(value()));
        for cut in 0..bytes.len() {
            assert_eq!(read::<(Request, Reply)>(&bytes[..cut]), None, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read::<(Request, Reply)>(&bytes), None, "bit {bit} flipped");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read::<(Request, Reply)>(&longer), None);
    }
}
