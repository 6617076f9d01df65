//! The walk itself: threads that take directories from one stack, read them, and put their subdirectories onto it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{FileType, RawDir, SeekFrom, Statx};
use rustix::io::Errno;

use super::links::Links;
use super::open::{self, Opener, Refused};
use super::sums::{Sums, error_kind};
use super::tree::{Directory, Waiting};
use super::{CutShort, Handle, Identity, Measured, Outcome, Totals, lock};

/// Directories that may wait; a directory with more subdirectories is put aside and read on later.
const MAX_WAITING: usize = 1 << 16;
/// Entries after which a big directory's sums are added up, so that progress is told and a deadline loses little.
const TELL_EVERY: u64 = 4096;
/// Room for some thousand entries a call.
const BUFFER_BYTES: usize = 64 * 1024;

/// One walk.
pub(super) struct Walk {
    root: PathBuf,
    threads: usize,
    handle: Handle,
    /// The deadline passed: like a cancel, but told apart.
    stopped: AtomicBool,
    finished: AtomicBool,
    opener: Opener,
    stack: Mutex<Stack>,
    wake: Condvar,
    links: Mutex<Links>,
    sums: Mutex<Sums>,
    kept_open: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Stack {
    waiting: Vec<Task>,
    /// Directories too big to be read at once; taken when nothing else waits.
    put_aside: Vec<Task>,
    busy: usize,
}

/// A piece of work.
#[derive(Debug)]
enum Task {
    Open(Waiting),
    /// Read on from this position.
    Resume {
        directory: Arc<Directory>,
        fd: Arc<OwnedFd>,
        position: u64,
    },
}

impl Walk {
    pub(super) fn new(root: PathBuf, threads: usize, handle: Handle) -> Self {
        Self {
            root,
            threads,
            handle,
            stopped: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            opener: Opener::new(),
            stack: Mutex::default(),
            wake: Condvar::new(),
            links: Mutex::default(),
            sums: Mutex::default(),
            kept_open: Arc::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_finished(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.handle.is_cancelled()
    }

    /// Walks the tree with all threads.
    pub(super) fn run(self: &Arc<Self>) -> Outcome {
        let before = Identity::of(&self.root);
        let fd = match Opener::root(&self.root) {
            Ok(fd) => Arc::new(fd),
            Err(Errno::NOENT) => return Outcome::Vanished,
            Err(error) => return Outcome::Unreadable { kind: error_kind(Some(error.raw_os_error())) },
        };
        match open::look_at(&*fd) {
            Ok(entry) => self.add(Sums::default().with_directory(&entry)),
            Err(error) => return Outcome::Unreadable { kind: error_kind(Some(error.raw_os_error())) },
        }
        let root = Directory::root(Arc::clone(&fd));
        lock(&self.stack).waiting.push(Task::Resume { directory: root, fd, position: 0 });
        self.work_with_all_threads();
        // Removed, or made anew under its name: what was counted is of a tree that is gone.
        if before.is_some() && Identity::of(&self.root) != before {
            return Outcome::Vanished;
        }
        Outcome::Measured(self.so_far(self.handle.is_cancelled().then_some(CutShort::Cancelled)))
    }

    fn work_with_all_threads(self: &Arc<Self>) {
        let helper = |_| {
            let walk = Arc::clone(self);
            std::thread::Builder::new().name("walk-helper".to_owned()).spawn(move || walk.work()).ok()
        };
        // A helper that cannot be started is one thread less.
        let helpers: Vec<_> = (1..self.threads).filter_map(helper).collect();
        self.work();
        for helper in helpers {
            if helper.join().is_err() {
                self.add(Sums::default().with_error("WalkerPanicked".to_owned()));
            }
        }
    }

    /// What is known now.
    pub(super) fn so_far(&self, cut_short: Option<CutShort>) -> Measured {
        let sums = lock(&self.sums);
        Measured {
            totals: Totals {
                allocated_bytes: sums.allocated,
                apparent_bytes: Some(sums.apparent),
                files: sums.files,
                directories: Some(sums.directories),
            },
            from_filesystem: false,
            errors: sums.errors.clone(),
            vanished: sums.vanished,
            skipped_mounts: sums.skipped.clone(),
            cut_short,
            filesystem: None,
        }
    }

    /// One thread's life.
    fn work(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        while let Some(task) = self.take() {
            let (sums, found) = self.perform(task, &mut buffer);
            self.add(sums);
            self.give_back(found);
        }
    }

    /// Waits for a directory; `None` when none waits and no thread can find more.
    fn take(&self) -> Option<Task> {
        let mut stack = lock(&self.stack);
        loop {
            if self.is_over() {
                return None;
            }
            if let Some(task) = stack.waiting.pop().or_else(|| stack.put_aside.pop()) {
                stack.busy += 1;
                return Some(task);
            }
            if stack.busy == 0 {
                return None;
            }
            stack = self.wake.wait(stack).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, Found { subdirectories, rest }: Found) {
        let mut stack = lock(&self.stack);
        stack.busy -= 1;
        let more = subdirectories.len() > 1 || rest.is_some();
        stack.waiting.extend(subdirectories.into_iter().map(Task::Open));
        stack.put_aside.extend(rest);
        // Whoever waits must also learn that this was the last one, or that it is over.
        if more || stack.busy == 0 || self.is_over() {
            self.wake.notify_all();
        }
    }

    fn add(&self, sums: Sums) {
        let entries = sums.entries;
        self.handle.advance(entries, sums.allocated);
        lock(&self.sums).merge(sums);
        if let Some(pace) = self.handle.pace() {
            pace.spend(entries, || self.is_over());
        }
    }

    fn perform(&self, task: Task, buffer: &mut [MaybeUninit<u8>]) -> (Sums, Found) {
        let mut sums = Sums::default();
        let found = match task {
            Task::Resume { directory, fd, position } => self.read(&directory, &fd, position, buffer, &mut sums),
            Task::Open(waiting) => self
                .open(waiting, &mut sums)
                .map_or_else(Found::default, |(directory, fd)| self.read(&directory, &fd, 0, buffer, &mut sums)),
        };
        (sums, found)
    }

    fn open(&self, waiting: Waiting, sums: &mut Sums) -> Option<(Arc<Directory>, Arc<OwnedFd>)> {
        let parent = waiting.parent.open(&self.opener);
        let opened = parent.clone().and_then(|parent| self.opener.child(&parent, &waiting.name));
        match opened {
            Ok(fd) => {
                let fd = Arc::new(fd);
                match open::look_at(&*fd) {
                    Ok(entry) => sums.count_directory(&entry),
                    Err(error) => sums.count_error(error),
                }
                Some((Directory::below(waiting, &fd, &self.kept_open), fd))
            }
            Err(Refused::OtherMount) => {
                sums.skip(waiting.parent.path_to(waiting.name.as_bytes()));
                None
            }
            Err(Refused::Vanished) => {
                sums.vanished += 1;
                None
            }
            Err(Refused::Error(error)) => {
                // It cannot be read, but its own blocks can be counted.
                if let Ok(Ok(entry)) = parent.map(|parent| open::look_up(&*parent, &waiting.name)) {
                    sums.count_directory(&entry);
                }
                sums.count_error(error);
                None
            }
        }
    }

    /// Reads a directory from `position` on: counts what is no directory, collects what is.
    fn read(
        &self,
        directory: &Arc<Directory>,
        fd: &Arc<OwnedFd>,
        position: u64,
        buffer: &mut [MaybeUninit<u8>],
        sums: &mut Sums,
    ) -> Found {
        let mut found = Found::default();
        let tell_every = self.handle.pace().map_or(TELL_EVERY, |pace| pace.look_every().min(TELL_EVERY));
        if position > 0
            && let Err(error) = rustix::fs::seek(&**fd, SeekFrom::Start(position))
        {
            sums.count_error(error);
            return found;
        }
        let mut entries = RawDir::new(&**fd, buffer);
        while let Some(entry) = entries.next() {
            if self.is_over() {
                return Found::default();
            }
            let entry = match entry {
                Ok(entry) => entry,
                // Removed while it was read.
                Err(Errno::NOENT) => {
                    sums.vanished += 1;
                    return found;
                }
                Err(error) => {
                    sums.count_error(error);
                    return found;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            sums.entries += 1;
            if sums.entries >= tell_every {
                self.add(std::mem::take(sums));
            }
            if entry.file_type() == FileType::Directory {
                found.subdirectories.push(Waiting { parent: Arc::clone(directory), name: name.to_owned() });
            } else {
                self.look_at_entry(directory, fd, name, sums, &mut found);
            }
            if found.subdirectories.len() >= MAX_WAITING {
                let position = entry.next_entry_cookie();
                found.rest = Some(Task::Resume { directory: Arc::clone(directory), fd: Arc::clone(fd), position });
                return found;
            }
        }
        found
    }

    fn look_at_entry(
        &self,
        directory: &Arc<Directory>,
        fd: impl AsFd,
        name: &CStr,
        sums: &mut Sums,
        found: &mut Found,
    ) {
        let entry = match open::look_up(fd, name) {
            Ok(entry) => entry,
            Err(Errno::NOENT) => return sums.vanished += 1,
            Err(error) => return sums.count_error(error),
        };
        if open::is_mount_root(&entry) {
            sums.skip(directory.path_to(name.to_bytes()));
        } else if FileType::from_raw_mode(entry.stx_mode.into()) == FileType::Directory {
            // A file system that does not tell kinds when it lists.
            found.subdirectories.push(Waiting { parent: Arc::clone(directory), name: name.to_owned() });
        } else if entry.stx_nlink <= 1 || lock(&self.links).is_first(device(&entry), entry.stx_ino, entry.stx_nlink) {
            sums.count_file(&entry);
        }
    }
}

/// What reading a directory brought up.
#[derive(Debug, Default)]
struct Found {
    subdirectories: Vec<Waiting>,
    rest: Option<Task>,
}

fn device(entry: &Statx) -> u64 {
    u64::from(entry.stx_dev_major) << 32 | u64::from(entry.stx_dev_minor)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("file"), [0_u8; 10_000]).unwrap();
        }
        fs::hard_link(root.path().join("e/file"), root.path().join("a/link")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).unwrap();
        root
    }

    #[test]
    fn the_fallback_without_openat2_finds_the_same() {
        let root = tree();
        let walk = |opener| {
            let walk = Walk { opener, ..Walk::new(root.path().to_path_buf(), 1, Handle::default()) };
            Arc::new(walk).run()
        };
        let (with, without) = (walk(Opener::new()), walk(Opener::without_openat2()));
        assert_eq!(with, without);
        let Outcome::Measured(measured) = with else { panic!("{with:?}") };
        assert_eq!((measured.totals.files, measured.totals.directories), (4, Some(6)));
    }
}
