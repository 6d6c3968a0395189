//! System calls that no library wraps safely.
#![allow(
    unsafe_code,
    reason = "seccomp(2) and mount_setattr(2) have no safe wrapper, and a handler of SIGSYS is none"
)]

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use seccompiler::BpfProgram;

/// Installs a filter for the calling thread and those that it starts later. The thread must have
/// `no_new_privs`.
pub(crate) fn install_filter(program: &BpfProgram) -> io::Result<()> {
    match seccomp(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        // Before Linux 4.17. Later a filter without the flag switched on a mitigation of
        // speculative store bypass, which costs every load; since 5.16 it does not.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => seccomp(program, 0),
        other => other,
    }
}

fn seccomp(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    // `seccompiler::sock_filter` has the C layout of `libc::sock_filter`.
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` and the `len` instructions that it points to live during the call, which
    // only reads them.
    let returned = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    };
    result(returned)
}

/// Makes all mounts read-only, without devices and programs that change users, and receivers of
/// what is mounted elsewhere.
pub(crate) fn restrict_mounts() -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_SLAVE,
        userns_fd: 0,
    };
    // SAFETY: the path and `attributes` live during the call, which only reads them; the size is
    // that of `attributes`.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    result(returned)
}

/// Returns a descriptor that the process was started with, by its number; the number itself stays
/// open.
///
/// # Errors
///
/// The number is not open.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` takes any number and refuses one that is not open. `number` is borrowed for
    // that call only, and the descriptor that it returns is new.
    unsafe {
        let copy = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0);
        if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

/// Lets the parent trace this process: a restricted process must not be able to.
pub(crate) fn trace_self() -> io::Result<()> {
    // SAFETY: takes no argument that is an address.
    result(unsafe { libc::ptrace(libc::PTRACE_TRACEME) })
}

/// Maps memory that can be executed: a restricted process must not be able to.
pub(crate) fn map_executable() -> io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    let flags = flags | libc::MAP_ANONYMOUS;
    // SAFETY: new memory at a place that the kernel chooses, which stays until the process ends.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves the shared root and working directory: a restricted process must not be able to.
pub(crate) fn unshare_root() -> io::Result<()> {
    // SAFETY: takes no address.
    result(unsafe { libc::unshare(libc::CLONE_FS) }.into())
}

fn result(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What siginfo_t(3) has for SIGSYS; `libc` does not name these fields.
#[repr(C)]
struct RefusedCall {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *mut libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

/// Ends the process when a filter traps a call, with a line on standard error that names it.
pub(crate) fn report_trapped_calls() -> io::Result<()> {
    // SAFETY: `action` is zeroed, which is valid for all of its fields, and the handler has the
    // signature that SA_SIGINFO asks for. It calls only what signal-safety(7) allows.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handle_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        if libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The trapped call that is being reported.
static REPORTED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handle_trap(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t of at least this size, with these fields for SIGSYS.
    let mut call = unsafe { (*info.cast::<RefusedCall>()).call };
    let mut name = [0_u8; 16];
    match REPORTED.compare_exchange(-1, call, Ordering::Relaxed, Ordering::Relaxed) {
        // SAFETY: PR_GET_NAME writes at most 16 bytes with a terminator to `name`.
        Ok(_) => drop(unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) }),
        // That is not on the list either.
        Err(first) => call = first,
    }
    let mut digits = [0_u8; 10];
    let number = decimal(call, &mut digits);
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_bytes();
    let place: &[u8] = if name.is_empty() { b"" } else { b", in " };
    let parts = [b"sandbox: system call ", number, b" is not on the list", place, name];
    let (mut line, mut length) = ([b'\n'; 96], 0);
    for part in parts {
        line[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    // SAFETY: `write` reads the line, whose end is already a newline; `_exit` ends the process
    // without handlers or destructors.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length + 1);
        libc::_exit(TRAPPED);
    }
}

/// The exit status of a process that made a trapped call.
const TRAPPED: libc::c_int = 159;

/// The digits of a number, without allocation.
fn decimal(number: libc::c_int, room: &mut [u8; 10]) -> &[u8] {
    let (mut left, mut at) = (number.unsigned_abs(), room.len());
    while at == room.len() || left > 0 {
        at -= 1;
        room[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    &room[at..]
}
