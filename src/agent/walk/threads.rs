//! One walk: its threads, and what they have found together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::details::{Collector, Wanted};
use super::links::Links;
use super::open::{self, Opener};
use super::pace;
use super::queue::Queue;
use super::reader::{Reader, Task};
use super::sums::{Sums, allocated, error_kind};
use super::sys;
use super::tree::Directory;
use super::{CutShort, Handle, Identity, Measured, Options, Outcome, Threads, Totals, lock};

/// What the threads of a walk share.
pub(super) struct Walk {
    pub(super) root: PathBuf,
    threads: Threads,
    is_kind: bool,
    pub(super) handle: Handle,
    /// The deadline passed: like a cancel, but told apart.
    stopped: AtomicBool,
    finished: AtomicBool,
    pub(super) opener: Opener,
    pub(super) queue: Queue<Task>,
    pub(super) links: Links,
    sums: Mutex<Sums>,
    pub(super) wanted: Wanted,
    /// Of the threads that have ended.
    details: Mutex<Option<Collector>>,
    /// Entries seen since somebody asked.
    seen: AtomicU64,
    /// How many times as long as it has worked a thread rests.
    rest: AtomicU32,
    /// The threads beside the first; `None` once no more may be started.
    helpers: Mutex<Option<Vec<JoinHandle<()>>>>,
}

impl Walk {
    pub(super) fn new(root: PathBuf, threads: Threads, is_kind: bool, options: &Options) -> Self {
        Self {
            root,
            threads,
            is_kind,
            handle: options.handle.clone(),
            stopped: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            opener: Opener::new(),
            queue: Queue::new(threads.most()),
            links: Links::default(),
            sums: Mutex::default(),
            wanted: options.details,
            details: Mutex::default(),
            seen: AtomicU64::new(0),
            rest: AtomicU32::new(0),
            helpers: Mutex::new(Some(Vec::new())),
        }
    }

    /// For the details that a thread finds, when any are wanted.
    pub(super) fn collector(&self) -> Option<Collector> {
        self.wanted.is_any().then(|| Collector::new(self.wanted))
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

    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.handle.is_cancelled()
    }

    /// What every thread of the walk does first.
    pub(super) fn begin_thread(&self) {
        if self.is_kind
            && let Err(error) = sys::yield_the_disk()
        {
            // A seccomp profile may refuse it. The walk is as right without it.
            tracing::debug!("unable to leave the disk to others: {error}");
        }
    }

    /// Walks the tree with all threads.
    pub(super) fn run(self: &Arc<Self>) -> Outcome {
        let before = Identity::of(&self.root);
        let fd = match Opener::root(&self.root) {
            Ok(fd) => Arc::new(fd),
            Err(Errno::NOENT) => return Outcome::Vanished,
            Err(error) => return Outcome::Unreadable { kind: error_kind(Some(error.raw_os_error())) },
        };
        let found = match open::look_at(&*fd) {
            Ok(found) => found,
            Err(error) => return Outcome::Unreadable { kind: error_kind(Some(error.raw_os_error())) },
        };
        self.add(Sums::default().with_directory(&found));
        let directory = Directory::root(&fd, open::inode(&found), allocated(&found));
        self.work(Task::Resume { directory, fd, position: 0 });
        // Removed, or made anew under its name: what was counted is of a tree that is gone.
        if before.is_some() && Identity::of(&self.root) != before {
            return Outcome::Vanished;
        }
        Outcome::Measured(self.so_far(self.handle.is_cancelled().then_some(CutShort::Cancelled)))
    }

    fn work(self: &Arc<Self>, first: Task) {
        let Some(own) = self.queue.claim() else { return };
        self.queue.push(&own, first);
        self.keep_awake(self.threads.at_first(), 0);
        Reader::new(self, own).work();
        for helper in lock(&self.helpers).take().into_iter().flatten() {
            if helper.join().is_err() {
                self.count_panic();
            }
        }
    }

    /// Has so many threads work, and each rest this many times as long as it has worked.
    pub(super) fn keep_awake(self: &Arc<Self>, threads: usize, rest: u32) {
        self.rest.store(rest, Ordering::Relaxed);
        self.queue.keep_awake(threads);
        let mut helpers = lock(&self.helpers);
        let Some(helpers) = helpers.as_mut() else { return };
        while helpers.len() + 1 < threads
            && let Some(own) = self.queue.claim()
        {
            let walk = Arc::clone(self);
            let work = move || {
                walk.begin_thread();
                Reader::new(&walk, own).work();
            };
            // A helper that cannot be started is one thread less.
            helpers.extend(std::thread::Builder::new().name("walk-helper".to_owned()).spawn(work));
        }
    }

    /// What a thread that panicked had found is a part at best.
    pub(super) fn count_panic(&self) {
        self.add(Sums::default().with_error("WalkerPanicked".to_owned()));
    }

    /// Entries seen since this was called last.
    pub(super) fn seen_since(&self) -> u64 {
        self.seen.swap(0, Ordering::Relaxed)
    }

    /// What is known now.
    pub(super) fn so_far(&self, cut_short: Option<CutShort>) -> Measured {
        let sums = lock(&self.sums);
        Measured {
            totals: Totals {
                allocated_bytes: sums.allocated,
                apparent_bytes: Some(sums.apparent),
                files: sums.all_files(),
                directories: Some(sums.directories),
            },
            from_filesystem: false,
            errors: sums.errors.clone(),
            vanished: sums.vanished,
            skipped_mounts: sums.skipped.clone(),
            cut_short,
            filesystem: None,
            details: lock(&self.details).as_ref().map(Collector::details),
        }
    }

    /// Adds what a thread has found.
    pub(super) fn add(&self, sums: Sums) {
        self.handle.advance(sums.entries, sums.allocated);
        self.seen.fetch_add(sums.entries, Ordering::Relaxed);
        lock(&self.sums).merge(sums);
    }

    /// Adds the details that a thread has found, which has ended.
    pub(super) fn add_details(&self, found: Collector) {
        match &mut *lock(&self.details) {
            Some(details) => details.merge(found),
            none => *none = Some(found),
        }
    }

    /// Lets a thread go on once what it has seen is paid for, and once it has rested from its work.
    pub(super) fn wait_for_leave(&self, entries: u64, worked: Duration) {
        if let Some(pace) = self.handle.pace() {
            pace.spend(entries, || self.is_over());
        }
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            pace::wait_until(Instant::now() + worked * rest, || self.is_over());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Walker;
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
            let walk = Walk {
                opener,
                ..Walk::new(root.path().to_path_buf(), Threads::Exactly(1), false, &Options::default())
            };
            Arc::new(walk).run()
        };
        let (with, without) = (walk(Opener::new()), walk(Opener::without_openat2()));
        assert_eq!(with, without);
        let Outcome::Measured(measured) = with else { panic!("{with:?}") };
        assert_eq!((measured.totals.files, measured.totals.directories), (4, Some(6)));
    }

    /// Else each would be opened anew by way of hundreds of others.
    #[test]
    fn in_a_deep_tree_the_next_ancestors_stay_open() {
        let root = tempfile::tempdir().unwrap();
        let mut path = root.path().to_path_buf();
        for _ in 0..600 {
            path.push("d");
            fs::create_dir(&path).unwrap();
            for name in ["a", "b"] {
                fs::create_dir(path.join(name)).unwrap();
            }
        }
        let walk = Arc::new(Walk::new(root.path().to_path_buf(), Threads::Exactly(1), false, &Options::default()));
        let Outcome::Measured(measured) = walk.run() else { panic!("not measured") };
        assert_eq!(measured.totals.directories, Some(1801));
        let opened = walk.opener.opened.load(Ordering::Relaxed);
        assert!(opened < 3 * 1801, "{opened}");
    }

    #[test]
    fn without_a_number_more_threads_are_tried_while_a_walk_lasts() {
        let root = tempfile::tempdir().unwrap();
        let helpers = |threads| {
            let walk = Arc::new(Walk::new(root.path().to_path_buf(), threads, false, &Options::default()));
            let (_unsent, outcome) = std::sync::mpsc::sync_channel(1);
            let led = Walker::new(threads).lead(&walk, &outcome, Instant::now() + Duration::from_millis(300));
            assert!(led.is_err(), "{led:?}");
            lock(&walk.helpers).as_ref().unwrap().len()
        };
        assert!(helpers(Threads::UpTo(4)) > 0);
        assert_eq!(helpers(Threads::UpTo(1)), 0, "never more than that");
    }
}
