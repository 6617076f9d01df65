//! Trees that change while they are walked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

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

/// Walks on four threads; a tree that changes must end the walk no later and no other way.
fn walk_to_the_end(root: &Path) -> Measured {
    let options = Options { deadline: Some(Instant::now() + Duration::from_secs(30)), ..Options::default() };
    let Outcome::Measured(measured) = Walker::new(Threads::Exactly(4)).measure(root, &options) else {
        panic!("not measured")
    };
    assert_eq!((&measured.errors, measured.cut_short), (&BTreeMap::new(), None));
    measured
}

/// Only what stays has bytes, so that their sum tells whether each was counted once.
#[test]
fn what_comes_and_goes_is_no_error_and_what_stays_is_counted_once() {
    let root = tree();
    fill(root.path(), 50, 20);
    for folder in 0..25 {
        let [one, other] = [folder, folder + 25].map(|folder| root.path().join(folder.to_string()));
        fs::hard_link(one.join("0"), other.join("link")).unwrap();
    }
    let _storms: Vec<_> = (0..3)
        .map(|storm| {
            let root = root.path().to_path_buf();
            Storm::new(move |n| {
                let folder = root.join((n % 50).to_string());
                let [a, b, c] = ["a", "b", "c"].map(|name| folder.join(format!("{name}{storm}")));
                drop(fs::create_dir_all(a.join("deep/er")));
                drop(fs::write(a.join("deep/file"), ""));
                drop(fs::hard_link(a.join("deep/file"), root.join(format!("link{storm}"))));
                drop(fs::rename(&a, &b));
                drop(symlink("/", &c));
                drop(fs::rename(&c, &a));
                drop(fs::remove_file(&a));
                drop(fs::remove_file(root.join(format!("link{storm}"))));
                drop(fs::remove_dir_all(&b));
            })
        })
        .collect();
    both_ways(|| {
        for _ in 0..25 {
            let measured = walk_to_the_end(root.path());
            assert_eq!(measured.totals.apparent_bytes, Some(1000));
            assert!(measured.totals.files >= 1000 && measured.totals.directories >= Some(51), "{measured:?}");
        }
    });
}

/// Puts a link in the place of a folder, and the folder back, over and over.
fn swapping(place: PathBuf, link: PathBuf, aside: PathBuf) -> Storm {
    Storm::new(move |_| {
        for (from, to) in [(&place, &aside), (&link, &place), (&place, &link), (&aside, &place)] {
            drop(fs::rename(from, to));
        }
    })
}

/// The classic attack: a folder becomes a symbolic link to somewhere else between being listed and being opened.
#[test]
fn a_folder_swapped_for_a_link_never_leads_outside() {
    let (root, outside) = (tree(), tree());
    fill(outside.path(), 1, 500);
    let (folder, link, away) = (root.path().join("x"), root.path().join("link"), root.path().join("away"));
    fs::create_dir(&folder).unwrap();
    symlink(outside.path(), &link).unwrap();
    let _storm = swapping(folder, link, away);
    both_ways(|| {
        for _ in 0..500 {
            let measured = walk_to_the_end(root.path());
            assert!(measured.totals.files <= 2, "something outside was counted: {measured:?}");
        }
    });
}

/// The same above where the walk is: ancestors whose descriptors are no longer kept are opened again by name.
#[test]
fn ancestors_swapped_for_links_never_lead_outside() {
    let (root, outside) = (tree(), tree());
    let levels = |from: &Path| (0..400).fold(from.to_path_buf(), |path, _| path.join("l"));
    let (deep, decoy) = (levels(root.path()), levels(outside.path()));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir_all(&decoy).unwrap();
    fill(&decoy, 1, 500);
    let place = (0..300).fold(root.path().to_path_buf(), |path, _| path.join("l"));
    let (aside, link) = (place.with_file_name("aside"), place.with_file_name("link"));
    symlink(outside.path(), &link).unwrap();
    let _storm = swapping(place, link, aside);
    both_ways(|| {
        for _ in 0..25 {
            let measured = walk_to_the_end(root.path());
            assert!(measured.totals.files <= 2, "something outside was counted: {measured:?}");
        }
    });
}

/// What moves may be seen before and after, or never; the error is no bigger than what moved.
#[test]
fn a_folder_that_moves_about_is_all_that_is_counted_wrong() {
    let root = tree();
    fill(root.path(), 20, 20);
    for folder in ["first", "last", "first/moving"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    fill(&root.path().join("first/moving"), 2, 25);
    let [first, last] = ["first/moving", "last/moving"].map(|name| root.path().join(name));
    let _storm = Storm::new(move |_| {
        drop(fs::rename(&first, &last));
        drop(fs::rename(&last, &first));
    });
    both_ways(|| {
        for _ in 0..100 {
            let files = walk_to_the_end(root.path()).totals.files;
            assert!((400..=500).contains(&files), "400 stay and 50 move, but {files} were counted");
        }
    });
}

#[test]
fn a_directory_that_grows_while_it_is_read_comes_to_an_end() {
    let root = tree();
    fill(root.path(), 1, 1000);
    let _storms: Vec<_> = (0..2)
        .map(|storm| {
            let root = root.path().join("0");
            Storm::new(move |n| drop(fs::File::create(root.join(format!("{storm}-{n}"))).unwrap()))
        })
        .collect();
    for _ in 0..10 {
        let measured = walk_to_the_end(root.path());
        assert_eq!(measured.totals.apparent_bytes, Some(1000));
    }
}
