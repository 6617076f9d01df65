//! Trees that change, walks that end early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use volumeviz::agent::walk::{CutShort, Handle};

/// Does something over and over until dropped.
struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    fn new(mut act: impl FnMut(usize) + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut n = 0;
            while !seen.load(Ordering::Relaxed) {
                act(n);
                n += 1;
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn fill(root: &Path, folders: usize, files: usize) {
    for folder in 0..folders {
        let folder = root.join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        (0..files).for_each(|file| fs::write(folder.join(file.to_string()), "1").unwrap());
    }
}

#[test]
fn what_comes_and_goes_is_no_error_and_what_stays_is_counted_once() {
    let root = tree();
    fill(root.path(), 50, 20);
    let storm_root = root.path().join("storm");
    fs::create_dir(&storm_root).unwrap();
    let storm = Storm::new({
        let root = storm_root.clone();
        move |n| {
            let (a, b) = (root.join(format!("a{}", n % 50)), root.join(format!("b{}", n % 50)));
            drop(fs::create_dir_all(a.join("deep/er")));
            drop(fs::rename(&a, &b));
            drop(fs::remove_dir_all(&b));
        }
    });
    for _ in 0..50 {
        let measured = walk(root.path());
        assert!(measured.errors.is_empty(), "{:?}", measured.errors);
        assert_eq!(measured.totals.files, 1000);
    }
    drop(storm);
}

/// The classic attack: a folder becomes a symbolic link to somewhere else between being listed and being opened.
#[test]
fn a_folder_swapped_for_a_link_never_leads_outside() {
    let root = tree();
    let outside = tree();
    fill(outside.path(), 1, 500);
    let (folder, link, away) = (root.path().join("x"), root.path().join("link"), root.path().join("away"));
    fs::create_dir(&folder).unwrap();
    symlink(outside.path(), &link).unwrap();
    let storm = Storm::new(move |_| {
        drop(fs::rename(&folder, &away));
        drop(fs::rename(&link, &folder));
        drop(fs::rename(&folder, &link));
        drop(fs::rename(&away, &folder));
    });
    for _ in 0..1000 {
        let measured = walk(root.path());
        assert!(
            measured.totals.files <= 2 && measured.errors.is_empty(),
            "something outside was counted: {measured:?}"
        );
    }
    drop(storm);
}

#[test]
fn a_root_removed_meanwhile_is_vanished() {
    let parent = tree();
    let root = parent.path().join("volume");
    fs::create_dir(&root).unwrap();
    fill(&root, 200, 50);
    let walking = thread::spawn({
        let root = root.clone();
        move || Walker::new(Threads::Exactly(1)).measure(&root, &Options::default())
    });
    fs::rename(&root, parent.path().join("renamed")).unwrap();
    assert_eq!(walking.join().unwrap(), Outcome::Vanished);
    assert_eq!(Walker::new(Threads::Exactly(1)).measure(&root, &Options::default()), Outcome::Vanished);
}

#[test]
fn a_passed_deadline_leaves_a_lower_bound() {
    let root = tree();
    fill(root.path(), 300, 100);
    let options = Options { deadline: Some(Instant::now() + Duration::from_millis(2)), ..Options::default() };
    let Outcome::Measured(measured) = Walker::new(Threads::Exactly(1)).measure(root.path(), &options) else {
        panic!("not measured")
    };
    assert_eq!(measured.cut_short, Some(CutShort::Deadline));
    assert!(measured.totals.files < 30_000);
}

#[test]
fn cancelling_ends_a_walk_at_any_point_and_leaks_nothing() {
    let root = tree();
    fill(root.path(), 150, 100);
    let walks = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        tasks
            .filter(|task| {
                fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("walk-helper"))
            })
            .count()
    };
    for delay in 0..20 {
        let handle = Handle::default();
        let options = Options { handle: handle.clone(), ..Options::default() };
        let path = root.path().to_path_buf();
        let walking = thread::spawn(move || Walker::new(Threads::Exactly(4)).measure(&path, &options));
        thread::sleep(Duration::from_micros(delay * 200));
        handle.cancel();
        let cancelled = Instant::now();
        let Outcome::Measured(measured) = walking.join().unwrap() else { panic!("not measured") };
        assert!(cancelled.elapsed() < Duration::from_secs(5));
        assert!(measured.cut_short.is_some() || measured.totals.files == 15_000, "{measured:?}");
    }
    let until = Instant::now() + Duration::from_secs(10);
    while walks() > 0 {
        assert!(Instant::now() < until, "threads of cancelled walks live on");
        thread::sleep(Duration::from_millis(10));
    }
    let held = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let held =
        held.filter_map(|fd| fs::read_link(fd.path()).ok()).filter(|target| target.starts_with(root.path())).count();
    assert_eq!(held, 0, "descriptors of cancelled walks stay open");
}

#[test]
fn progress_is_told_while_it_walks() {
    let root = tree();
    fill(root.path(), 10, 10);
    let handle = Handle::default();
    Walker::new(Threads::Exactly(2)).measure(root.path(), &Options { handle: handle.clone(), ..Options::default() });
    assert_eq!(handle.entries(), 110);
    assert_eq!(handle.bytes(), du(root.path()));
}

#[test]
fn a_whole_file_system_can_be_asked() {
    let root = tree();
    let _tmpfs = Mounted::new(root.path(), &["-t", "tmpfs", "-o", "size=64M", "tmpfs"]);
    fs::write(root.path().join("file"), [1; 1 << 20]).unwrap();
    let fast = Options { fast: true, ..Options::default() };
    let Outcome::Measured(asked) = Walker::new(Threads::Exactly(1)).measure(root.path(), &fast) else {
        panic!("not measured")
    };
    assert!(asked.from_filesystem);
    assert!(asked.totals.allocated_bytes >= 1 << 20 && asked.totals.apparent_bytes.is_none());
    let below = root.path().join("below");
    fs::create_dir(&below).unwrap();
    let Outcome::Measured(walked) = Walker::new(Threads::Exactly(1)).measure(&below, &fast) else {
        panic!("not measured")
    };
    assert!(!walked.from_filesystem, "a part of a file system must be walked");
}

#[test]
fn a_budget_slows_a_walk_and_changes_no_figure() {
    let root = tree();
    fill(root.path(), 20, 50);
    let walker = Walker::new(Threads::Exactly(2));
    let totals = |options: &Options| match walker.measure(root.path(), options) {
        Outcome::Measured(measured) => (measured.totals, measured.errors, measured.cut_short),
        outcome => panic!("{outcome:?}"),
    };
    let unbounded = totals(&Options::default());
    let options = Options { handle: Handle::with_budget(5000), ..Options::default() };
    let started = Instant::now();
    assert_eq!(totals(&options), unbounded);
    assert!(started.elapsed() >= Duration::from_millis(200), "1,020 entries at 5,000 a second");

    // A walk that would take minutes by its budget ends when it is told to.
    let options = Options { handle: Handle::with_budget(1), ..Options::default() };
    let stop = options.handle.clone();
    let walk = thread::spawn({
        let root = root.path().to_path_buf();
        move || walker.measure(&root, &options)
    });
    while stop.entries() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let cancelled = Instant::now();
    stop.cancel();
    let Outcome::Measured(measured) = walk.join().unwrap() else { panic!("no figures") };
    assert_eq!(measured.cut_short, Some(CutShort::Cancelled));
    assert!(cancelled.elapsed() < Duration::from_secs(5), "{:?}", cancelled.elapsed());
}
