//! Directories that wait to be read: each knows its parent, and is opened from it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use super::open::{self, Inode, Opener, Refused};

/// Descriptors that a thread keeps open for directories whose children wait; of more the ones opened first are closed, and opened again from
/// the nearest ancestor that is open.
const KEPT_OPEN: usize = 128;
/// Ancestors of a directory that was opened again which stay open, too: those that wait above it are next.
const KEPT_ABOVE: usize = KEPT_OPEN / 2;
/// Of a path longer than the kernel takes (PATH_MAX) the end is told.
const MAX_PATH: usize = 4096;

/// A directory of the tree with children that wait.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Self>>,
    name: CString,
    inode: Inode,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Parts of it that are being read, or wait.
    parts: AtomicUsize,
    /// Bytes allocated to it and to the files directly in it, as far as parts have ended.
    allocated: AtomicU64,
}

/// A directory that waits, by the name its parent lists.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) parent: Arc<Directory>,
    pub(super) name: CString,
}

impl Directory {
    /// The tree's root, which stays open; `allocated` bytes are its own.
    pub(super) fn root(fd: &Arc<OwnedFd>, inode: Inode, allocated: u64) -> Arc<Self> {
        Self::new(None, CString::default(), fd, inode, allocated)
    }

    /// The directory just opened as `fd`; who reads it tells what is allocated to it.
    pub(super) fn below(waiting: Waiting, fd: &Arc<OwnedFd>, inode: Inode) -> Arc<Self> {
        Self::new(Some(waiting.parent), waiting.name, fd, inode, 0)
    }

    fn new(parent: Option<Arc<Self>>, name: CString, fd: &Arc<OwnedFd>, inode: Inode, allocated: u64) -> Arc<Self> {
        let fd = Mutex::new(Some(Arc::clone(fd)));
        Arc::new(Self { parent, name, inode, fd, parts: AtomicUsize::new(1), allocated: AtomicU64::new(allocated) })
    }

    /// A part of it is to be read apart.
    pub(super) fn begin_part(&self) {
        self.parts.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of it was read, which has found so many bytes; all bytes when it was the last.
    pub(super) fn end_part(&self, allocated: u64) -> Option<u64> {
        self.allocated.fetch_add(allocated, Ordering::Relaxed);
        // Whoever ends the last part sees what the others have added.
        (self.parts.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.allocated.load(Ordering::Relaxed))
    }

    fn kept(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.fd).clone()
    }

    fn open_below(&self, parent: &OwnedFd, opener: &Opener) -> Result<Arc<OwnedFd>, Refused> {
        let fd = opener.child(parent, &self.name)?;
        let found = open::look_at(&fd).map_err(Refused::Error)?;
        // Another directory has taken its place: what waits below it was of the one that is gone.
        if open::inode(&found) != self.inode {
            return Err(Refused::Vanished);
        }
        Ok(Arc::new(fd))
    }

    /// Its path below the root; empty for the root.
    pub(super) fn path(&self) -> Vec<u8> {
        self.parent.as_ref().map_or_else(Vec::new, |parent| parent.path_to(self.name.as_bytes()))
    }

    /// The path of an entry of this directory below the root; of one longer than `MAX_PATH` the end behind `.../`.
    pub(super) fn path_to(&self, name: &[u8]) -> Vec<u8> {
        let (mut components, mut length) = (vec![name], name.len());
        let mut directory = self;
        while let Some(parent) = &directory.parent {
            let name = directory.name.as_bytes();
            length += name.len() + 1;
            if length > MAX_PATH {
                components.push(b"...");
                break;
            }
            components.push(name);
            directory = parent;
        }
        components.reverse();
        components.join(&b'/')
    }
}

impl Waiting {
    /// Its path below the root.
    pub(super) fn path(&self) -> Vec<u8> {
        self.parent.path_to(self.name.as_bytes())
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

/// The directories that a thread keeps open, the newest last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    directories: VecDeque<Arc<Directory>>,
}

impl Kept {
    /// Keeps one open, and closes the one that was kept first when there are too many.
    pub(super) fn keep(&mut self, directory: &Arc<Directory>) {
        // Nothing waits below these any more.
        while self.directories.back().is_some_and(|last| Arc::strong_count(last) == 1) {
            self.directories.pop_back();
        }
        if self.directories.len() >= KEPT_OPEN
            && let Some(first) = self.directories.pop_front()
        {
            // Whoever opens children from it at this moment has a share of the descriptor.
            *lock(&first.fd) = None;
        }
        self.directories.push_back(Arc::clone(directory));
    }

    /// A descriptor of a directory: the one kept, or a new one by way of its ancestors.
    pub(super) fn open(&mut self, directory: &Arc<Directory>, opener: &Opener) -> Result<Arc<OwnedFd>, Refused> {
        if let Some(fd) = directory.kept() {
            return Ok(fd);
        }
        let mut closed = vec![directory];
        let mut fd = loop {
            let Some(parent) = closed.last().and_then(|last| last.parent.as_ref()) else {
                return Err(Refused::Vanished);
            };
            match parent.kept() {
                Some(fd) => break fd,
                None => closed.push(parent),
            }
        };
        for (above, directory) in closed.into_iter().enumerate().rev() {
            fd = directory.open_below(&fd, opener)?;
            if above < KEPT_ABOVE {
                *lock(&directory.fd) = Some(Arc::clone(&fd));
                self.keep(directory);
            }
        }
        Ok(fd)
    }
}
