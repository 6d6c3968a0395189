//! The interfaces that the host has, as far as commands depend on them.

/// Tells whether the host has an interface of a name, which a port may join.
#[derive(Clone, Copy, Debug)]
pub struct HostInterfaces(pub fn(&str) -> bool);

impl Default for HostInterfaces {
    fn default() -> HostInterfaces {
        HostInterfaces(|_| false)
    }
}
