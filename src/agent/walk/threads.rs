//! One walk: its threads, and what they have found together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::brake::Brake;
use super::details::{Collector, Wanted};
use super::links::Links;
use super::open::{self, Opener};
use super::pace;
use super::pool::Pool;
use super::queue::Queue;
use super::reader::Reader;
use super::sums::{Sums, allocated, error_kind};
use super::task::Task;
use super::tree::Directory;
use super::{CutShort, Handle, Identity, Measured, Options, Outcome, Threads, Totals, Walker, lock};

/// How long a thread sleeps before it looks whether it may go on.
const SILENCE: Duration = Duration::from_millis(5);

/// What the threads of a walk share.
pub(super) struct Walk {
    pub(super) root: PathBuf,
    threads: Threads,
    pool: Arc<Pool>,
    brake: Option<Arc<Brake>>,
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
    helpers: Mutex<Helpers>,
}

/// The threads beside the first.
#[derive(Default)]
struct Helpers {
    started: usize,
    /// Each has one of these until it ends; `None` when none may be started: before there is work, and in the end.
    present: Option<Sender<()>>,
}

impl Walk {
    pub(super) fn new(root: PathBuf, walker: &Walker, options: &Options) -> Self {
        Self {
            root,
            threads: walker.threads,
            pool: Arc::clone(&walker.pool),
            brake: walker.brake.clone(),
            handle: options.handle.clone(),
            stopped: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            opener: Opener::new(),
            queue: Queue::new(walker.threads.most()),
            links: Links::new(&walker.remembered),
            sums: Mutex::default(),
            wanted: options.details,
            details: Mutex::default(),
            seen: AtomicU64::new(0),
            rest: AtomicU32::new(0),
            helpers: Mutex::default(),
        }
    }

    /// For the details that a thread finds, when any are wanted.
    pub(super) fn collector(&self) -> Option<Collector> {
        self.wanted.is_any().then(|| Collector::new(self.wanted))
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.queue.wake_all();
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

    /// Whether others are being listened to, and nothing may be done.
    pub(super) fn is_silent(&self) -> bool {
        self.brake.as_ref().is_some_and(|brake| brake.is_silent())
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
        self.work(Task::Resume { directory, position: 0 });
        // Removed, or made anew under its name: what was counted is of a tree that is gone.
        if before.is_some() && Identity::of(&self.root) != before {
            return Outcome::Vanished;
        }
        Outcome::Measured(self.so_far(self.handle.is_cancelled().then_some(CutShort::Cancelled)))
    }

    fn work(self: &Arc<Self>, first: Task) {
        let Some(own) = self.queue.claim() else { return };
        self.queue.push(&own, first);
        let ended = self.let_helpers_in();
        self.keep_awake(self.threads.at_first(), 0);
        Reader::new(self, own).work();
        lock(&self.helpers).present = None;
        // Nothing is ever sent: this is until the last of them has dropped its end.
        _ = ended.recv();
    }

    /// From now on helpers may be started. They have all ended when the other end has.
    fn let_helpers_in(&self) -> Receiver<()> {
        let (present, ended) = channel();
        lock(&self.helpers).present = Some(present);
        ended
    }

    /// Has so many threads work, as far as other walks leave some, and each rest this many times as long as it has worked.
    pub(super) fn keep_awake(self: &Arc<Self>, threads: usize, rest: u32) {
        self.rest.store(rest, Ordering::Relaxed);
        self.queue.keep_awake(threads);
        let mut helpers = lock(&self.helpers);
        while helpers.started + 1 < threads
            && self.pool.busy() < self.threads.most()
            && let Some(present) = helpers.present.clone()
            && let Some(own) = self.queue.claim()
        {
            let walk = Arc::clone(self);
            let work = move || {
                if catch_unwind(AssertUnwindSafe(|| Reader::new(&walk, own).work())).is_err() {
                    walk.count_panic();
                }
                drop(present);
            };
            helpers.started += 1;
            // A helper that cannot be started is one thread less.
            if let Err(error) = self.pool.help(work) {
                tracing::debug!("unable to start a thread: {error}");
            }
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
        while self.is_silent() && !self.is_over() {
            std::thread::sleep(SILENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::path::Path;

    use super::super::{Started, brake};
    use super::*;

    fn walk(root: &Path, threads: Threads) -> Walk {
        Walk::new(root.to_path_buf(), &Walker::new(threads), &Options::default())
    }

    fn root_of(walk: &Walk) -> Task {
        let fd = Arc::new(Opener::root(&walk.root).unwrap());
        Task::Resume { directory: Directory::root(&fd, (0, 0), 0), position: 0 }
    }

    /// Else they would find nothing to do, and go.
    #[test]
    fn nobody_helps_before_there_is_work() {
        let root = tempfile::tempdir().unwrap();
        let walk = Arc::new(walk(root.path(), Threads::UpTo(4)));
        walk.keep_awake(4, 0);
        assert_eq!(lock(&walk.helpers).started, 0);
        assert!(matches!(walk.run(), Outcome::Measured(measured) if measured.totals.directories == Some(1)));
    }

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
        let measured = |opener| {
            let walk = Walk { opener, ..walk(root.path(), Threads::Exactly(1)) };
            Arc::new(walk).run()
        };
        let (with, without) = (measured(Opener::new()), measured(Opener::without_openat2()));
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
        let walk = Arc::new(walk(root.path(), Threads::Exactly(1)));
        let Outcome::Measured(measured) = walk.run() else { panic!("not measured") };
        assert_eq!(measured.totals.directories, Some(1801));
        let opened = walk.opener.opened.load(Ordering::Relaxed);
        assert!(opened < 3 * 1801, "{opened}");
    }

    #[test]
    fn without_a_number_more_threads_are_tried_while_a_walk_lasts() {
        let root = tempfile::tempdir().unwrap();
        let helpers = |threads| {
            let walk = Arc::new(walk(root.path(), threads));
            let own = walk.queue.claim().unwrap();
            let _ended = walk.let_helpers_in();
            walk.queue.push(&own, root_of(&walk));
            let turn = walk.pool.walk(|| {}).unwrap();
            let mut started = Started::of(Walker::new(threads), Arc::clone(&walk), turn, String::new(), None);
            for _ in 0..12 {
                std::thread::sleep(started.next_look());
                assert_eq!(started.look(), None);
            }
            lock(&walk.helpers).started
        };
        assert!(helpers(Threads::UpTo(4)) > 0);
        assert_eq!(helpers(Threads::UpTo(1)), 0, "never more than that");
    }

    #[test]
    fn nobody_works_in_silence() {
        let (root, pressure) = (tree(), tempfile::tempdir().unwrap());
        brake::tell(pressure.path(), 0, 0);
        let brake = Arc::new(Brake::at(pressure.path().into()).unwrap());
        let walk = Arc::new(Walk { brake: Some(Arc::clone(&brake)), ..walk(root.path(), Threads::Exactly(1)) });
        brake.allowed(1);
        assert!(brake.is_silent());
        let outcome = walk.run();
        assert!(!brake.is_silent(), "it did not wait for the end");
        assert!(matches!(outcome, Outcome::Measured(measured) if measured.totals.directories == Some(6)));
    }

    #[test]
    fn walks_at_the_same_time_share_their_threads() {
        let root = tempfile::tempdir().unwrap();
        let pool = Arc::new(Pool::new(false, 1));
        let (end, first_ends) = channel::<()>();
        let (other_end, second_ends) = channel::<()>();
        pool.help(move || _ = first_ends.recv()).unwrap();
        pool.help(move || _ = second_ends.recv()).unwrap();
        let walk = Arc::new(Walk { pool: Arc::clone(&pool), ..walk(root.path(), Threads::Exactly(2)) });
        let _ended = walk.let_helpers_in();
        walk.keep_awake(2, 0);
        assert_eq!(lock(&walk.helpers).started, 0, "both are busy");
        drop(end);
        let until = Instant::now() + Duration::from_secs(10);
        while lock(&walk.helpers).started == 0 {
            assert!(Instant::now() < until);
            walk.keep_awake(2, 0);
        }
        drop(other_end);
    }
}
