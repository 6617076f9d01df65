//! One thread of a walk: takes directories, reads them, counts what is in them, and puts their subdirectories into the queue.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, RawDir, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;

use super::details::Collector;
use super::links::Counts;
use super::open::{self, Refused};
use super::queue::Own;
use super::sums::{File, Sums, allocated};
use super::task::{Names, Place, Reading, Task};
use super::threads::Walk;
use super::tree::{Directory, Kept, Waiting};

/// Directories that may wait; a directory with more subdirectories is put aside and read on later.
const MAX_WAITING: usize = 1 << 16;
/// Subdirectories that a directory puts in however many wait, so that each reading gets on.
const MIN_FOUND: usize = 16;
/// Entries, or time, after which a thread's sums are added up, so that progress is told and a deadline loses little.
const TELL_EVERY: u64 = 1024;
const TELL_AFTER: Duration = Duration::from_millis(10);
/// Entries after which the time is looked at.
const LOOK_AT_TIME_EVERY: usize = 32;
/// Room for some thousand entries a call.
const BUFFER_BYTES: usize = 64 * 1024;
/// Entries after which a thread looks whether others have nothing to do.
const LOOK_ROUND_EVERY: usize = 256;
/// Names handed to another thread at once: enough that handing them over costs little.
const NAMES_AT_ONCE: usize = 512;
/// Bunches of names that may wait, a thread: who reads must not run away from those who look.
const BUNCHES: usize = 4;

/// What one thread has.
pub(super) struct Reader<'a> {
    walk: &'a Walk,
    own: Own<Task>,
    sums: Sums,
    /// Names of inodes with several, which are counted together.
    linked: Vec<File>,
    /// When they are wanted.
    details: Option<Collector>,
    /// What to ask of each file.
    mask: StatxFlags,
    kept: Kept,
    buffer: Vec<MaybeUninit<u8>>,
    tell_every: u64,
    /// When it told last.
    told: Instant,
}

impl<'a> Reader<'a> {
    pub(super) fn new(walk: &'a Walk, own: Own<Task>) -> Self {
        let tell_every = walk.handle.pace().map_or(TELL_EVERY, |pace| pace.look_every().min(TELL_EVERY));
        Self {
            walk,
            own,
            sums: Sums::default(),
            linked: Vec::new(),
            details: walk.collector(),
            mask: walk.wanted.mask(),
            kept: Kept::default(),
            buffer: vec![MaybeUninit::uninit(); BUFFER_BYTES],
            tell_every,
            told: Instant::now(),
        }
    }

    /// The thread's life.
    pub(super) fn work(&mut self) {
        let walk = self.walk;
        while let Some((task, _doing)) = walk.queue.next(&self.own, || walk.is_over()) {
            self.told = Instant::now();
            if walk.is_silent() {
                self.tell();
            }
            self.perform(task);
            // The next directory may be one whose device never answers.
            self.tell();
        }
        if let Some(details) = self.details.take() {
            self.walk.add_details(details);
        }
    }

    fn tell_if_due(&mut self) {
        if self.sums.entries >= self.tell_every || self.told.elapsed() >= TELL_AFTER {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.count_linked();
        let entries = self.sums.entries;
        self.walk.add(std::mem::take(&mut self.sums));
        self.walk.wait_for_leave(entries, self.told.elapsed());
        self.told = Instant::now();
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Open(waiting) => {
                if let Some(mut reading) = self.open(waiting) {
                    self.read(&mut reading, 0);
                    self.end(&reading);
                }
            }
            Task::Resume { directory, position } => match self.kept.open(&directory, &self.walk.opener) {
                Ok(fd) => {
                    let mut reading = Reading { fd, place: Place::Shared(directory), allocated: 0 };
                    self.read(&mut reading, position);
                    self.end(&reading);
                }
                Err(refused) => {
                    match refused {
                        Refused::Error(error) => self.sums.count_error(error),
                        // Removed, or moved with what is left in it: who can tell?
                        Refused::Vanished | Refused::OtherMount => self.sums.count_moved(),
                    }
                    self.end_part(&directory, 0);
                }
            },
            Task::Look { directory, fd, names } => {
                let mut reading = Reading { fd, place: Place::Shared(directory), allocated: 0 };
                self.look_at_all(&mut reading, &names);
                self.end(&reading);
            }
        }
    }

    /// Counts a directory among the details once all of its parts were read.
    fn end(&mut self, reading: &Reading) {
        match (&reading.place, &mut self.details) {
            (Place::Alone(waiting, _), Some(details)) => {
                details.count_directory(reading.allocated, || waiting.path());
            }
            (Place::Alone(..), None) => {}
            (Place::Shared(directory), _) => self.end_part(directory, reading.allocated),
        }
    }

    fn end_part(&mut self, directory: &Directory, allocated: u64) {
        if let Some(details) = &mut self.details
            && let Some(allocated) = directory.end_part(allocated)
        {
            details.count_directory(allocated, || directory.path());
        }
    }

    fn open(&mut self, waiting: Waiting) -> Option<Reading> {
        let opener = &self.walk.opener;
        let parent = self.kept.open(&waiting.parent, opener);
        let child = parent.clone().and_then(|parent| opener.child(&parent, &waiting.name));
        let found = child.and_then(|fd| Ok((open::look_at(&fd).map_err(Refused::Error)?, fd)));
        match found {
            Ok((found, fd)) => {
                self.sums.count_directory(&found);
                let place = Place::Alone(waiting, open::inode(&found));
                Some(Reading { fd: Arc::new(fd), place, allocated: allocated(&found) })
            }
            Err(Refused::OtherMount) => {
                self.sums.skip(waiting.path());
                None
            }
            Err(Refused::Vanished) => {
                self.sums.vanished += 1;
                None
            }
            Err(Refused::Error(error)) => {
                // It cannot be read, but its own blocks can be counted.
                if let Ok(Ok(found)) = parent.map(|parent| open::look_up(&*parent, &waiting.name, self.mask)) {
                    self.sums.count_directory(&found);
                    if let Some(details) = &mut self.details {
                        details.count_directory(allocated(&found), || waiting.path());
                    }
                }
                self.sums.count_error(error);
                None
            }
        }
    }

    /// Reads a directory from `position` on: counts what is no directory, puts in what is.
    fn read(&mut self, reading: &mut Reading, position: u64) {
        let fd = Arc::clone(&reading.fd);
        if position > 0
            && let Err(error) = rustix::fs::seek(&*fd, SeekFrom::Start(position))
        {
            return self.sums.count_error(error);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read_into(&mut buffer, &fd, reading);
        self.buffer = buffer;
    }

    fn read_into(&mut self, buffer: &mut [MaybeUninit<u8>], fd: &OwnedFd, reading: &mut Reading) {
        let (mut listed, mut found, mut names) = (0_usize, 0_usize, None::<Names>);
        let room = MAX_WAITING.saturating_sub(self.walk.queue.open()).max(MIN_FOUND);
        let mut entries = RawDir::new(fd, buffer);
        while let Some(entry) = entries.next() {
            if self.walk.is_over() {
                return;
            }
            let entry = match entry {
                Ok(entry) => entry,
                // Removed while it was read.
                Err(Errno::NOENT) => {
                    self.sums.vanished += 1;
                    break;
                }
                Err(error) => {
                    self.sums.count_error(error);
                    break;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            (listed, self.sums.entries) = (listed + 1, self.sums.entries + 1);
            if self.sums.entries >= self.tell_every || listed.is_multiple_of(LOOK_AT_TIME_EVERY) {
                self.tell_if_due();
            }
            if self.walk.is_silent() {
                self.tell();
            }
            if listed.is_multiple_of(LOOK_ROUND_EVERY) {
                self.look_round(reading, &mut names);
            }
            if entry.file_type() == FileType::Directory {
                self.put_in(reading, name);
                found += 1;
            } else if let Some(names) = &mut names {
                names.push(name);
            } else {
                self.look_at_entry(reading, name);
            }
            if found >= room {
                let directory = self.share(reading);
                let position = entry.next_entry_cookie();
                directory.begin_part();
                self.walk.queue.put_aside(Task::Resume { directory, position });
                break;
            }
        }
        if let Some(names) = names {
            self.look_at_all(reading, &names);
        }
    }

    /// Hands over the names that were put together, and goes on putting them together while others have nothing to do.
    fn look_round(&mut self, reading: &mut Reading, names: &mut Option<Names>) {
        if names.as_ref().is_some_and(|names| names.count >= NAMES_AT_ONCE)
            && let Some(names) = names.take()
        {
            let (directory, fd) = (self.share(reading), Arc::clone(&reading.fd));
            directory.begin_part();
            self.walk.queue.push(&self.own, Task::Look { directory, fd, names });
        }
        let wanted = self.walk.queue.has_idle() && self.own.len() < BUNCHES;
        match (&names, wanted) {
            (None, true) => *names = Some(Names::default()),
            (Some(_), false) => {
                if let Some(names) = names.take() {
                    self.look_at_all(reading, &names);
                }
            }
            _ => {}
        }
    }

    fn look_at_all(&mut self, reading: &mut Reading, names: &Names) {
        for name in names.iter() {
            if self.walk.is_over() {
                return;
            }
            if self.walk.is_silent() {
                self.tell();
            }
            self.look_at_entry(reading, name);
        }
    }

    fn look_at_entry(&mut self, reading: &mut Reading, name: &CStr) {
        let found = match open::look_up(&*reading.fd, name, self.mask) {
            Ok(found) => found,
            Err(Errno::NOENT) => return self.sums.vanished += 1,
            Err(error) => return self.sums.count_error(error),
        };
        if open::is_mount_root(&found) {
            let path = self.share(reading).path_to(name.to_bytes());
            self.sums.skip(path);
        } else if FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory {
            // A file system that does not tell kinds when it lists.
            self.put_in(reading, name);
        } else if found.stx_nlink <= 1 {
            self.sums.count_file(&File::of(&found));
            self.tell_details(reading, &found, name);
        } else {
            self.linked.push(File::of(&found));
            // Its name is known now only.
            if self.details.is_some() && self.count_linked() {
                self.tell_details(reading, &found, name);
            }
        }
    }

    /// Counts the names of inodes with several that wait; whether the last of them is its inode's first.
    fn count_linked(&mut self) -> bool {
        let (sums, mut is_first) = (&mut self.sums, false);
        self.walk.links.count(&self.linked, |file, counts| {
            is_first = counts == Counts::All;
            match counts {
                Counts::All => sums.count_file(file),
                Counts::Share => sums.count_share(file),
                Counts::Nothing => {}
            }
        });
        self.linked.clear();
        is_first
    }

    fn tell_details(&mut self, reading: &mut Reading, found: &Statx, name: &CStr) {
        if let Some(details) = &mut self.details {
            reading.allocated = reading.allocated.saturating_add(allocated(found));
            details.count_file(found, name, || reading.place.path_to(name.to_bytes()));
        }
    }

    fn put_in(&mut self, reading: &mut Reading, name: &CStr) {
        let parent = self.share(reading);
        self.walk.queue.push(&self.own, Task::Open(Waiting { parent, name: name.to_owned() }));
    }

    /// The directory that is being read, for whoever goes on below it.
    fn share(&mut self, reading: &mut Reading) -> Arc<Directory> {
        match &reading.place {
            Place::Shared(directory) => Arc::clone(directory),
            Place::Alone(waiting, inode) => {
                let directory = Directory::below(waiting.clone(), &reading.fd, *inode);
                self.kept.keep(&directory);
                reading.place = Place::Shared(Arc::clone(&directory));
                directory
            }
        }
    }
}
