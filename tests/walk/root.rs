//! What a root may be, and what becomes of a walk whose root goes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use volumeviz::agent::walk::{CutShort, Handle};

fn measure(root: &Path) -> Outcome {
    Walker::new(Threads::Exactly(2)).measure(root, &Options::default())
}

#[test]
fn a_root_is_a_directory_and_no_link_to_one() {
    let parent = tree();
    let at = |name: &str| parent.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/file"), "1").unwrap();
    symlink("real", at("link")).unwrap();
    for name in ["link", "real/file"] {
        assert_eq!(measure(&at(name)), Outcome::Unreadable { kind: "NotADirectory".to_owned() }, "{name}");
    }
    fs::create_dir(at("real/volume")).unwrap();
    complete(&at("link/volume"), (0, 1, 0));
}

#[test]
fn a_root_may_be_a_mount_of_its_own() {
    let parent = tree();
    let root = parent.path().join("volume");
    fs::create_dir(&root).unwrap();
    let _tmpfs = Mounted::new(&root, &["-t", "tmpfs", "-o", "size=16M", "tmpfs"]);
    fs::write(root.join("file"), [1; 5000]).unwrap();
    both_ways(|| {
        let measured = complete(&root, (1, 1, 5000));
        assert!(measured.skipped_mounts.is_empty());
        assert_eq!(measured.filesystem.unwrap().capacity_bytes, 16 << 20, "the root's file system, not its parent's");
    });
}

#[test]
fn a_root_that_never_was_is_vanished() {
    assert_eq!(measure(Path::new("/nowhere/at/all")), Outcome::Vanished);
}

/// Does something to the root while a walk is inside.
fn while_walking(act: impl FnOnce(&Path)) -> Outcome {
    let parent = tree();
    let root = parent.path().join("volume");
    fs::create_dir(&root).unwrap();
    fill(&root, 10, 20);
    // By its budget it would take 20 s.
    let handle = Handle::with_budget(10);
    let walking = thread::spawn({
        let (root, handle): (PathBuf, _) = (root.clone(), handle.clone());
        move || Walker::new(Threads::Exactly(1)).measure(&root, &Options { handle, ..Options::default() })
    });
    let until = Instant::now() + Duration::from_secs(20);
    while handle.entries() == 0 {
        assert!(Instant::now() < until, "the walk does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    act(&root);
    handle.cancel();
    walking.join().unwrap()
}

#[test]
fn a_root_that_stays_is_not_vanished() {
    let Outcome::Measured(measured) = while_walking(|_| ()) else { panic!("not measured") };
    assert_eq!(measured.cut_short, Some(CutShort::Cancelled));
}

#[test]
fn a_root_removed_meanwhile_is_vanished() {
    assert_eq!(while_walking(|root| fs::remove_dir_all(root).unwrap()), Outcome::Vanished);
}

#[test]
fn a_root_renamed_meanwhile_is_vanished() {
    assert_eq!(while_walking(|root| fs::rename(root, root.with_extension("old")).unwrap()), Outcome::Vanished);
}

#[test]
fn a_root_made_anew_meanwhile_is_vanished() {
    let anew = |root: &Path| {
        fs::rename(root, root.with_extension("old")).unwrap();
        fs::create_dir(root).unwrap();
    };
    assert_eq!(while_walking(anew), Outcome::Vanished);
}
