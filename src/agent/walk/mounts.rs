//! Mounts as `/proc/self/mountinfo` (see proc(5)) lists them; reading it touches no file system that may hang.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Filesystem, Measured, Outcome, Totals, lock, sums};

/// The kernel tells no size beforehand.
const ROOM: usize = 64 * 1024;
/// The mounts of this process.
static MOUNTS: Mutex<Option<Table>> = Mutex::new(None);

/// What was read of them, which is read anew once the kernel says that it has changed: on a node there are thousands, and a volume after
/// the other asks.
#[derive(Debug)]
struct Table {
    file: File,
    mounts: Mounts,
}

/// A table of mounts, by where they are mounted; of several there, the last one mounted.
#[derive(Debug, Default)]
pub struct Mounts(HashMap<PathBuf, Mount>);

/// The mount that a path lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor`.
    pub device: String,
    /// Which directory of the file system is mounted; `/` for all of it.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of the file system, e.g. `ext4`.
    pub filesystem: String,
}

impl Mount {
    /// The mount of a path, by the longest mount point above it; of several there, the last one mounted.
    pub fn of(path: &Path) -> Option<Self> {
        let mut table = lock(&MOUNTS);
        let known = match table.take().filter(Table::is_current) {
            Some(known) => known,
            None => Table::read().ok()?,
        };
        table.insert(known).mounts.above(path).cloned()
    }

    /// Whether the path is where a whole file system is mounted.
    pub fn is_whole_at(&self, path: &Path) -> bool {
        self.mount_point == path && self.root == Path::new("/")
    }
}

impl Mount {
    /// Whether its data lies on another machine, which may be slow, gone, or shared by many.
    pub fn is_network(&self) -> bool {
        const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p", "afs"];
        let kind = self.filesystem.strip_prefix("fuse.").unwrap_or(&self.filesystem);
        NETWORK.contains(&kind) || kind == "sshfs"
    }
}

/// Whether something is mounted exactly at this path.
pub fn is_mount_point(path: &Path) -> bool {
    Mount::of(path).is_some_and(|mount| mount.mount_point == path)
}

impl Table {
    fn read() -> io::Result<Self> {
        let (mut file, mut mountinfo) = (File::open("/proc/self/mountinfo")?, Vec::with_capacity(ROOM));
        file.read_to_end(&mut mountinfo)?;
        Ok(Self { file, mounts: Mounts::parse(&mountinfo) })
    }

    /// As proc(5) has it, the file is exceptional once mounts have changed since it was opened.
    fn is_current(&self) -> bool {
        let mut asked = [PollFd::new(&self.file, PollFlags::PRI)];
        matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

impl Mounts {
    /// Reads what the kernel lists. Lines that are none of its are passed over.
    pub fn parse(mountinfo: &[u8]) -> Self {
        let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line);
        Self(mounts.map(|mount| (mount.mount_point.clone(), mount)).collect())
    }

    /// The mount that a path lies on, by names alone.
    pub fn above(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|ancestor| self.0.get(ancestor))
    }
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let path = |field: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(unescape(field)));
    let (root, mount_point) = (path(fields.next()?), path(fields.next()?));
    let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { device, root, mount_point, filesystem: String::from_utf8_lossy(filesystem).into_owned() })
}

/// Space, tab, newline and backslash are written as three octal digits behind a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        text.push(code.unwrap_or(first));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    text
}

/// The file system at `root`.
pub(super) fn filesystem(root: &Path) -> Option<Filesystem> {
    let answer = rustix::fs::statvfs(root.as_os_str().as_bytes()).ok()?;
    Some(Filesystem {
        capacity_bytes: answer.f_blocks.saturating_mul(answer.f_frsize),
        available_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
    })
}

/// Asks the file system at `root` how full it is: blocks and inodes in use, as `statvfs` counts them.
pub(super) fn ask(root: &Path) -> Outcome {
    match rustix::fs::statvfs(root.as_os_str().as_bytes()) {
        Ok(answer) => {
            let used = |all: u64, free: u64| all.saturating_sub(free);
            let totals = Totals {
                allocated_bytes: used(answer.f_blocks, answer.f_bfree).saturating_mul(answer.f_frsize),
                apparent_bytes: None,
                files: used(answer.f_files, answer.f_ffree),
                directories: None,
            };
            Outcome::Measured(Measured { totals, from_filesystem: true, ..Measured::default() })
        }
        Err(rustix::io::Errno::NOENT) => Outcome::Vanished,
        Err(error) => Outcome::Unreadable { kind: sums::error_kind(Some(error.raw_os_error())) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 0:25 / /data rw shared:1 - tmpfs tmpfs rw\n\
        31 30 8:2 /sub /data/with\\040space\\134 rw - xfs /dev/sdb rw\n\
        32 30 0:26 / /data rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_longest_and_last_mount_above_a_path_is_its_mount() {
        let mounts = Mounts::parse(MOUNTINFO);
        let device = |path: &str| mounts.above(Path::new(path)).unwrap().device.as_str();
        assert_eq!(device("/etc"), "8:1");
        assert_eq!(device("/data/x"), "0:26");
        assert_eq!(device("/database"), "8:1", "a name that begins alike is not below");
        assert_eq!(device("/data/with space\\/deep"), "8:2");
    }

    #[test]
    fn only_a_whole_file_system_can_be_asked() {
        let mounts = Mounts::parse(MOUNTINFO);
        let at = |path: &str| mounts.above(Path::new(path)).unwrap().is_whole_at(Path::new(path));
        assert!(at("/data") && at("/"));
        assert!(!at("/data/with space\\"), "a bind mount of a part");
        assert!(!at("/data/x"));
    }
}
