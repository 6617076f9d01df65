//! System calls that no library makes for us, because they are refused.

#![expect(unsafe_code, reason = "calls without wrappers")]

use std::io;

use libc::c_long;

/// Two calls that the filter refuses, and that nothing else answers with EPERM: the first to whoever may read everything, the second only asks.
pub(super) fn refused_calls() -> [(&'static str, io::Result<c_long>); 2] {
    const ASK: c_long = 0xffff_ffff;
    // SAFETY: takes a number and no pointers.
    let personality = answer(unsafe { libc::syscall(libc::SYS_personality, ASK) });
    [("open_by_handle_at", without_arguments(libc::SYS_open_by_handle_at)), ("personality", personality)]
}

/// A call whose arguments are all zero: none can point to anything.
pub(super) fn without_arguments(call: c_long) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes nothing at address 0.
    answer(unsafe { libc::syscall(call, 0_i64, 0_i64, 0_i64, 0_i64, 0_i64) })
}

fn answer(returned: c_long) -> io::Result<c_long> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
