//! UUIDs of records: version 5 (RFC 9562, section 5.5), from table and name.
//!
//! A record has the same UUID in every run and on every machine, so none is stored: but for
//! records that may be created under any UUID, within a transaction.

use std::sync::LazyLock;

use uuid::Uuid;

use crate::config::model::Mirror;

/// The namespace of trama's records, derived from the project's name.
static NAMESPACE: LazyLock<Uuid> = LazyLock::new(|| Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"trama"));

/// The UUID of the record `name` in `table`.
pub(super) fn of(table: &str, name: &str) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{table}/{name}").as_bytes()).to_string()
}

/// The UUID of a mirror: that with which it was created, or that of its name.
pub(super) fn of_mirror(mirror: &Mirror) -> String {
    mirror.uuid.clone().unwrap_or_else(|| of("Mirror", &mirror.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trama_api::value::is_uuid;

    use super::*;

    #[test]
    fn identities_are_stable_and_differ_by_table_and_name() {
        assert_eq!(of("Port", "vm1"), of("Port", "vm1"));
        assert_ne!(of("Port", "vm1"), of("Interface", "vm1"));
        assert_ne!(of("Port", "vm1"), of("Port", "vm2"));
        assert!(is_uuid(&of("Port", "vm1")));
        assert!(!is_uuid("5c458bc8"));
    }

    proptest! {
        /// The crate that makes UUIDs reads the same texts as UUIDs.
        #[test]
        fn uuids_are_recognised(text in "[0-9a-fA-F]{8}(-[0-9a-fg]{4}){3}-[0-9a-f{]{12}|.{34,37}") {
            let wanted = text.len() == 36 && Uuid::try_parse(&text).is_ok();
            prop_assert_eq!(is_uuid(&text), wanted);
        }
    }
}
