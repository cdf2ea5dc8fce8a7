//! Descriptors that a shell, an editor or a test runner left open for its children.
//!
//! A daemon lives on for weeks: a pipe or a lock that it holds by accident keeps somebody waiting for ever.

/// The first descriptor that is not standard input, output or error.
#[cfg(target_os = "linux")]
const FIRST: std::ffi::c_uint = 3;

/// Closes every descriptor of the process but standard input, output and error.
///
/// It is for the very beginning of a program that owns no other descriptor yet: to whoever does, it
/// pulls the file out from under the hands.
#[expect(
    unsafe_code,
    reason = "no wrapper can know that nobody owns these descriptors"
)]
pub(crate) fn close() {
    #[cfg(target_os = "linux")]
    // SAFETY: close_range(2) touches no memory. The only caller is the daemon's first step, when this process has one thread and
    // none of its values owns a descriptor above 2, so no `OwnedFd` is closed behind its owner's back.
    unsafe {
        // Linux before 5.9 has no such call; the descriptors stay open then, as they always did.
        libc::syscall(libc::SYS_close_range, FIRST, std::ffi::c_uint::MAX, 0);
    }
}
