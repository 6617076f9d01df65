//! What agents and proxies refuse themselves, on top of what the container runtime does.
//!
//! By seccomp, system calls that neither a walk nor a proxy ever needs are answered with EPERM; by Landlock, where the kernel has it, no file is
//! written: what is mounted below a read-only mount, as running containers are below Docker's data root, need not be read-only itself.
//!
//! What a walker could do with the capability to read everything (`CAP_DAC_READ_SEARCH`) is limited by what is mounted into it, but for
//! `open_by_handle_at`, which opens any file of a mounted *file system*; runtimes allow it to whoever has that capability.

mod calls;
pub mod limits;
mod sys;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};
use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

use self::calls::{numbers, refused};

/// Who is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined<'a> {
    /// Reads files, talks to the database and to the proxy; changes no file.
    Agent,
    /// Makes the socket that it serves in this directory.
    DockerProxy(&'a Path),
}

/// How a process is confined.
#[derive(Debug)]
pub struct Confinement {
    refused: usize,
    landlock: RulesetStatus,
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
    /// The kernel has Landlock and takes no rules.
    #[error("failed to forbid writing by Landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// The one directory that may be written cannot be opened.
    #[error("failed to open the directory of the socket: {0}")]
    Directory(#[from] PathFdError),
}

/// Confines the calling thread and all that it will start: the caller has no other yet. A process that cannot be confined must not go on; but for
/// Landlock, which not every kernel has.
pub fn enter(who: Confined<'_>) -> Result<Confinement, Error> {
    let refused = refused(who);
    let landlock = forbid_writes(who)?;
    apply_filter_all_threads(&program(&refused)?)?;
    for (call, answer) in sys::refused_calls() {
        if answer.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::EPERM) {
            return Err(Error::NotHeeded { call, answer });
        }
    }
    Ok(Confinement { refused: refused.len(), landlock })
}

impl Confinement {
    /// Says so in the log.
    pub fn log(&self) {
        let Self { refused, landlock } = self;
        let writing = match landlock {
            RulesetStatus::FullyEnforced => "writing is forbidden by Landlock",
            RulesetStatus::PartiallyEnforced => "writing is forbidden by Landlock, as far as this kernel has it",
            RulesetStatus::NotEnforced => "this kernel has no Landlock, so only mounts forbid writing",
        };
        tracing::info!("confined: {refused} system calls are refused; {writing}");
    }
}

fn forbid_writes(who: Confined<'_>) -> Result<RulesetStatus, Error> {
    let mut rules = Ruleset::default().handle_access(AccessFs::from_write(ABI::V5))?.create()?;
    if let Confined::DockerProxy(directory) = who {
        let makes_sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, makes_sockets))?;
    }
    Ok(rules.restrict_self()?.ruleset)
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

#[cfg(test)]
mod tests {
    use seccompiler::apply_filter;

    use super::*;

    /// What a call without arguments answers on a thread that is confined as `who`.
    fn confined(who: Confined<'static>, call: c_long) -> Option<i32> {
        let program = program(&refused(who)).unwrap();
        let call = move || {
            apply_filter(&program).unwrap();
            sys::without_arguments(call)
        };
        std::thread::spawn(call).join().unwrap().err()?.raw_os_error()
    }

    fn proxy() -> Confined<'static> {
        Confined::DockerProxy(Path::new("/"))
    }

    /// What comes of `act` on a thread that may not write but as `who`.
    fn without_writing<T: Send + 'static>(who: Confined<'_>, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let confined = scope.spawn(move || {
                // What older kernels have of it is enough here.
                let landlock = forbid_writes(who).unwrap();
                assert_ne!(landlock, RulesetStatus::NotEnforced, "the tests need a kernel with Landlock");
                act()
            });
            confined.join().unwrap()
        })
    }

    #[test]
    fn an_agent_reads_every_file_and_writes_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let (read, wrote, made) = without_writing(Confined::Agent, || {
            let write = std::fs::OpenOptions::new().write(true).open(&file);
            (std::fs::read_to_string(&file), write, std::fs::write(folder.path().join("new"), "text"))
        });
        assert_eq!(read.unwrap(), "text");
        let kinds = [wrote.unwrap_err().kind(), made.unwrap_err().kind()];
        assert_eq!(kinds, [io::ErrorKind::PermissionDenied; 2]);
    }

    #[test]
    fn a_proxy_makes_sockets_in_its_directory_alone() {
        use std::os::unix::net::UnixListener;
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bind = |folder: &Path| UnixListener::bind(folder.join("socket")).map(drop);
        let (made, elsewhere, file) = without_writing(Confined::DockerProxy(own.path()), || {
            (bind(own.path()), bind(other.path()), std::fs::write(own.path().join("file"), "text"))
        });
        made.unwrap();
        let kinds = [elsewhere.unwrap_err().kind(), file.unwrap_err().kind()];
        assert_eq!(kinds, [io::ErrorKind::PermissionDenied; 2]);
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
            assert_eq!(confined(Confined::Agent, call), Some(libc::EPERM), "call {call}");
            let free = sys::without_arguments(call).err().and_then(|error| error.raw_os_error());
            assert_ne!(free, Some(libc::EPERM), "call {call}: refused without a filter as well, it proves nothing");
        }
    }

    /// What the documents promise by name, whatever becomes of the lists: some of these are refused to a walk by its lack of capabilities, too, so
    /// that a free thread proves nothing.
    #[test]
    fn other_processes_the_kernel_and_names_of_files_are_out_of_reach() {
        let processes = [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_setns,
            libc::SYS_execveat,
        ];
        let kernel = [
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_clock_settime,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsmount,
            libc::SYS_mount_setattr,
            libc::SYS_pivot_root,
            libc::SYS_userfaultfd,
        ];
        let files = [
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_mkdirat,
            libc::SYS_fchmodat,
            libc::SYS_fchownat,
            libc::SYS_truncate,
            libc::SYS_ftruncate,
            libc::SYS_utimensat,
        ];
        for call in [&processes[..], &kernel, &files].concat() {
            assert_eq!(confined(Confined::Agent, call), Some(libc::EPERM), "call {call}");
        }
        for call in [&processes[..], &kernel].concat() {
            assert_eq!(confined(proxy(), call), Some(libc::EPERM), "call {call} of a proxy");
        }
    }

    /// Without a filter a kernel that does not have the interface answers ENOSYS.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn nothing_gets_through_by_the_x32_interface() {
        for call in [libc::SYS_mount, 520, 521] {
            assert_eq!(confined(Confined::Agent, call | 0x4000_0000), Some(libc::EPERM), "{call}");
        }
    }

    #[test]
    fn a_proxy_may_make_its_socket_and_an_agent_may_change_nothing() {
        assert_ne!(confined(proxy(), libc::SYS_unlinkat), Some(libc::EPERM));
        assert_eq!(confined(proxy(), libc::SYS_open_by_handle_at), Some(libc::EPERM));
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
