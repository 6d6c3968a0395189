//! The cache of a host: what it knew of the cluster, in a file, so that it starts while the store
//! is not reached.
//!
//! [`MAGIC`], then records:
//!
//! | octets | what |
//! |---|---|
//! | 4 | length of the body, most significant octet first, as all numbers |
//! | n | body |
//! | 4 | CRC-32 of length and body |
//!
//! The first octet of a body is its kind. `1`, of the host: epoch (8). `2`, a row: revision (8),
//! length (2) and octets of the key, the value to the end. `3` ends the rows of a scope: revision
//! up to which they are known (8), the scope as text.
//!
//! A file is written as a whole and renamed into place. One that is damaged all the same gives its
//! scopes up to the damage: a scope is only taken with the record that ends it, as rows without
//! their revision could be anything. The others are read from the store as at a first start.

use std::sync::Arc;

use crate::key::Scope;
use crate::row;
use crate::store::{Entry, Revision};

/// The first octets of a cache, with the version of its format.
pub const MAGIC: &[u8; 16] = b"trama cluster 1\n";

const HOST: u8 = 1;
const ROW: u8 = 2;
const SCOPE: u8 = 3;
/// Longest body: a row with the longest value. Keys are made of at most three names.
const MAX_BODY: usize = 1 + 8 + 2 + 256 + row::MAX_LEN;

/// What a host knew of the cluster.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Cache {
    /// The epoch of the host, [`crate::row::Host::epoch`].
    pub epoch: u64,
    /// The scopes that had been read.
    pub scopes: Vec<CachedScope>,
}

/// The rows of a scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CachedScope {
    /// The scope.
    pub scope: Scope,
    /// Changes after this revision are not in `rows`.
    pub revision: Revision,
    /// Its rows; each has a value.
    pub rows: Vec<Entry>,
}

/// What [`Cache::decode`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A whole cache.
    Whole,
    /// A cache that is damaged from this octet on; the scopes before it are kept.
    Damaged(usize),
    /// No cache, or one in another format.
    Foreign,
}

impl Cache {
    /// Returns the contents of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        record(&mut out, HOST, &[&self.epoch.to_be_bytes()]);
        for CachedScope { scope, revision, rows } in &self.scopes {
            for Entry { key, value, revision } in rows {
                let Some(value) = value else { continue };
                let length = (key.len() as u16).to_be_bytes();
                let parts = [&revision.0.to_be_bytes()[..], &length, key.as_bytes(), value];
                record(&mut out, ROW, &parts);
            }
            let text = scope.to_string();
            record(&mut out, SCOPE, &[&revision.0.to_be_bytes(), text.as_bytes()]);
        }
        out
    }

    /// Reads the contents of the file as far as they are whole.
    pub fn decode(bytes: &[u8]) -> (Cache, Found) {
        let mut cache = Cache::default();
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return (cache, Found::Foreign) };
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let next = body(rest).and_then(|(body, next)| {
                cache.take(body, &mut rows)?;
                Some(next)
            });
            let Some(next) = next else {
                return (cache, Found::Damaged(bytes.len() - rest.len()));
            };
            rest = next;
        }
        let found = if rows.is_empty() { Found::Whole } else { Found::Damaged(bytes.len()) };
        (cache, found)
    }

    /// Takes the body of a record; `rows` are those whose scope has not ended.
    fn take(&mut self, body: &[u8], rows: &mut Vec<Entry>) -> Option<()> {
        let (kind, body) = body.split_first()?;
        let (number, rest) = body.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        match *kind {
            HOST if rest.is_empty() => self.epoch = number,
            ROW => {
                let (length, rest) = rest.split_first_chunk()?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (key, value) = rest.split_at_checked(length)?;
                let key: Arc<str> = std::str::from_utf8(key).ok()?.into();
                rows.push(Entry { key, value: Some(value.into()), revision: Revision(number) });
            }
            SCOPE => {
                let scope = std::str::from_utf8(rest).ok()?.parse().ok()?;
                let (revision, rows) = (Revision(number), std::mem::take(rows));
                self.scopes.push(CachedScope { scope, revision, rows });
            }
            _ => return None,
        }
        Some(())
    }
}

/// Appends a record.
fn record(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let start = out.len();
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_be_bytes());
}

/// The body of the first record and what follows the record; `None` if it is not whole.
fn body(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    if length > MAX_BODY {
        return None;
    }
    let (framed, rest) = bytes.split_at_checked(4 + length)?;
    let (checksum, rest) = rest.split_first_chunk()?;
    (crc32fast::hash(framed) == u32::from_be_bytes(*checksum)).then_some((&framed[4..], rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_key, any_scope};

    fn any_row() -> impl Strategy<Value = Entry> {
        let value = prop::collection::vec(any::<u8>(), 0..=row::MAX_LEN);
        (any_key(), value, any::<u64>()).prop_map(|(key, value, revision)| Entry {
            key: key.to_string().into(),
            value: Some(value.into()),
            revision: Revision(revision),
        })
    }

    fn any_cache() -> impl Strategy<Value = Cache> {
        let rows = prop::collection::vec(any_row(), 0..4);
        let scope = (any_scope(), any::<u64>(), rows).prop_map(|(scope, revision, rows)| {
            CachedScope { scope, revision: Revision(revision), rows }
        });
        (any::<u64>(), prop::collection::vec(scope, 0..4))
            .prop_map(|(epoch, scopes)| Cache { epoch, scopes })
    }

    proptest! {
        #[test]
        fn a_cache_is_read_back(cache in any_cache()) {
            prop_assert_eq!(Cache::decode(&cache.encode()), (cache, Found::Whole));
        }

        #[test]
        fn damage_leaves_the_scopes_before_it(
            cache in any_cache(), place in any::<prop::sample::Index>(), bit in 0..8
        ) {
            let mut bytes = cache.encode();
            let at = place.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let (read, found) = Cache::decode(&bytes);
            prop_assert_ne!(found, Found::Whole);
            prop_assert!(cache.scopes.starts_with(&read.scopes));
            if let Found::Damaged(from) = found {
                prop_assert!(from <= at);
            }
        }

        #[test]
        fn a_part_of_a_cache_has_whole_scopes(cache in any_cache(), end in any::<prop::sample::Index>()) {
            let bytes = cache.encode();
            let (read, _) = Cache::decode(&bytes[..end.index(bytes.len())]);
            prop_assert!(cache.scopes.starts_with(&read.scopes));
        }
    }
}
