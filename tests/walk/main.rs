//! The walker against GNU du and against what a hand would count, on trees that others get wrong; docs/walker.md lists them.
//!
//! Runs as root: trees have devices and mounts in them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod cancel;
mod depth;
mod details;
mod failing;
mod filesystems;
mod kinds;
mod life;
mod links;
mod live;
mod machine;
mod mounts;
mod permissions;
mod random;
mod root;
mod sizes;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;
use volumeviz::agent::walk::{Measured, Options, Outcome, Threads, Walker};

fn walk(root: &Path) -> Measured {
    walk_with(2, root)
}

fn walk_with(threads: usize, root: &Path) -> Measured {
    match Walker::new(Threads::Exactly(threads)).measure(root, &Options::default()) {
        Outcome::Measured(measured) => measured,
        other => panic!("{other:?}"),
    }
}

/// What `du -sxB1` says: disk space in bytes, hard links once, other mounts left out.
fn du(root: &Path) -> u64 {
    ask_du(&["-x", "-B1"], root)
}

/// The number that du says of a whole tree.
fn ask_du(options: &[&str], root: &Path) -> u64 {
    let output = Command::new("du").arg("-s").args(options).arg(root).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().unwrap_or_else(|| panic!("{output:?}")).parse().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// (files, directories, apparent bytes)
type Counts = (u64, u64, u64);

fn counts(measured: &Measured) -> Counts {
    (measured.totals.files, measured.totals.directories.unwrap(), measured.totals.apparent_bytes.unwrap())
}

/// A tree that comes to these counts and to du's bytes, with nothing missing.
#[track_caller]
fn complete(root: &Path, expected: Counts) -> Measured {
    complete_by(&["-x", "-B1"], root, expected)
}

/// The same by another question to du.
#[track_caller]
fn complete_by(du: &[&str], root: &Path, expected: Counts) -> Measured {
    let measured = walk(root);
    assert_eq!(counts(&measured), expected);
    assert_eq!(measured.totals.allocated_bytes, ask_du(du, root), "allocated bytes are not du's");
    assert_eq!((&measured.errors, measured.cut_short, measured.vanished), (&BTreeMap::new(), None, 0));
    measured
}

fn tree() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
}

/// So many folders with so many files of one byte each.
fn fill(root: &Path, folders: usize, files: usize) {
    for folder in 0..folders {
        let folder = root.join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        (0..files).for_each(|file| fs::write(folder.join(file.to_string()), "1").unwrap());
    }
}

/// A mount that goes with the test, also when it fails.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path, arguments: &[&str]) -> Self {
        run("mount", &[arguments, &[at.to_str().unwrap()]].concat());
        Self(at)
    }

    /// Big trees are made and removed fastest in memory.
    fn tmpfs(at: &'a Path) -> Self {
        Self::new(at, &["-t", "tmpfs", "-o", "nr_inodes=0", "tmpfs"])
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).output());
    }
}

/// In a thread of its own, whose threads inherit what is done to it.
fn apart<T: Send>(restrict: impl FnOnce() + Send, act: impl FnOnce() -> T + Send) -> T {
    let restricted = || {
        restrict();
        act()
    };
    thread::scope(|scope| scope.spawn(restricted).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// As on a kernel that does not know `openat2` (`ENOSYS`), or under a seccomp profile that forbids it (`EPERM`).
fn without_openat2<T: Send>(error: Errno, act: impl FnOnce() -> T + Send) -> T {
    /// The same on every architecture.
    const OPENAT2: i64 = 437;
    let refuse = SeccompAction::Errno(error.raw_os_error().cast_unsigned());
    let rules = BTreeMap::from([(OPENAT2, Vec::new())]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into().unwrap());
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    apart(|| seccompiler::apply_filter(&filter).unwrap(), act)
}

/// With `openat2` and without.
fn both_ways(act: impl Fn() + Sync) {
    act();
    without_openat2(Errno::NOSYS, &act);
}

/// As somebody who may read only what its owner and mode let him.
fn unprivileged<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    apart(|| rustix::thread::set_capabilities(None, sets).unwrap(), act)
}
