//! What threads of a walk do for each other: pieces of work, and what a piece becomes while it is being done.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::open::Inode;
use super::tree::{Directory, Waiting};

/// A piece of work.
#[derive(Debug)]
pub(super) enum Task {
    Open(Waiting),
    /// Read on from this position.
    Resume {
        directory: Arc<Directory>,
        position: u64,
    },
    /// Look at these entries of a directory that is too big for one thread.
    Look {
        directory: Arc<Directory>,
        fd: Arc<OwnedFd>,
        names: Names,
    },
}

/// Names one after the other, each with its zero.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    pub(super) count: usize,
}

impl Names {
    pub(super) fn push(&mut self, name: &CStr) {
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.count += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.bytes.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }
}

/// A directory that is open and being read, or a part of it.
pub(super) struct Reading {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) place: Place,
    /// Bytes allocated to what was found directly in it, and to itself.
    pub(super) allocated: u64,
}

/// Where it is: it becomes a [`Directory`] once somebody else needs it, which most never do.
pub(super) enum Place {
    Alone(Waiting, Inode),
    Shared(Arc<Directory>),
}

impl Place {
    /// The path of an entry below the root.
    pub(super) fn path_to(&self, name: &[u8]) -> Vec<u8> {
        match self {
            Self::Alone(waiting, _) => waiting.parent.path_to(&[waiting.name.as_bytes(), name].join(&b'/')),
            Self::Shared(directory) => directory.path_to(name),
        }
    }
}
