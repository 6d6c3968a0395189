//! Starts a process in namespaces of its own, as a child of the caller's parent if wanted
//! (clone(2)), which the standard library cannot do.
//!
//! It is not clone3(2), whose flags no filter sees: where a service manager restricts namespaces,
//! that fails.
#![expect(unsafe_code, reason = "clone(2), and what its child does before execve(2)")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};
use rustix::process::getpid;

/// A process to start.
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    /// Its standard input.
    pub(crate) input: &'a OwnedFd,
    /// Its standard output. Standard error is the caller's.
    pub(crate) output: &'a OwnedFd,
    /// Its descriptor 3.
    pub(crate) third: Option<&'a OwnedFd>,
    /// The maps of a new user namespace: paths and contents.
    pub(crate) maps: &'a [(&'a CStr, CString)],
    /// `CLONE_NEW*` and `CLONE_PARENT`.
    pub(crate) flags: c_int,
}

/// A process that was started.
pub(crate) struct Spawned {
    pub(crate) process: u32,
    pub(crate) pidfd: OwnedFd,
}

/// Descriptors from here on are not those that the child replaces.
const FIRST_FREE: RawFd = 10;

/// Starts the process. It is in a process group of its own.
///
/// # Errors
/// The kernel refuses: a namespace, or for want of memory or processes. That the program cannot be
/// executed is no error here: the process ends with status 127.
pub(crate) fn spawn(wanted: &Spawn<'_>) -> io::Result<Spawned> {
    let (arguments, environment) = (pointers(&wanted.arguments), pointers(&wanted.environment));
    let free = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE);
    let (input, output) = (free(wanted.input)?, free(wanted.output)?);
    let third = wanted.third.map(free).transpose()?;
    let child = Child {
        program: wanted.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        replaced: [Some((&input, 0)), Some((&output, 1)), third.as_ref().map(|fd| (fd, 3))],
        maps: wanted.maps,
    };
    let mut pidfd: c_int = -1;
    // The kernel uses the signal of the caller with this flag.
    let has_parents_signal = wanted.flags & libc::CLONE_PARENT != 0;
    let signal = if has_parents_signal { 0 } else { libc::SIGCHLD };
    let flags = c_long::from(wanted.flags | libc::CLONE_PIDFD | signal);
    let (stack, none) = (ptr::null::<c_void>(), ptr::null::<c_void>());
    // SAFETY: without CLONE_VM the child has a copy of the memory and of the caller's stack, as
    // after fork(2). It calls only what is async-signal-safe (`Child::run`), and does not return.
    let process =
        unsafe { libc::syscall(libc::SYS_clone, flags, stack, &raw mut pidfd, none, none) };
    match process {
        0 => child.run(),
        1.. => {
            // SAFETY: the kernel has opened it for the caller, and nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Spawned { process: process as u32, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the addresses, with the null that ends them.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// What the child needs; made before it is, as it must not allocate.
struct Child<'a> {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    replaced: [Option<(&'a OwnedFd, RawFd)>; 3],
    maps: &'a [(&'a CStr, CString)],
}

impl Child<'_> {
    /// Becomes the program. Allocates nothing, takes no lock and does not return.
    fn run(&self) -> ! {
        for (path, text) in self.maps {
            write_file(path, text);
        }
        // SAFETY: system calls on descriptors and strings that live; `_exit` ends the process.
        unsafe {
            libc::setpgid(0, 0);
            for (fd, number) in self.replaced.iter().flatten() {
                if libc::dup2(fd.as_raw_fd(), *number) < 0 {
                    libc::_exit(127);
                }
            }
            libc::execve(self.program, self.arguments, self.environment);
            libc::_exit(127);
        }
    }
}

/// Writes a file of the new user namespace. On failure the process lacks rights there, which the
/// program notices.
fn write_file(path: &CStr, text: &CStr) {
    let bytes = text.to_bytes();
    // SAFETY: the strings live, and the descriptor is this function's.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, bytes.as_ptr().cast(), bytes.len());
            libc::close(file);
        }
    }
}

/// Whether the caller is the first process of its pid namespace, which can have no siblings.
pub(crate) fn is_first_process() -> bool {
    getpid().is_init()
}
