//! Walks that end before their tree does.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use volumeviz::agent::walk::{CutShort, Handle, is_mount_point};

#[test]
fn a_passed_deadline_leaves_a_lower_bound() {
    let root = tree();
    fill(root.path(), 20, 20);
    let handle = Handle::with_budget(100);
    let options = Options { deadline: Some(Instant::now() + Duration::from_millis(500)), handle, ..Options::default() };
    let Outcome::Measured(measured) = Walker::new(Threads::Exactly(1)).measure(root.path(), &options) else {
        panic!("not measured")
    };
    assert_eq!(measured.cut_short, Some(CutShort::Deadline));
    assert!(measured.totals.files < 400 && measured.totals.directories >= Some(1), "{measured:?}");
}

/// Runs a test in a process where nothing else runs: true there.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "VOLUMEVIZ_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn number_of(kind: &str) -> usize {
    fs::read_dir(Path::new("/proc/self").join(kind)).unwrap().count()
}

#[test]
fn cancelling_at_any_point_ends_a_walk_and_leaks_nothing() {
    if !is_alone("cancel::cancelling_at_any_point_ends_a_walk_and_leaks_nothing") {
        return;
    }
    let root = tree();
    fill(root.path(), 100, 50);
    // The table of mounts stays open.
    _ = is_mount_point(root.path());
    let before = (number_of("task"), number_of("fd"));
    let mut random = StdRng::seed_from_u64(7);
    let mut cut_short = 0;
    for round in 0..100 {
        let handle = Handle::default();
        let options = Options { handle: handle.clone(), ..Options::default() };
        let at_entry = random.random_range(0..6000);
        let stop = thread::spawn({
            let handle = handle.clone();
            move || {
                // The walk may be over before.
                while handle.entries() < at_entry && !handle.is_cancelled() {
                    thread::yield_now();
                }
                handle.cancel();
                Instant::now()
            }
        });
        let outcome = Walker::new(Threads::Exactly(1 + round % 5)).measure(root.path(), &options);
        let ended = Instant::now();
        handle.cancel();
        let cancelled = stop.join().unwrap();
        let Outcome::Measured(measured) = outcome else { panic!("{outcome:?}") };
        assert!(ended.saturating_duration_since(cancelled) < Duration::from_secs(2), "{:?}", ended - cancelled);
        assert!(measured.errors.is_empty() && measured.totals.files <= 5000, "{measured:?}");
        assert_eq!(Some(measured.totals.files), measured.totals.apparent_bytes, "figures do not belong together");
        cut_short += usize::from(measured.totals.files < 5000);
    }
    assert!(cut_short > 0, "no walk was cut short");
    let until = Instant::now() + Duration::from_secs(10);
    while (number_of("task"), number_of("fd")) != before {
        assert!(
            Instant::now() < until,
            "threads, descriptors: {before:?} before, {:?} left",
            (number_of("task"), number_of("fd"))
        );
        thread::sleep(Duration::from_millis(10));
    }
}
