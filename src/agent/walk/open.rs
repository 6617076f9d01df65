//! Opening directories and looking at entries without ever leaving the tree.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;

use super::Identity;

/// Times that a rename elsewhere may make `openat2` start over.
const RENAME_RETRIES: usize = 16;

/// How directories are opened on this kernel, under this seccomp profile.
#[derive(Debug)]
pub(super) struct Opener {
    has_openat2: AtomicBool,
    #[cfg(test)]
    pub(super) opened: std::sync::atomic::AtomicUsize,
}

/// Why a child was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something else is mounted there.
    OtherMount,
    /// It is gone, or no directory any more.
    Vanished,
    /// The kernel says no.
    Error(Errno),
}

/// What every walk wants to know of an inode.
pub(super) const MASK: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::NLINK)
    .union(StatxFlags::INO)
    .union(StatxFlags::SIZE)
    .union(StatxFlags::BLOCKS)
    .union(StatxFlags::MNT_ID);

impl Opener {
    pub(super) const fn new() -> Self {
        Self {
            has_openat2: AtomicBool::new(true),
            #[cfg(test)]
            opened: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// One that acts as on a kernel without `openat2`.
    #[cfg(test)]
    pub(super) const fn without_openat2() -> Self {
        Self { has_openat2: AtomicBool::new(false), ..Self::new() }
    }

    /// Opens the root by its path. A symbolic link in its last component is refused: a volume's root is none.
    pub(super) fn root(path: &Path) -> Result<OwnedFd, Errno> {
        without_atime(|flags| openat(CWD, path, flags, Mode::empty()))
    }

    /// Opens a directory by the name that its parent lists.
    pub(super) fn child(&self, parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Refused> {
        #[cfg(test)]
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.has_openat2.load(Ordering::Relaxed) {
            match Self::confined(parent, name) {
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.store(false, Ordering::Relaxed),
                result => return result.map_err(refused),
            }
        }
        Self::by_mount_id(parent, name)
    }

    fn confined(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RENAME_RETRIES {
            match without_atime(|flags| openat2(parent, name, flags, Mode::empty(), resolve)) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Without `openat2`: a mount is recognised by its id, or by being the root of one.
    fn by_mount_id(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Refused> {
        let child = without_atime(|flags| openat(parent, name, flags, Mode::empty())).map_err(refused)?;
        let below = look_at(&child).map_err(refused)?;
        if is_mount_root(&below) || mount_id(parent)? != mount_id(&child)? {
            return Err(Refused::OtherMount);
        }
        Ok(child)
    }
}

/// Which mount a descriptor is on.
fn mount_id(fd: &OwnedFd) -> Result<u64, Refused> {
    let found = look_at(fd).map_err(refused)?;
    if StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID) {
        return Ok(found.stx_mnt_id);
    }
    mount_id_of_old_kernels(fd).ok_or(Refused::Error(Errno::NOSYS))
}

/// Before Linux 5.8 only `/proc` tells it (proc(5)).
fn mount_id_of_old_kernels(fd: &OwnedFd) -> Option<u64> {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    told.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Reading a directory must not write its access time; only its owner may ask for that.
fn without_atime(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

fn refused(error: Errno) -> Refused {
    match error {
        Errno::XDEV => Refused::OtherMount,
        // Listed as a directory a moment ago: removed since, or replaced by something else, even by a symbolic link.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Refused::Vanished,
        error => Refused::Error(error),
    }
}

/// Looks at what a descriptor is open on.
pub(super) fn look_at(fd: impl AsFd) -> Result<Statx, Errno> {
    statx(fd, c"", AtFlags::EMPTY_PATH, MASK)
}

/// Looks at an entry without following it, opening it or mounting anything there.
pub(super) fn look_up(parent: impl AsFd, name: &CStr, mask: StatxFlags) -> Result<Statx, Errno> {
    statx(parent, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, mask)
}

/// A device and a number on it.
pub(super) type Inode = (u64, u64);

/// What tells an inode from every other.
pub(super) fn inode(found: &Statx) -> Inode {
    (u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor), found.stx_ino)
}

/// Whether something is mounted at this entry (Linux 5.8).
pub(super) fn is_mount_root(entry: &Statx) -> bool {
    entry.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && entry.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// Asks no server of a network or FUSE file system, which may never answer: what the kernel knows does for both values.
pub(super) fn identity(path: &Path) -> Result<Identity, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, path, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    let born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME).then_some(found.stx_btime);
    let birth_time_ns =
        born.and_then(|time| time.tv_sec.checked_mul(1_000_000_000)?.checked_add(i64::from(time.tv_nsec)));
    Ok(Identity { inode: found.stx_ino, birth_time_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_kernels_tell_the_same_mounts() {
        for path in ["/", "/proc", "/dev"] {
            let fd = Opener::root(Path::new(path)).unwrap();
            assert_eq!(mount_id(&fd).ok(), mount_id_of_old_kernels(&fd), "{path}");
            assert!(mount_id(&fd).is_ok());
        }
    }
}
