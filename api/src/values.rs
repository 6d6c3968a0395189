//! The words that columns with a choice of them take, and what names of hosts are.

/// The words of `loop` of Port.
pub const LOOP: &[&str] = &["block", "detect", "off"];
/// The words of `mode` of Bridge.
pub const MODE: &[&str] = &["bridged", "host-only", "internal", "nat", "nat-network"];
/// The words of `promiscuous` of Port.
pub const PROMISCUOUS: &[&str] = &["allow-all", "allow-vms", "deny"];
/// The words of `reflect` of Bridge.
pub const REFLECT: &[&str] = &["mdns", "ssdp"];
/// The words of `spoof` of Port.
pub const SPOOF: &[&str] = &["allow", "deny"];
/// The words of `vlan_mode` of Port.
pub const VLAN_MODE: &[&str] = &["access", "native-tagged", "native-untagged", "trunk"];

/// The words of the column of this name, or of an option as `options:role`; none if it takes
/// others. No two tables have a column of the same name and other words.
pub fn of_column(name: &str) -> &'static [&'static str] {
    match name {
        "cable" => &["false", "true"],
        "loop" => LOOP,
        "mode" => MODE,
        "options:role" => &["client", "server"],
        "promiscuous" => PROMISCUOUS,
        "reflect" => REFLECT,
        "spoof" => SPOOF,
        "vlan_mode" => VLAN_MODE,
        _ => &[],
    }
}

/// Whether it is a valid host name (RFC 952, RFC 1123, 2.1), or one with underscores.
pub fn is_host_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    name.len() <= 253
        && name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(good))
}
