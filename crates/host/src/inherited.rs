//! Files that were left open by whoever started the program: what the program starts gets none of them.
//!
//! A descriptor that leaks holds a lock or a pipe open for as long as the longest of the children lives. And some count on
//! low numbers: dash takes only one digit in `>&N`, and `mmdebstrap` fails where its pipe is the eleventh file.

/// From here on each file that is open is closed by what is started, except standard input, output and error. What is lent on
/// purpose is opened again for the child.
#[allow(unsafe_code)]
pub fn close_on_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: with this flag nothing is closed in this process (close_range(2)). Linux before 5.11 refuses it, and all is as it was.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
}
