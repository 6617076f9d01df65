//! What the one look at each file also tells, for who asks: the biggest files and directories, and how files spread over sizes, ages, owners
//! and extensions. Each thread collects its own, which is added up when it ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::CStr;
use std::hash::Hash;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rustix::fs::{Statx, StatxFlags};
use serde::Serialize;

use super::open;
use super::sums::allocated;

/// Files and directories that a top list has at most.
pub const MAX_TOP: usize = 1000;
/// The classes of [`Histogram::sizes`] end below these bytes; the last has no end.
pub const SIZES: [u64; 7] = [1, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 4 << 30];
/// The classes of [`Histogram::ages`] end below these days; the first is what lies ahead, the last has no end.
pub const AGES_IN_DAYS: [i64; 6] = [0, 1, 7, 30, 90, 365];
/// Owners and extensions that are told apart.
const MAX_OWNERS: usize = 10_000;
const MAX_EXTENSIONS: usize = 1000;
/// What follows a dot and is longer is no extension.
const MAX_EXTENSION_BYTES: usize = 16;
/// In seconds.
const DAY: i64 = 24 * 3600;

/// Which details a walk collects; by default none, which costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many of the biggest files, and of the biggest directories: at most [`MAX_TOP`].
    pub top: usize,
    /// Sizes, ages, owners and extensions.
    pub histogram: bool,
    /// The time since 1970 that ages count to: a walk reads no clock itself.
    pub now: Duration,
}

/// Details of a tree. Each inode once, a hard link under the name that was seen first. Of a walk that was cut short they are a lower bound:
/// what the threads have found that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The files with most allocated bytes, the biggest first; which ones of equal size is not said.
    pub top_files: Vec<Biggest>,
    /// The directories with most bytes allocated to themselves and to the files directly in them, the biggest first.
    pub top_directories: Vec<Biggest>,
    /// How the files spread.
    pub histogram: Option<Box<Histogram>>,
}

/// A file or directory of a top list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Biggest {
    /// `st_blocks × 512`.
    pub allocated_bytes: u64,
    /// Below the root, empty for the root itself. Of a path that no system call would take, for it is too long, the end behind `.../`.
    pub path: Vec<u8>,
}

/// Files of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Non-directory inodes.
    pub files: u64,
    /// `st_blocks × 512`.
    pub allocated_bytes: u64,
}

/// How files (all that is no directory) spread; each way adds up to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// By `st_size`, see [`SIZES`].
    pub sizes: [Share; SIZES.len() + 1],
    /// By the time between the last write and [`Wanted::now`], see [`AGES_IN_DAYS`].
    pub ages: [Share; AGES_IN_DAYS.len() + 1],
    /// By numeric user id, at most 10,000.
    pub owners: Groups<u32>,
    /// By extension, at most 1000.
    pub extensions: Groups<Extension>,
    /// Files without an extension.
    pub without_extension: Share,
}

/// Files by a key. The first keys are told apart, as many as there is room for; then each is a lower bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups<K: Eq + Hash> {
    most: usize,
    apart: HashMap<K, Share, RandomState>,
    /// Those there was no room for.
    pub others: Share,
}

/// The part of a name after its last dot, in lower case (ASCII); not after a dot that begins the name, and at most 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extension([u8; MAX_EXTENSION_BYTES]);

/// What one thread collects.
#[derive(Debug)]
pub(super) struct Collector {
    top_files: Top,
    top_directories: Top,
    histogram: Option<Box<Histogram>>,
    /// Times of the last write, as seconds and nanoseconds, with which the classes of ages begin.
    ages: [(i64, u32); AGES_IN_DAYS.len()],
}

/// The biggest of what was offered, the smallest of them on top.
#[derive(Debug)]
struct Top {
    most: usize,
    kept: BinaryHeap<Reverse<Biggest>>,
}

impl Wanted {
    /// Whether anything is.
    pub const fn is_any(self) -> bool {
        self.top > 0 || self.histogram
    }

    /// What to ask of each file.
    pub(super) const fn mask(self) -> StatxFlags {
        if self.histogram { open::MASK.union(StatxFlags::UID).union(StatxFlags::MTIME) } else { open::MASK }
    }
}

impl Share {
    /// Adds those of another.
    pub fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.allocated_bytes = self.allocated_bytes.saturating_add(other.allocated_bytes);
    }
}

impl<K: Copy + Ord + Hash> Groups<K> {
    fn new(most: usize) -> Self {
        Self { most, apart: HashMap::default(), others: Share::default() }
    }

    fn add(&mut self, key: K, share: Share) {
        if let Some(known) = self.apart.get_mut(&key) {
            known.add(share);
        } else if self.apart.len() < self.most {
            self.apart.insert(key, share);
        } else {
            self.others.add(share);
        }
    }

    fn merge(&mut self, other: Self) {
        other.apart.into_iter().for_each(|(key, share)| self.add(key, share));
        self.others.add(other.others);
    }

    /// Those that are told apart, the biggest first.
    pub fn biggest_first(&self) -> Vec<(K, Share)> {
        let mut sorted: Vec<(K, Share)> = self.apart.iter().map(|(key, share)| (*key, *share)).collect();
        sorted.sort_unstable_by_key(|(key, share)| (Reverse(share.allocated_bytes), *key));
        sorted
    }
}

impl Extension {
    /// Of a file's name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let after = name.iter().rev().take(MAX_EXTENSION_BYTES + 1).position(|byte| *byte == b'.')?;
        let (before, found) = name.split_at_checked(name.len() - after)?;
        if found.is_empty() || before.len() == 1 {
            return None;
        }
        let mut bytes = [0; MAX_EXTENSION_BYTES];
        bytes.iter_mut().zip(found).for_each(|(to, from)| *to = from.to_ascii_lowercase());
        Some(Self(bytes))
    }

    /// Its bytes; names are in no certain encoding.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl Histogram {
    fn new() -> Self {
        Self {
            sizes: Default::default(),
            ages: Default::default(),
            owners: Groups::new(MAX_OWNERS),
            extensions: Groups::new(MAX_EXTENSIONS),
            without_extension: Share::default(),
        }
    }

    fn count(&mut self, found: &Statx, name: &[u8], ages: &[(i64, u32)]) {
        let share = Share { files: 1, allocated_bytes: allocated(found) };
        let written = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
        self.sizes[SIZES.iter().take_while(|end| found.stx_size >= **end).count()].add(share);
        self.ages[ages.iter().take_while(|begin| written <= **begin).count()].add(share);
        self.owners.add(found.stx_uid, share);
        match Extension::of(name) {
            Some(extension) => self.extensions.add(extension, share),
            None => self.without_extension.add(share),
        }
    }

    fn merge(&mut self, other: Self) {
        let Self { sizes, ages, owners, extensions, without_extension } = other;
        self.sizes.iter_mut().zip(sizes).for_each(|(own, other)| own.add(other));
        self.ages.iter_mut().zip(ages).for_each(|(own, other)| own.add(other));
        self.owners.merge(owners);
        self.extensions.merge(extensions);
        self.without_extension.add(without_extension);
    }
}

impl Collector {
    pub(super) fn new(wanted: Wanted) -> Self {
        let seconds = i64::try_from(wanted.now.as_secs()).unwrap_or(i64::MAX);
        Self {
            top_files: Top::new(wanted.top),
            top_directories: Top::new(wanted.top),
            histogram: wanted.histogram.then(|| Box::new(Histogram::new())),
            ages: AGES_IN_DAYS.map(|days| (seconds.saturating_sub(days * DAY), wanted.now.subsec_nanos())),
        }
    }

    /// Takes a file; its path is made only when it enters the list.
    pub(super) fn count_file(&mut self, found: &Statx, name: &CStr, path: impl FnOnce() -> Vec<u8>) {
        self.top_files.offer(allocated(found), path);
        if let Some(histogram) = &mut self.histogram {
            histogram.count(found, name.to_bytes(), &self.ages);
        }
    }

    /// Takes a directory that was read wholly.
    pub(super) fn count_directory(&mut self, allocated_bytes: u64, path: impl FnOnce() -> Vec<u8>) {
        self.top_directories.offer(allocated_bytes, path);
    }

    /// Adds what another thread has collected.
    pub(super) fn merge(&mut self, other: Self) {
        let Self { top_files, top_directories, histogram, ages: _ } = other;
        self.top_files.merge(top_files);
        self.top_directories.merge(top_directories);
        if let (Some(own), Some(other)) = (&mut self.histogram, histogram) {
            own.merge(*other);
        }
    }

    /// What was collected so far.
    pub(super) fn details(&self) -> Details {
        Details {
            top_files: self.top_files.biggest_first(),
            top_directories: self.top_directories.biggest_first(),
            histogram: self.histogram.clone(),
        }
    }
}

impl Top {
    fn new(most: usize) -> Self {
        Self { most: most.min(MAX_TOP), kept: BinaryHeap::new() }
    }

    fn offer(&mut self, allocated_bytes: u64, path: impl FnOnce() -> Vec<u8>) {
        if self.kept.len() < self.most {
            self.kept.push(Reverse(Biggest { allocated_bytes, path: path() }));
        } else if let Some(mut smallest) = self.kept.peek_mut()
            && allocated_bytes > smallest.0.allocated_bytes
        {
            smallest.0 = Biggest { allocated_bytes, path: path() };
        }
    }

    fn merge(&mut self, other: Self) {
        other.kept.into_iter().for_each(|Reverse(one)| self.offer(one.allocated_bytes, || one.path));
    }

    fn biggest_first(&self) -> Vec<Biggest> {
        let mut sorted: Vec<Biggest> = self.kept.iter().map(|Reverse(one)| one.clone()).collect();
        sorted.sort_unstable_by(|a, b| b.allocated_bytes.cmp(&a.allocated_bytes).then_with(|| a.path.cmp(&b.path)));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_what_follows_the_last_dot_of_a_name() {
        let of = |name: &[u8]| Extension::of(name).map(|found| found.as_bytes().to_vec());
        let found: [(&[u8], &[u8]); 5] = [
            (b"a.txt", b"txt"),
            (b"archive.tar.GZ", b"gz"),
            (b"..d", b"d"),
            (b"caf\xe9.\xff\xc3", b"\xff\xc3"),
            (b"x.1234567890123456", b"1234567890123456"),
        ];
        for (name, extension) in found {
            assert_eq!(of(name), Some(extension.to_vec()), "{name:?}");
        }
        for name in [&b"Makefile"[..], b".bashrc", b"a.", b"...", b"x.12345678901234567", b"a.b.12345678901234567", b""]
        {
            assert_eq!(of(name), None, "{name:?}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_summed_up() {
        let share = |bytes| Share { files: 1, allocated_bytes: bytes };
        let mut one = Groups::new(2);
        for (key, bytes) in [(1, 10), (2, 20), (3, 30), (1, 15)] {
            one.add(key, share(bytes));
        }
        assert_eq!((one.biggest_first()[0], one.others), ((1, Share { files: 2, allocated_bytes: 25 }), share(30)));
        let mut other = Groups::new(2);
        for (key, bytes) in [(2, 100), (4, 5)] {
            other.add(key, share(bytes));
        }
        one.merge(other);
        assert_eq!(one.biggest_first()[0], (2, Share { files: 2, allocated_bytes: 120 }));
        assert_eq!((one.apart.len(), one.others), (2, Share { files: 2, allocated_bytes: 35 }));
    }

    #[test]
    fn only_what_enters_a_list_gets_a_path() {
        let mut top = Top::new(2);
        let mut paths = 0;
        for bytes in [5, 3, 3, 1, 4, 5, 4] {
            top.offer(bytes, || {
                paths += 1;
                vec![b'a']
            });
        }
        let kept: Vec<u64> = top.biggest_first().iter().map(|one| one.allocated_bytes).collect();
        assert_eq!((kept, paths), (vec![5, 5], 4));
        Top::new(0).offer(9, || panic!("nothing is wanted"));
        assert_eq!(Top::new(usize::MAX).most, MAX_TOP);
    }
}
