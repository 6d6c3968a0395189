//! Users and capabilities.
//!
//! The kernel keeps both for each thread, and these functions change the calling thread only: call
//! them while the process has one thread. Threads that it starts later inherit them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::process::{Gid, Uid, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Drops all capabilities of the calling thread for good. No program that it executes gets one.
///
/// # Errors
///
/// The kernel refuses it, which no Linux since 3.5 does.
pub fn drop_privileges() -> io::Result<()> {
    keep_only(CapabilitySet::empty())
}

/// Drops the capabilities of the calling thread for good, except those in `kept`; those it must
/// have. No program that it executes gets others, and it no longer gains rights by executing one.
///
/// # Errors
///
/// The thread lacks a capability in `kept`.
pub fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    shrink_bounding_set(kept)?;
    clear_ambient()?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    Ok(set_no_new_privs(true)?)
}

/// Makes the calling thread a user's, with that one group. Capabilities are lost with it: a program
/// that this user executes gets none either.
///
/// The kernel clears the signal that is sent on the parent's death (prctl(2), `PR_SET_PDEATHSIG`):
/// set it afterwards.
///
/// # Errors
///
/// The thread may not change its user or group, or the namespace does not have them.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let unknown = || io::Error::from(Errno::INVAL);
    let (uid, gid) = (id(uid).ok_or_else(unknown)?, id(gid).ok_or_else(unknown)?);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Takes a capability, which is lost with the user.
    shrink_bounding_set(CapabilitySet::empty())?;
    if !getgroups()?.is_empty() {
        set_thread_groups(&[])?;
    }
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    drop_privileges()
}

/// Starts a program as another user, with that one group and without any capability.
///
/// # Errors
///
/// The calling thread may not change its user, or the program cannot be started.
pub fn spawn_as(command: &mut Command, (uid, gid): (u32, u32)) -> io::Result<Child> {
    command.uid(uid).gid(gid);
    // The bounding set is a thread's, and the caller's must stay: what it starts later needs it.
    let spawn = || {
        shrink_bounding_set(CapabilitySet::empty())?;
        command.spawn()
    };
    let spawned = std::thread::scope(|scope| scope.spawn(spawn).join());
    spawned.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has failed")))
}

/// An identity; the value of all ones means "unchanged" to the kernel.
fn id(number: u32) -> Option<u32> {
    (number != u32::MAX).then_some(number)
}

/// Removes all but `kept` from the bounding set. Without the capability for that, the set stays as
/// it is: with no new privileges, it grants nothing.
fn shrink_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => {}
            Ok(_) => continue,
            // The kernel has no more capabilities.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn clear_ambient() -> io::Result<()> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of the calling thread, without spaces.
    fn status() -> Vec<String> {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    /// Runs `job` in a thread of its own and returns the thread's status at the end.
    fn status_after(job: impl FnOnce() -> io::Result<()> + Send + 'static) -> Vec<String> {
        let thread = std::thread::spawn(|| job().map(|()| status()));
        thread.join().unwrap().unwrap()
    }

    #[track_caller]
    fn assert_has(status: &[String], lines: &[&str]) {
        for line in lines {
            assert!(status.iter().any(|it| it == line), "no {line}: {status:#?}");
        }
    }

    #[test]
    fn dropped_privileges_cannot_come_back() {
        let status = status_after(drop_privileges);
        assert_has(&status, &["CapPrm:0000000000000000", "CapEff:0000000000000000"]);
        assert_has(&status, &["CapInh:0000000000000000", "CapAmb:0000000000000000"]);
        assert_has(&status, &["NoNewPrivs:1"]);
    }

    #[test]
    fn a_program_of_another_user_has_none_and_its_starter_keeps_its_own() {
        if !rustix::process::geteuid().is_root() {
            println!("not tested: this takes root");
            return;
        }
        let before = status();
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").stdout(std::process::Stdio::piped());
        let output = spawn_as(&mut command, (4711, 4712)).unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let status_of: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_has(&status_of, &["Uid:4711471147114711", "Gid:4712471247124712", "Groups:"]);
        assert_has(&status_of, &["CapPrm:0000000000000000", "CapEff:0000000000000000"]);
        assert_has(&status_of, &["CapBnd:0000000000000000", "CapAmb:0000000000000000"]);
        let bounding =
            |status: &[String]| status.iter().find(|it| it.starts_with("CapBnd")).cloned();
        assert_eq!(bounding(&status()), bounding(&before));
    }

    #[test]
    fn only_some_are_kept_and_another_user_has_none() {
        if !rustix::process::geteuid().is_root() {
            println!("not tested: this takes root");
            return;
        }
        let status = status_after(|| keep_only(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN));
        assert_has(&status, &["CapPrm:0000000000003000", "CapEff:0000000000003000"]);
        assert_has(&status, &["CapBnd:0000000000003000", "NoNewPrivs:1"]);
        let status = status_after(|| become_user(4711, 4712));
        assert_has(&status, &["Uid:4711471147114711", "Gid:4712471247124712", "Groups:"]);
        assert_has(&status, &["CapPrm:0000000000000000", "CapBnd:0000000000000000"]);
        assert_eq!(become_user(u32::MAX, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
