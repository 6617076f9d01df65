//! Directories that wait to be read: each knows its parent, and is opened from it.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::open::{Opener, Refused};

/// Descriptors kept open for directories whose children wait. Beyond it a parent is opened again, from the nearest one that is open.
const KEPT_OPEN: usize = 256;

/// A directory of the tree.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Self>>,
    name: CString,
    /// Kept for the children; the root's always is.
    fd: Option<Kept>,
}

/// A descriptor that counts towards [`KEPT_OPEN`].
#[derive(Debug)]
struct Kept {
    fd: Arc<OwnedFd>,
    count: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory that waits, by the name its parent lists.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) parent: Arc<Directory>,
    pub(super) name: CString,
}

impl Directory {
    pub(super) fn root(fd: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: CString::default(),
            fd: Some(Kept { fd, count: Arc::new(AtomicUsize::new(1)) }),
        })
    }

    /// The directory just opened as `fd`, as a parent for its children; keeps the descriptor while there is room.
    pub(super) fn below(waiting: Waiting, fd: &Arc<OwnedFd>, kept: &Arc<AtomicUsize>) -> Arc<Self> {
        let room = kept.fetch_add(1, Ordering::Relaxed) < KEPT_OPEN;
        let held = Kept { fd: Arc::clone(fd), count: Arc::clone(kept) };
        Arc::new(Self { parent: Some(waiting.parent), name: waiting.name, fd: room.then_some(held) })
    }

    /// A descriptor of this directory: the one kept, or a new one by way of its ancestors.
    pub(super) fn open(self: &Arc<Self>, opener: &Opener) -> Result<Arc<OwnedFd>, Refused> {
        let mut closed: Vec<&Self> = Vec::new();
        let mut directory: &Self = self;
        let mut fd = loop {
            match (&directory.fd, &directory.parent) {
                (Some(kept), _) => break Arc::clone(&kept.fd),
                (None, Some(parent)) => {
                    closed.push(directory);
                    directory = parent;
                }
                (None, None) => return Err(Refused::Vanished),
            }
        };
        for directory in closed.into_iter().rev() {
            fd = Arc::new(opener.child(&fd, &directory.name)?);
        }
        Ok(fd)
    }

    /// The path of an entry of this directory below the root.
    pub(super) fn path_to(&self, name: &[u8]) -> Vec<u8> {
        let mut components = vec![name];
        let mut directory = self;
        while let Some(parent) = &directory.parent {
            components.push(directory.name.as_bytes());
            directory = parent;
        }
        components.reverse();
        super::join(&components)
    }
}

impl Drop for Directory {
    /// Without recursion: a chain of a million directories must not use a million frames.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(directory) = parent {
            parent = Arc::into_inner(directory).and_then(|mut directory| directory.parent.take());
        }
    }
}
