//! The standalone backend: one vhost-user socket to one TAP, without daemon and configuration.

use rustix::process::Signal;
use trama_tests::tramad::binary;
use trama_tests::{Guest, Host, Netns, Nic, Process, SOON};

#[test]
fn a_guest_and_a_tap_talk_without_the_daemon() {
    let host = Netns::new("host");
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let mut command = host.command(binary("trama-vhost-net").to_str().unwrap());
    command.arg("--socket").arg(&socket).args(["--tap", "tap0", "--address", "10.1.0.100/24"]);
    let log = dir.path().join("log");
    let mut backend = Process::spawn("trama-vhost-net", command, &log);
    trama_tests::wait_until("the socket is there", SOON, || {
        assert!(backend.is_running(), "{}", backend.log());
        socket.exists().then_some(())
    });

    let guest = Guest::boot("guest", Nic::connecting(&socket, "52:54:00:00:00:01"));
    guest.address("10.1.0.1/24");
    guest.wait_for_ping("10.1.0.100", SOON);
    assert_eq!(guest.ping_losses("10.1.0.100", 10), 0);
    host.start_iperf_server(5201);
    for options in ["-n 20M", "-n 20M -R"] {
        let bytes = guest.iperf_received("10.1.0.100", 5201, options);
        assert!(bytes > 10_000_000, "{options}: {bytes} bytes");
    }

    // A rebooted guest works with the same backend.
    guest.reset();
    guest.address("10.1.0.1/24");
    guest.wait_for_ping("10.1.0.100", SOON);

    let status = backend.end(Signal::TERM, SOON);
    assert!(status.success(), "{status}: {}", backend.log());
    assert!(!socket.exists(), "a clean end leaves its socket behind");
}
