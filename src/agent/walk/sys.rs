//! The one call to the kernel that no library makes for us.

#![expect(unsafe_code, reason = "ioprio_set has no wrapper")]

use std::io;

/// `IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT` of `linux/ioprio.h`.
const IDLE: libc::c_long = 3 << 13;
/// `IOPRIO_WHO_PROCESS`; with 0 the calling thread.
const THREAD: libc::c_long = 1;

/// Gives the calling thread the disk only when nobody else wants it. BFQ and mq-deadline heed it, other schedulers do not.
pub(super) fn yield_the_disk() -> io::Result<()> {
    // SAFETY: takes three numbers and no pointers.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0_i64, IDLE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_becomes_idle_and_no_other_does() {
        // SAFETY: takes two numbers and no pointers.
        let priority = || unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, 0_i64) };
        let class = move || priority() >> 13;
        let before = class();
        let idle = std::thread::spawn(move || {
            yield_the_disk().unwrap();
            class()
        });
        assert_eq!((idle.join().unwrap(), class()), (3, before));
    }
}
