//! What a walk found: figures, errors, mounts it did not enter. Each thread fills its own and merges it now and then.

use std::collections::BTreeMap;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::MAX_LISTED_MOUNTS;
use super::open::{self, Inode};

/// Shares of an inode, divisible by most numbers of names.
const SHARES: u64 = 720_720;
/// Names that were counted by their share of an inode: what they come to is a lower bound.
const TOO_MANY_LINKS: &str = "TooManyLinks";

/// Directories of which a rest could not be read.
const MOVED: &str = "DirectoryMoved";

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) allocated: u64,
    pub(super) apparent: u64,
    pub(super) files: u64,
    file_shares: u64,
    pub(super) directories: u64,
    pub(super) vanished: u64,
    pub(super) entries: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) skipped: Vec<Vec<u8>>,
}

/// What counts of a file, or of anything else that is no directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) inode: Inode,
    pub(super) links: u32,
    allocated: u64,
    /// 0 for what is no regular file.
    apparent: u64,
}

impl File {
    pub(super) fn of(entry: &Statx) -> Self {
        let is_regular = FileType::from_raw_mode(entry.stx_mode.into()) == FileType::RegularFile;
        Self {
            inode: open::inode(entry),
            links: entry.stx_nlink,
            allocated: allocated(entry),
            apparent: if is_regular { entry.stx_size } else { 0 },
        }
    }

    #[cfg(test)]
    pub(super) const fn with_names(inode: Inode, links: u32) -> Self {
        Self { inode, links, allocated: 0, apparent: 0 }
    }
}

impl Sums {
    pub(super) fn with_directory(mut self, entry: &Statx) -> Self {
        self.count_directory(entry);
        self
    }

    pub(super) fn with_error(mut self, kind: String) -> Self {
        *self.errors.entry(kind).or_default() += 1;
        self
    }

    pub(super) fn count_directory(&mut self, entry: &Statx) {
        self.directories = self.directories.saturating_add(1);
        self.allocated = self.allocated.saturating_add(allocated(entry));
    }

    pub(super) fn count_file(&mut self, file: &File) {
        self.files = self.files.saturating_add(1);
        self.allocated = self.allocated.saturating_add(file.allocated);
        self.apparent = self.apparent.saturating_add(file.apparent);
    }

    /// A name of an inode that has others, when nobody remembers which were seen: all of them together count it once.
    pub(super) fn count_share(&mut self, file: &File) {
        let links = u64::from(file.links).max(1);
        self.file_shares = self.file_shares.saturating_add(SHARES / links);
        self.allocated = self.allocated.saturating_add(file.allocated / links);
        self.apparent = self.apparent.saturating_add(file.apparent / links);
        *self.errors.entry(TOO_MANY_LINKS.to_owned()).or_default() += 1;
    }

    /// Non-directory inodes, also those that were counted by shares.
    pub(super) const fn all_files(&self) -> u64 {
        self.files.saturating_add(self.file_shares / SHARES)
    }

    pub(super) fn count_error(&mut self, error: Errno) {
        *self.errors.entry(error_kind(Some(error.raw_os_error()))).or_default() += 1;
    }

    /// The rest of a directory that is not found again where it was.
    pub(super) fn count_moved(&mut self) {
        *self.errors.entry(MOVED.to_owned()).or_default() += 1;
    }

    pub(super) fn skip(&mut self, path: Vec<u8>) {
        if self.skipped.len() < MAX_LISTED_MOUNTS {
            self.skipped.push(path);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        let Self { allocated, apparent, files, file_shares, directories, vanished, entries, errors, skipped } = other;
        self.allocated = self.allocated.saturating_add(allocated);
        self.apparent = self.apparent.saturating_add(apparent);
        self.files = self.files.saturating_add(files);
        self.file_shares = self.file_shares.saturating_add(file_shares);
        self.directories = self.directories.saturating_add(directories);
        self.vanished = self.vanished.saturating_add(vanished);
        self.entries = self.entries.saturating_add(entries);
        for (kind, count) in errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.skipped.extend(skipped);
        self.skipped.truncate(MAX_LISTED_MOUNTS);
    }
}

/// Bytes allocated to an inode.
pub(super) fn allocated(entry: &Statx) -> u64 {
    entry.stx_blocks.saturating_mul(512)
}

/// CamelCase name of an error of the kernel.
pub(super) fn error_kind(code: Option<i32>) -> String {
    let name = match code.map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM) => "PermissionDenied",
        Some(Errno::IO) => "InputOutput",
        Some(Errno::STALE) => "Stale",
        Some(Errno::MFILE | Errno::NFILE) => "TooManyOpenFiles",
        Some(Errno::NOMEM) => "OutOfMemory",
        Some(Errno::NOTDIR) => "NotADirectory",
        Some(Errno::LOOP) => "SymbolicLink",
        Some(Errno::NAMETOOLONG) => "NameTooLong",
        Some(Errno::NOTCONN) => "NotConnected",
        Some(Errno::TIMEDOUT) => "TimedOut",
        Some(other) => return format!("Errno{}", other.raw_os_error()),
        None => "Unknown",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_a_name_have_their_number() {
        assert_eq!(error_kind(Some(Errno::ACCESS.raw_os_error())), "PermissionDenied");
        assert_eq!(error_kind(Some(Errno::DOM.raw_os_error())), format!("Errno{}", Errno::DOM.raw_os_error()));
    }

    #[test]
    fn the_shares_of_all_names_add_up_to_the_inode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [1; 12_288]).unwrap();
        std::fs::hard_link(&path, folder.path().join("b")).unwrap();
        std::fs::hard_link(&path, folder.path().join("c")).unwrap();
        let found = File::of(&open::look_at(std::fs::File::open(&path).unwrap()).unwrap());
        let (mut whole, mut shares) = (Sums::default(), Sums::default());
        whole.count_file(&found);
        (0..3).for_each(|_| shares.count_share(&found));
        assert_eq!((shares.allocated, shares.apparent), (whole.allocated, whole.apparent));
        assert_eq!((shares.all_files(), shares.errors[TOO_MANY_LINKS]), (1, 3));
    }

    #[test]
    fn sums_beyond_what_can_be_counted_stay_at_the_most() {
        let most = || Sums {
            allocated: u64::MAX - 1,
            apparent: u64::MAX - 1,
            files: u64::MAX - 1,
            directories: u64::MAX - 1,
            vanished: u64::MAX - 1,
            entries: u64::MAX - 1,
            ..Sums::default()
        };
        let mut sums = most();
        sums.merge(most());
        let all = [sums.allocated, sums.apparent, sums.files, sums.directories, sums.vanished, sums.entries];
        assert_eq!(all, [u64::MAX; 6]);
    }
}
