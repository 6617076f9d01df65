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

/// Whether the calling thread does so.
#[cfg(test)]
pub(super) fn yields_the_disk() -> bool {
    // SAFETY: takes two numbers and no pointers.
    unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, 0_i64) >> 13 == IDLE >> 13 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_becomes_idle_and_no_other_does() {
        let idle = std::thread::spawn(|| {
            yield_the_disk().unwrap();
            yields_the_disk()
        });
        assert_eq!((idle.join().unwrap(), yields_the_disk()), (true, false));
    }
}
