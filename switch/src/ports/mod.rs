//! What can be plugged into a port.

pub mod dummy;
pub mod tap;
pub mod vhost;

use dummy::DummyDevice;
use tap::Tap;
use vhost::VhostDevice;

/// The device on a port.
pub enum Device {
    /// A virtio-net driver behind vhost-user: rings in memory that it shares with us.
    Vhost(VhostDevice),
    /// A Linux TAP device.
    Tap(Tap),
    /// A queue pair of this process, for tests and injection.
    Dummy(DummyDevice),
}
