//! Which system calls are refused to whom.

use libc::c_long;

use super::Confined;

/// The calls that are refused.
pub(super) fn refused(who: Confined<'_>) -> Vec<c_long> {
    match who {
        Confined::Agent => [NEVER, NEVER_HERE, CHANGES, OLDER_CHANGES].concat(),
        Confined::DockerProxy(_) => [NEVER, NEVER_HERE].concat(),
    }
}

/// Numbers that libc does not have for every target, by `asm-generic/unistd.h`; those from 424 on are the same everywhere.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = 320;
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: c_long = 294;
const QUOTACTL_FD: c_long = 443;
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// Ways to what is not mounted, to other processes, to the kernel, and to other programs.
const NEVER: &[c_long] = &[
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
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
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    QUOTACTL_FD,
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

/// Changes of files; a walk makes none. (Opening for writing is left to Landlock: a filter cannot look into `openat2`.)
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
    libc::SYS_ftruncate,
    FCHMODAT2,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
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

/// What only this architecture has, for either of them.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    // Calls above that have a number of their own in the x32 interface: execve, ptrace, kexec_load, process_vm_readv, process_vm_writev, execveat.
    520,
    521,
    528,
    539,
    540,
    545,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[c_long] = &[];

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

/// The x32 interface has the same calls under the same numbers with a bit set, but for those of [`NEVER_HERE`].
#[cfg(target_arch = "x86_64")]
pub(super) fn numbers(call: c_long) -> impl Iterator<Item = i64> {
    const X32: c_long = 0x4000_0000;
    [call, call | X32].into_iter()
}
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn numbers(call: c_long) -> impl Iterator<Item = i64> {
    std::iter::once(call)
}
