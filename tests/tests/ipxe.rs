//! iPXE's virtio driver, the second one of the field: a guest that boots from the network asks
//! for an address by DHCP broadcasts, and a host on the same network hears them.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::time::Duration;

use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Tramad};

#[test]
fn ipxe_is_heard() {
    let host = Netns::new("host");
    let tramad = Tramad::start(&format!(
        r#"
[[network]]
name = "lab"

[[port]]
name = "pxe"
network = "lab"
type = "vhost-user"
path = "{{dir}}/pxe.sock"
role = "server"
tag = 10

[[port]]
name = "host"
network = "lab"
type = "tap"
ifname = "host"
netns = "{}"
address = "10.1.0.100/24"
tag = 10
"#,
        host.name()
    ));
    let capture = host.capture("host", "udp port 67");
    let nic = Nic::connecting(tramad.path("pxe.sock"), "52:54:00:00:00:09");
    let options = GuestOptions { network_boot: true, ..GuestOptions::new("pxe", [nic]) };
    let _guest = Guest::start(&options);
    let limit = Duration::from_secs(60);
    let text =
        capture.wait_for("a DHCP request", limit, |text| text.contains("BOOTP/DHCP, Request"));
    assert!(text.contains("52:54:00:00:00:09"), "{text}");
    let seen = capture.stop();
    assert_eq!(seen.wrong_checksums, 0, "{}", seen.excerpt);
    assert!(tramad.ctl("fdb/show lab").contains("52:54:00:00:00:09"));
    tramad.stop();
}
