//! U-Boot on an emulated 64-bit Arm machine, and its command line.

use std::io::Write;
use std::time::Duration;

use tempfile::TempDir;

use crate::guest::{Nic, give_memory, plug};
use crate::process::{Process, tied_command, wait_until};

/// The firmware (package u-boot-qemu).
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const PROMPT: &str = "=> ";
/// Time limit of its start on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running U-Boot at its prompt; dropping it kills QEMU.
pub struct UBoot {
    qemu: Process,
    commands: u32,
    _dir: TempDir,
}

impl UBoot {
    /// Starts a machine with one device, and interrupts its automatic boot.
    #[track_caller]
    pub fn start(nic: &Nic) -> UBoot {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut command = tied_command("qemu-system-aarch64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
        command.args(["-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a57"]);
        command.args(["-bios", FIRMWARE]);
        give_memory(&mut command, "256M", true);
        // The ROM of a PCI device is for another processor.
        plug(&mut command, 0, nic, if nic.model.contains("pci") { "romfile=" } else { "" });
        let log = dir.path().join("console.log");
        let qemu = Process::spawn_commanded("QEMU of U-Boot", command, &log);
        let mut uboot = UBoot { qemu, commands: 0, _dir: dir };
        wait_until("U-Boot prompts", START_LIMIT, || {
            assert!(uboot.qemu.is_running(), "{}", uboot.qemu.log());
            uboot.type_in("");
            uboot.qemu.log().contains(PROMPT).then_some(())
        });
        uboot
    }

    /// Runs a command, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&mut self, command: &str, limit: Duration) -> String {
        self.commands += 1;
        let end = format!("status of {}: ", self.commands);
        let before = self.qemu.log().len();
        self.type_in(&format!("{command}; echo \"{end}\"$?"));
        let text = wait_until(&format!("U-Boot has done {command}"), limit, || {
            let log = self.qemu.log();
            let (text, rest) = log.get(before..)?.rsplit_once(&end)?;
            // The echoed command line has no digit there.
            rest.starts_with(|c: char| c.is_ascii_digit()).then(|| format!("{text}{end}{rest}"))
        });
        assert!(text.contains(&format!("{end}0")), "{command}: {text}");
        text
    }

    fn type_in(&mut self, line: &str) {
        let input = self.qemu.child().stdin.as_mut().expect("piped");
        write!(input, "{line}\r").expect("write to U-Boot");
    }
}
