//! Names of ports, which follow from what an engine calls the container and its interface.

use sha2::{Digest, Sha256};

/// Bytes of the digest in a name: sixteen digits.
const BYTES: usize = 8;

/// The name of a container's port, such as `cni-0123456789abcdef`.
pub(crate) fn of_port(engine: &str, container: &str, ifname: &str) -> String {
    let digest = Sha256::digest(format!("{container}/{ifname}"));
    let digits: String = digest.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("{engine}-{digits}")
}

/// A word as a value of a column: a JSON string.
pub(crate) fn quoted(word: &str) -> String {
    serde_json::Value::from(word).to_string()
}

/// A column that is a set of words.
pub(crate) fn set<'a>(column: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    format!("{column}=[{}]", words.join(","))
}

/// A key of the column `external_ids`.
pub(crate) fn external_id(key: &str, value: &str) -> String {
    format!("external_ids:{key}={}", quoted(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_beginning_of_the_digest() {
        // printf c1/eth0 | sha256sum
        assert_eq!(of_port("cni", "c1", "eth0"), "cni-d72e032fedd94c16");
        assert_ne!(of_port("cni", "c1", "eth0"), of_port("cni", "c1", "eth1"));
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(external_id("cni-network", "a\"b,c"), "external_ids:cni-network=\"a\\\"b,c\"");
        assert_eq!(set("names", ["a", "b"]), "names=[\"a\",\"b\"]");
    }
}
