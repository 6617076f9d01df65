//! A seccomp filter over the container runtime's own: system calls that neither a walk nor a proxy ever needs are refused with EPERM.
//!
//! What a walker could do with the capability to read everything (`CAP_DAC_READ_SEARCH`) is limited by what is mounted into it, but for
//! `open_by_handle_at`, which opens any file of a mounted *file system*; runtimes allow it to whoever has that capability.

mod sys;

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// Ways to what is not mounted, to other processes, to the kernel, and to other programs.
const NEVER: &[c_long] = &[
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// Changes of files; a walk makes none. (`openat` for writing is refused by the read-only mounts: a filter cannot look into `openat2`.)
const CHANGES: &[c_long] = &[
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_renameat,
];

/// The same under the older names that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_CHANGES: &[c_long] = &[
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_creat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CHANGES: &[c_long] = &[];

/// Who is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// Reads files, talks to the database and to the proxy; changes no file.
    Agent,
    /// Makes the socket that it serves.
    DockerProxy,
}

/// The process is not confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, or what stands in its place, takes no filter.
    #[error("failed to install the seccomp filter: {0}")]
    Install(#[from] seccompiler::Error),
    /// It was taken, and is not heeded.
    #[error("the seccomp filter is not heeded: {call} answers {answer:?} instead of EPERM")]
    NotHeeded {
        /// A call that it refuses.
        call: &'static str,
        /// What came of it.
        answer: io::Result<c_long>,
    },
}

/// Confines the process, its threads, and all it will ever have; a process that cannot be confined must not go on.
pub fn enter(who: Confined) -> Result<(), Error> {
    let refused = refused(who);
    apply_filter_all_threads(&program(&refused)?)?;
    for (call, answer) in sys::refused_calls() {
        if answer.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::EPERM) {
            return Err(Error::NotHeeded { call, answer });
        }
    }
    tracing::info!("confined: {} system calls are refused", refused.len());
    Ok(())
}

fn refused(who: Confined) -> Vec<c_long> {
    match who {
        Confined::Agent => [NEVER, CHANGES, OLDER_CHANGES].concat(),
        Confined::DockerProxy => NEVER.to_vec(),
    }
}

fn program(refused: &[c_long]) -> Result<BpfProgram, seccompiler::Error> {
    let rules: BTreeMap<i64, _> =
        refused.iter().flat_map(|call| numbers(*call)).map(|number| (number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCHITECTURE)?.try_into()?)
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The x32 interface has the same calls under other numbers.
#[cfg(target_arch = "x86_64")]
fn numbers(call: c_long) -> impl Iterator<Item = i64> {
    const X32: c_long = 0x4000_0000;
    [call, call | X32].into_iter()
}
#[cfg(not(target_arch = "x86_64"))]
fn numbers(call: c_long) -> impl Iterator<Item = i64> {
    std::iter::once(call)
}

#[cfg(test)]
mod tests {
    use seccompiler::apply_filter;

    use super::*;

    /// What a call without arguments answers on a thread that is confined as `who`, and on one that is not.
    fn answers(who: Confined, call: c_long) -> [Option<i32>; 2] {
        let program = program(&refused(who)).unwrap();
        let confined = std::thread::spawn(move || {
            apply_filter(&program).unwrap();
            sys::without_arguments(call)
        });
        [confined, std::thread::spawn(move || sys::without_arguments(call))]
            .map(|thread| thread.join().unwrap().err().and_then(|error| error.raw_os_error()))
    }

    /// Calls that do nothing when they are allowed and have no arguments that make sense, here as root.
    const HARMLESS: [c_long; 14] = [
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_fsopen,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_execve,
        libc::SYS_unlinkat,
        libc::SYS_setxattr,
    ];

    #[test]
    fn refused_calls_answer_eperm_and_only_because_of_the_filter() {
        for call in HARMLESS {
            let [confined, free] = answers(Confined::Agent, call);
            assert_eq!(confined, Some(libc::EPERM), "call {call}");
            assert_ne!(free, Some(libc::EPERM), "call {call}: refused without a filter as well, it proves nothing");
        }
    }

    #[test]
    fn a_proxy_may_make_its_socket_and_an_agent_may_change_nothing() {
        assert_ne!(answers(Confined::DockerProxy, libc::SYS_unlinkat)[0], Some(libc::EPERM));
        assert_eq!(answers(Confined::DockerProxy, libc::SYS_open_by_handle_at)[0], Some(libc::EPERM));
    }

    #[test]
    fn what_a_walk_and_a_proxy_need_is_allowed() {
        let program = program(&refused(Confined::Agent)).unwrap();
        let works = std::thread::spawn(move || {
            apply_filter(&program).unwrap();
            let listed = std::fs::read_dir("/proc/self")?.count();
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            std::net::TcpStream::connect(listener.local_addr()?)?;
            let thread = std::thread::spawn(|| std::fs::read("/proc/self/status"));
            io::Result::Ok(listed + thread.join().unwrap()?.len())
        });
        assert!(works.join().unwrap().unwrap() > 0);
    }
}
