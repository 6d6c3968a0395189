//! Rules for names: of networks and ports, network devices, hosts and accounts.

use std::collections::HashSet;
use std::path::Path;

use super::check::Check;

/// Longest name of a network device: `IFNAMSIZ` is 16 with its final zero.
const MAX_IFNAME: usize = 15;

/// Longest name of a network or port; fits every place where names are shown.
const MAX_NAME: usize = 63;

/// The remedy for a name that the kernel refuses for an interface.
pub(super) const IFNAME_REMEDY: &str =
    "use 1 to 15 ASCII characters without spaces, '/', ':' and '%'";

impl Check {
    /// A name: present, of permitted characters, unique.
    pub(super) fn name(&mut self, kind: &str, name: &str, seen: &mut HashSet<String>) {
        if name.is_empty() {
            self.problem("name", "is missing", format!("give the {kind} a name"));
            return;
        }
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(harmless) || name.starts_with('-') {
            let remedy = format!(
                "use 1 to {MAX_NAME} letters, digits and any of -_.:@+ (no '-' at the start)"
            );
            self.problem("name", format!("{name:?} is not a usable name"), remedy);
        }
        if !seen.insert(name.to_owned()) {
            self.problem("name", format!("there are two {kind}s {name:?}"), "rename one of them");
        }
    }

    /// The name or the number of a user or group.
    pub(super) fn account(&mut self, key: &'static str, name: Option<&str>) {
        let Some(name) = name else { return };
        // Names are looked up when a socket is created. `u32::MAX` means "unchanged" to chown.
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let fits = name.parse().is_ok_and(|number: u32| number != u32::MAX);
        let bad = name.is_empty() || name.contains(|c: char| c == ':' || c.is_control());
        if bad || (is_number && !fits) {
            let message = format!("{name:?} is not the name of an account");
            self.problem(key, message, "use a name, or its number in quotes");
        }
    }
}

/// Why the kernel would refuse this name for an interface.
pub(super) fn ifname_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_IFNAME {
        Some("is longer than 15 bytes")
    } else if name.starts_with('.') {
        Some("begins with a dot")
    } else if ["all", "default"].contains(&name) {
        Some("is a name that the kernel keeps for itself")
    } else if name.bytes().any(|byte| !byte.is_ascii_graphic() || b"/:%".contains(&byte)) {
        Some("has characters that a device's name cannot have")
    } else {
        None
    }
}

/// The remedy for what is not the name of a host.
pub(super) const HOST_NAME_REMEDY: &str =
    "use labels of 1 to 63 letters, digits, '-' and '_', joined by dots";

/// A path in quotes.
pub(super) fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}
