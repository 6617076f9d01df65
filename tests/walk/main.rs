//! The walker against GNU du and against what a hand would count, on trees that others get wrong.
//!
//! Runs as root: trees have devices and mounts in them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod corpus;
mod details;
mod life;
mod random;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use volumeviz::agent::walk::{Measured, Options, Outcome, Threads, Walker};

fn walk(root: &Path) -> Measured {
    match Walker::new(Threads::Exactly(2)).measure(root, &Options::default()) {
        Outcome::Measured(measured) => measured,
        other => panic!("{other:?}"),
    }
}

/// What `du -sxB1` says: disk space in bytes, hard links once, other mounts left out.
fn du(root: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-x", "-B1"]).arg(root).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().unwrap_or_else(|| panic!("{output:?}")).parse().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// (files, directories, apparent bytes)
fn counts(measured: &Measured) -> (u64, u64, u64) {
    (measured.totals.files, measured.totals.directories.unwrap(), measured.totals.apparent_bytes.unwrap())
}

fn tree() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A mount that goes with the test, also when it fails.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path, arguments: &[&str]) -> Self {
        run("mount", &[arguments, &[at.to_str().unwrap()]].concat());
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).output());
    }
}
