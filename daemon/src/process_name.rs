//! The name of the process, as `ps` and `top` show it.

use std::ffi::CString;
use std::path::Path;

/// Takes the program's name or the title that the process was started with. The kernel names it
/// after the executed file, which is `exe` for those that follow from `/proc/self/exe`.
pub fn take() {
    let title = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&title).file_name().unwrap_or(&title);
    // Without the name, the process still runs.
    let _ = CString::new(name.as_encoded_bytes()).map(|name| rustix::thread::set_name(&name));
}
