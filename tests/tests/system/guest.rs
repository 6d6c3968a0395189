//! The test guest itself, without a network: the basis of the other tests.

use std::time::Duration;

use trama_tests::{Guest, GuestOptions, Host};

#[test]
fn a_guest_runs_commands_and_survives_reset() {
    let guest = Guest::start(&GuestOptions::new("alone", []));
    assert_eq!(guest.run("echo hello; echo world >&2"), "hello\nworld\n");
    assert_eq!(guest.try_run("exit 7").status, 7);
    assert_eq!(guest.try_run("printf 'no newline; =1 0'").text, "no newline; =1 0\n");
    assert!(guest.run("seq 5000").ends_with("4999\n5000\n"));
    for program in ["iperf3 --version", "tcpdump --version", "ethtool --version"] {
        guest.run(program);
    }
    let modules = guest.run("cat /proc/modules");
    for module in ["virtio_net", "8021q"] {
        assert!(modules.contains(module), "{module} is not loaded:\n{modules}");
    }

    guest.run("touch /tmp/before");
    guest.reset();
    assert_ne!(guest.try_run("test -e /tmp/before").status, 0);
    assert!(guest.try_run_for("sleep 1", Duration::from_secs(20)).status == 0);
    guest.kill();
}

/// QEMU accepts the options in the documentation.
#[test]
fn no_page_or_example_has_an_option_that_qemu_calls_deprecated() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = |name: &str| std::fs::read_dir(root.join(name)).unwrap().flatten();
    let files = folder("docs").chain(folder("examples")).chain(folder("scripts"));
    let files = files.map(|entry| entry.path()).filter(|path| path.is_file());
    let mut said = 0;
    for path in files.chain([root.join("README.md")]) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        said += text.matches("reconnect-ms=1000").count();
        // As part of a -chardev; notes about older QEMU are outside of one.
        assert!(!text.contains(",reconnect="), "{}", path.display());
    }
    assert!(said >= 3, "{said}");
}
