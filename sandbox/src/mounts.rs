//! The file systems of a process that has a mount namespace of its own.

use crate::kernel;
use crate::mode::Missing;

/// Makes all mounts of the calling thread's mount namespace read-only, without devices and without
/// programs that change users. What is mounted elsewhere later still appears, and is not
/// restricted; nothing spreads from here to other namespaces. Descriptors opened before, and in
/// other namespaces, are not restricted.
///
/// # Errors
///
/// The kernel is older than Linux 5.12, or the thread may not change mounts.
pub fn restrict_mounts() -> Result<(), Missing> {
    kernel::restrict_mounts().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => Missing::new("read-only mounts", "needs Linux 5.12"),
        _ => Missing::new("read-only mounts", error),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    /// Names the folder of the test in the process that has a namespace of its own.
    const INSIDE: &str = "TRAMA_TEST_MOUNTS";

    #[test]
    fn a_namespace_of_its_own_becomes_read_only_and_others_do_not() {
        if let Some(folder) = std::env::var_os(INSIDE) {
            let file = std::path::Path::new(&folder).join("file");
            fs::write(&file, "before").unwrap();
            restrict_mounts().unwrap();
            assert_eq!(fs::write(&file, "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
            assert_eq!(fs::read(&file).unwrap(), b"before");
            // A device is none.
            assert!(fs::File::open("/dev/zero").is_err());
            return;
        }
        if !rustix::process::geteuid().is_root() {
            println!("not tested: this takes root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let test = std::thread::current().name().unwrap().to_owned();
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(std::env::current_exe().unwrap());
        command.args(["--exact", &test, "--nocapture"]).env(INSIDE, dir.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        fs::write(dir.path().join("file"), "after").unwrap();
    }
}
