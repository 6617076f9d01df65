//! What a walk tells while it goes on, and how it may be asked to go.

use std::time::{Duration, Instant};

use super::*;
use volumeviz::agent::walk::{CutShort, Handle};

#[test]
fn progress_is_told_while_it_walks() {
    let root = tree();
    fill(root.path(), 10, 10);
    let handle = Handle::with_budget(50);
    let walk = thread::spawn({
        let (root, options) = (root.path().to_path_buf(), Options { handle: handle.clone(), ..Options::default() });
        move || Walker::new(Threads::Exactly(2)).measure(&root, &options)
    });
    until("some of it to be told", || (1..110).contains(&handle.entries()) && handle.bytes() > 0);
    walk.join().unwrap();
    assert_eq!(handle.entries(), 110);
    assert_eq!(handle.bytes(), du(root.path()));
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited 20 s in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
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
    until("the walk to begin", || stop.entries() > 0);
    let cancelled = Instant::now();
    stop.cancel();
    let Outcome::Measured(measured) = walk.join().unwrap() else { panic!("no figures") };
    assert_eq!(measured.cut_short, Some(CutShort::Cancelled));
    assert!(cancelled.elapsed() < Duration::from_secs(5), "{:?}", cancelled.elapsed());
}
