//! Measures how big a directory tree is: a small library that knows nothing of Docker, databases or async runtimes.
//!
//! * Only this tree: no other mount is entered (`openat2` with `RESOLVE_NO_XDEV`), no symbolic link followed, no FIFO or device opened.
//! * Each inode once: hard links are recognised by (device, inode).
//! * Totals **and** errors: a number whose [`Outcome::Measured`] lists errors, or was cut short, is a lower bound.
//! * Bounded memory and descriptors whatever the tree. The table of hard links holds a million inodes whose other names were not seen yet; the
//!   names of further ones count by their share of the inode, and are told as errors (`TooManyLinks`).
//! * A walk ends at its deadline even when the kernel does not answer: a walk that hangs is abandoned, on at most [`MAX_ABANDONED`]
//!   devices, and its device it hangs on is not touched again until it has come back.

mod brake;
mod details;
mod links;
mod mounts;
mod open;
mod pace;
mod pool;
mod queue;
mod reader;
mod started;
mod sums;
mod sys;
mod task;
mod team;
mod threads;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::brake::Brake;
pub use self::details::{AGES_IN_DAYS, Biggest, Details, Extension, Groups, Histogram, MAX_TOP, SIZES, Share, Wanted};
use self::links::Remembered;
pub use self::mounts::{Mount, Mounts, is_mount_point};
use self::pace::Pace;
use self::pool::Pool;
pub use self::started::Started;
use self::threads::Walk;

/// Devices that may hang in the kernel before every further walk is refused.
pub const MAX_ABANDONED: usize = 8;
/// Nested mounts listed in an outcome; all are skipped.
pub const MAX_LISTED_MOUNTS: usize = 100;

/// Starts walks and remembers which devices hang.
#[derive(Debug, Clone)]
pub struct Walker {
    threads: Threads,
    pool: Arc<Pool>,
    brake: Option<Arc<Brake>>,
    remembered: Arc<Remembered>,
    abandoned: Arc<Mutex<Vec<Abandoned>>>,
}

/// A walk that nobody waits for any more, though it has not ended.
#[derive(Debug)]
struct Abandoned {
    walk: Arc<Walk>,
    device: Device,
    /// When its threads should have noticed: from then on it hangs.
    noticed: Instant,
}

/// How many threads a walk has; walks at the same time share them, but each has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// So many, at least one.
    Exactly(usize),
    /// As few as give nearly the speed of this many.
    UpTo(usize),
}

impl Threads {
    fn most(self) -> usize {
        let (Self::Exactly(most) | Self::UpTo(most)) = self;
        most.max(1)
    }

    /// Walks at a time: where the number of threads is not given, each has one at once.
    fn most_walks(self) -> usize {
        match self {
            Self::Exactly(_) => self.most(),
            Self::UpTo(_) => usize::MAX,
        }
    }

    /// Before any speed is known.
    fn at_first(self) -> usize {
        match self {
            Self::Exactly(_) => self.most(),
            Self::UpTo(_) => 1,
        }
    }
}

/// A device as in `/proc/self/mountinfo`, e.g. `8:1`; the path itself where that does not tell.
type Device = String;

/// How to measure one tree.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Ask the file system instead of walking where the tree is a whole file system.
    pub fast: bool,
    /// What to tell beside the totals. A file system that is asked tells nothing of it.
    pub details: Wanted,
    /// When to stop with what is known by then.
    pub deadline: Option<Instant>,
    /// Tells how far the walk is, and stops it.
    pub handle: Handle,
}

/// Shared with one walk under way, or several.
#[derive(Debug, Clone, Default)]
pub struct Handle {
    inner: Arc<HandleInner>,
}

#[derive(Debug, Default)]
struct HandleInner {
    cancelled: AtomicBool,
    entries: AtomicU64,
    bytes: AtomicU64,
    pace: Option<Pace>,
}

impl Handle {
    /// A handle whose walks together look at no more than so many entries a second.
    pub fn with_budget(entries_per_second: u64) -> Self {
        let pace = Some(Pace::new(entries_per_second));
        Self { inner: Arc::new(HandleInner { pace, ..HandleInner::default() }) }
    }

    /// Stops the walk within 100 ms, unless the kernel does not answer.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::Relaxed)
    }

    /// Entries seen so far.
    pub fn entries(&self) -> u64 {
        self.inner.entries.load(Ordering::Relaxed)
    }

    /// Bytes allocated to them.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    fn pace(&self) -> Option<&Pace> {
        self.inner.pace.as_ref()
    }

    fn advance(&self, entries: u64, bytes: u64) {
        self.inner.entries.fetch_add(entries, Ordering::Relaxed);
        self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a tree comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// `st_blocks × 512` of every inode once, directories and the root among them.
    pub allocated_bytes: u64,
    /// Sum of `st_size` over regular files, each inode once. Not known to a file system that was asked.
    pub apparent_bytes: Option<u64>,
    /// Non-directory inodes, each once; for a file system that was asked, all its inodes in use.
    pub files: u64,
    /// Directories, the root included. Not known to a file system that was asked.
    pub directories: Option<u64>,
}

/// Figures and what is missing from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// The figures.
    pub totals: Totals,
    /// Whether they come from the file system itself.
    pub from_filesystem: bool,
    /// Entries that could not be read, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Entries that disappeared or changed their kind between being listed and being looked at: no error of anybody.
    pub vanished: u64,
    /// Mounts found inside and not entered: paths below the root, at most [`MAX_LISTED_MOUNTS`].
    pub skipped_mounts: Vec<Vec<u8>>,
    /// Why the walk ended before the tree did.
    pub cut_short: Option<CutShort>,
    /// The file system the root is on, asked when the walk was over.
    pub filesystem: Option<Filesystem>,
    /// What was asked for beside.
    pub details: Option<Details>,
}

/// How big a file system is, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// `f_blocks × f_frsize` in bytes.
    pub capacity_bytes: u64,
    /// `f_bavail × f_frsize` in bytes: what an unprivileged process may still write.
    pub available_bytes: u64,
}

/// Why a walk ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutShort {
    /// Its deadline passed.
    Deadline,
    /// It was cancelled.
    Cancelled,
}

/// How a walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There are figures; they are complete when there are neither errors nor `cut_short`.
    Measured(Measured),
    /// The root was removed, or another took its place.
    Vanished,
    /// The root could not be opened.
    Unreadable {
        /// Why.
        kind: String,
    },
    /// An earlier walk hangs on this device, or too many do on others.
    DeviceHung,
}

/// Has a walk be finished, also by a panic.
struct Finish(Arc<Walk>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.set_finished();
    }
}

/// Why a walk was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStarted {
    /// As [`Outcome::DeviceHung`].
    DeviceHung,
    /// The kernel gave no thread.
    NoThread {
        /// Why.
        kind: String,
    },
}

impl From<NotStarted> for Outcome {
    fn from(reason: NotStarted) -> Self {
        match reason {
            NotStarted::DeviceHung => Self::DeviceHung,
            NotStarted::NoThread { kind } => Self::Unreadable { kind },
        }
    }
}

impl Walker {
    /// A walker that uses this many threads.
    pub fn new(threads: Threads) -> Self {
        Self {
            threads,
            pool: Arc::new(Pool::new(false, threads.most_walks())),
            brake: None,
            remembered: Arc::default(),
            abandoned: Arc::default(),
        }
    }

    /// The same for a machine that others work on: it takes the disk only when nobody else wants it, where the I/O scheduler heeds that, and
    /// backs off when others have to wait, where the kernel tells that.
    pub fn kind(self) -> Self {
        Self {
            pool: Arc::new(Pool::new(true, self.threads.most_walks())),
            brake: Brake::of_this_system().map(Arc::new),
            ..self
        }
    }

    /// Whether it can tell that others have to wait.
    pub const fn has_brake(&self) -> bool {
        self.brake.is_some()
    }

    /// Measures a tree; blocks until it is done, its deadline passes or it is cancelled. It returns in time even when the kernel hangs.
    pub fn measure(&self, root: &Path, options: &Options) -> Outcome {
        let (sender, receiver) = sync_channel(1);
        let started = self.start(root, options, move |outcome, _| _ = sender.send(outcome));
        let mut started = match started {
            Ok(started) => started,
            Err(refused) => return refused.into(),
        };
        loop {
            match receiver.recv_timeout(started.next_look()) {
                Ok(told) => return started.ended(told),
                Err(RecvTimeoutError::Disconnected) => return started.panicked(),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(outcome) = started.look() {
                        return outcome;
                    }
                }
            }
        }
    }

    /// Starts to measure a tree, for who looks after several at a time or must not block. `tell` gets the outcome and how long it took since its
    /// turn had come, in a thread of the walk; it is dropped when that panics.
    pub fn start(
        &self,
        root: &Path,
        options: &Options,
        tell: impl FnOnce(Outcome, Duration) + Send + 'static,
    ) -> Result<Started, NotStarted> {
        let mount = Mount::of(root);
        let device = mount.as_ref().map_or_else(|| root.to_string_lossy().into_owned(), |mount| mount.device.clone());
        if self.hangs(&device) {
            return Err(NotStarted::DeviceHung);
        }
        let whole = options.fast && mount.is_some_and(|mount| mount.is_whole_at(root));
        let walk = Arc::new(Walk::new(root.to_path_buf(), self, options));
        let work = {
            let walk = Arc::clone(&walk);
            move || {
                let (begin, end) = (Instant::now(), Finish(Arc::clone(&walk)));
                let mut outcome = if whole { mounts::ask(&walk.root) } else { walk.run() };
                if let Outcome::Measured(measured) = &mut outcome {
                    measured.filesystem = mounts::filesystem(&walk.root);
                }
                drop(end);
                // Nobody waits any more when it was given up.
                tell(outcome, begin.elapsed());
            }
        };
        match self.pool.walk(work) {
            Ok(turn) => Ok(Started::of(self.clone(), walk, turn, device, options.deadline)),
            Err(error) => Err(NotStarted::NoThread { kind: sums::error_kind(error.raw_os_error()) }),
        }
    }

    /// Whether a walk hangs on this device, or too many on others.
    fn hangs(&self, device: &Device) -> bool {
        let (mut abandoned, now) = (lock(&self.abandoned), Instant::now());
        abandoned.retain(|other| !other.walk.is_finished());
        let hung = || abandoned.iter().filter(|other| other.noticed <= now);
        let devices: BTreeSet<&Device> = hung().map(|other| &other.device).collect();
        devices.len() >= MAX_ABANDONED || devices.contains(&device)
    }

    /// Remembers a walk until it has ended.
    fn abandon(&self, walk: &Arc<Walk>, device: &Device, noticed: Instant) {
        if !walk.is_finished() {
            let (walk, device) = (Arc::clone(walk), device.clone());
            lock(&self.abandoned).push(Abandoned { walk, device, noticed });
        }
    }
}

/// A poisoned lock means that a thread panicked between two statements that cannot leave these values half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tells a directory from another that is made later under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system records it.
    pub birth_time_ns: Option<i64>,
}

impl Identity {
    /// Of a directory; `None` when it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        open::identity(path).ok()
    }
}

#[allow(clippy::missing_fields_in_debug, reason = "a root and a count say enough")]
impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("root", &self.root).finish()
    }
}
