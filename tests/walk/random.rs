//! Any tree comes to what GNU du and a plain recursive count say, with any number of threads, with `openat2` and without.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, fallocate, makedev, mknodat};

use super::machine::Disk;
use super::*;

/// What to do to a growing tree; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Folder(usize, u32),
    File(usize, u16, u32),
    /// Size, and where in it something is written.
    Sparse(usize, u32, u32),
    Reserve(usize, u32),
    Punch(usize, u16, u16),
    HardLink(usize, usize),
    LinkOutside(usize),
    LinkFromOutside(usize, u16),
    SymbolicLink(usize, Vec<u8>),
    Special(usize, FileType),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let special = prop_oneof![Just(FileType::Fifo), Just(FileType::CharacterDevice), Just(FileType::Socket)];
    prop_oneof![
        3 => any::<(usize, u32)>().prop_map(|(at, mode)| Step::Folder(at, mode)),
        3 => any::<(usize, u16, u32)>().prop_map(|(at, size, mode)| Step::File(at, size, mode)),
        1 => any::<(usize, u32, u32)>().prop_map(|(at, size, data)| Step::Sparse(at, size, data)),
        1 => (any::<usize>(), 1..1_u32 << 20).prop_map(|(of, size)| Step::Reserve(of, size)),
        1 => any::<(usize, u16, u16)>().prop_map(|(of, from, size)| Step::Punch(of, from, size)),
        2 => any::<(usize, usize)>().prop_map(|(at, of)| Step::HardLink(at, of)),
        1 => any::<usize>().prop_map(Step::LinkOutside),
        1 => any::<(usize, u16)>().prop_map(|(at, size)| Step::LinkFromOutside(at, size)),
        1 => (any::<usize>(), bytes(1..300)).prop_map(|(at, to)| Step::SymbolicLink(at, to)),
        1 => (any::<usize>(), special).prop_map(|(at, kind)| Step::Special(at, kind)),
        1 => any::<usize>().prop_map(Step::Remove),
    ]
}

/// What may be in a name.
fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("ends a name", |byte| !matches!(byte, 0 | b'/'));
    prop::collection::vec(byte, length)
}

/// A tree that grows, and a folder beside it.
struct Garden {
    outside: PathBuf,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Garden {
    fn new(at: &Path) -> Self {
        let [inside, outside] = ["inside", "outside"].map(|name| at.join(name));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        Self { outside, folders: vec![inside], files: Vec::new() }
    }

    /// A name that nothing has, in one of the folders.
    fn place(&self, at: usize, number: usize, name: &[u8]) -> PathBuf {
        let mut unique = format!("{number}-").into_bytes();
        unique.extend(name);
        self.folders[at % self.folders.len()].join(OsString::from_vec(unique))
    }

    fn file(&self, of: usize) -> Option<&PathBuf> {
        (!self.files.is_empty()).then(|| &self.files[of % self.files.len()])
    }

    fn grow(&mut self, number: usize, name: &[u8], step: &Step) {
        let place = |at: usize| self.place(at, number, name);
        match *step {
            Step::Folder(at, mode) => {
                let folder = place(at);
                fs::create_dir(&folder).unwrap();
                set_mode(&folder, mode);
                self.folders.push(folder);
            }
            Step::File(at, size, mode) => {
                let file = place(at);
                fs::write(&file, vec![7; size.into()]).unwrap();
                set_mode(&file, mode);
                self.files.push(file);
            }
            Step::Sparse(at, size, data) => {
                let path = place(at);
                let file = fs::File::create(&path).unwrap();
                file.set_len(size.into()).unwrap();
                file.write_all_at(b"data", (data % (1 << 24)).into()).unwrap();
                self.files.push(path);
            }
            Step::Reserve(of, size) => self.change(of, FallocateFlags::KEEP_SIZE, 0, size.into()),
            Step::Punch(of, from, size) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                self.change(of, flags, from.into(), u64::from(size).max(1));
            }
            Step::HardLink(at, of) => self.link(of, &place(at)),
            Step::LinkOutside(of) => self.link(of, &self.outside.join(number.to_string())),
            Step::LinkFromOutside(at, size) => {
                let there = self.outside.join(number.to_string());
                fs::write(&there, vec![7; size.into()]).unwrap();
                fs::hard_link(there, place(at)).unwrap();
            }
            Step::SymbolicLink(at, ref to) => symlink(std::ffi::OsStr::from_bytes(to), place(at)).unwrap(),
            Step::Special(at, kind) => mknodat(CWD, place(at), kind, Mode::from(0o600), makedev(1, 3)).unwrap(),
            Step::Remove(of) => {
                if let Some(file) = self.file(of).cloned() {
                    fs::remove_file(&file).unwrap();
                    self.files.retain(|other| *other != file);
                }
            }
        }
    }

    fn link(&self, of: usize, to: &Path) {
        if let Some(file) = self.file(of) {
            fs::hard_link(file, to).unwrap();
        }
    }

    fn change(&self, of: usize, flags: FallocateFlags, from: u64, size: u64) {
        if let Some(file) = self.file(of) {
            fallocate(fs::File::options().write(true).open(file).unwrap(), flags, from, size).unwrap();
        }
    }
}

/// (allocated, apparent, files, directories) by plain recursion.
fn naive(path: &Path, seen: &mut HashSet<u64>) -> (u64, u64, u64, u64) {
    let entry = fs::symlink_metadata(path).unwrap();
    if !seen.insert(entry.ino()) {
        return (0, 0, 0, 0);
    }
    if !entry.is_dir() {
        return (entry.blocks() * 512, if entry.is_file() { entry.len() } else { 0 }, 1, 0);
    }
    fs::read_dir(path).unwrap().fold((entry.blocks() * 512, 0, 0, 1), |sum, child| {
        let found = naive(&child.unwrap().path(), seen);
        (sum.0 + found.0, sum.1 + found.1, sum.2 + found.2, sum.3 + found.3)
    })
}

/// Random trees in this folder; `settle` is called when one is made.
fn any_tree_holds(cases: u32, at: &Path, settle: impl Fn()) {
    let steps = prop::collection::vec((bytes(0..60), step()), 0..120);
    let holds = |(steps, threads): (Vec<(Vec<u8>, Step)>, usize)| {
        let base = tempfile::tempdir_in(at).unwrap();
        let mut garden = Garden::new(base.path());
        (0..).zip(&steps).for_each(|(number, (name, step))| garden.grow(number, name, step));
        settle();
        let root = &garden.folders[0];
        let measured = walk_with(threads, root);
        let (files, directories, apparent) = counts(&measured);
        let allocated = measured.totals.allocated_bytes;
        prop_assert_eq!((allocated, apparent, files, directories), naive(root, &mut HashSet::new()));
        prop_assert_eq!((allocated, files + directories), (du(root), ask_du(&["-x", "--inodes"], root)));
        prop_assert_eq!(
            (&measured.errors, measured.vanished, &measured.skipped_mounts),
            (&BTreeMap::new(), 0, &Vec::new())
        );
        let fallback = without_openat2(Errno::PERM, || walk_with(threads, root));
        prop_assert_eq!((fallback.totals, fallback.errors), (measured.totals, measured.errors));
        Ok(())
    };
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    runner.run(&(steps, 1_usize..5), holds).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn any_tree_comes_to_what_du_and_plain_recursion_say() {
    any_tree_holds(64, &std::env::temp_dir(), || ());
}

#[test]
fn any_tree_on_tmpfs() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    any_tree_holds(32, root.path(), || ());
}

#[test]
fn any_tree_on_ext4() {
    if let Some(disk) = Disk::ext4() {
        any_tree_holds(16, &disk.at(), || disk.sync());
    }
}

#[test]
fn any_tree_on_xfs() {
    if let Some(disk) = Disk::xfs() {
        any_tree_holds(16, &disk.at(), || disk.sync());
    }
}

#[test]
fn any_tree_on_btrfs() {
    if let Some(disk) = Disk::btrfs() {
        any_tree_holds(16, &disk.at(), || disk.sync());
    }
}
