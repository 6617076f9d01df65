//! Any tree comes to what a plain recursive count says, with any number of threads.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

/// What to do to a growing tree; numbers choose among what is there.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Folder(usize),
    File(usize, u16),
    HardLink(usize, usize),
    SymbolicLink(usize),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<usize>().prop_map(Step::Folder),
        any::<(usize, u16)>().prop_map(|(at, size)| Step::File(at, size)),
        any::<(usize, usize)>().prop_map(|(at, of)| Step::HardLink(at, of)),
        any::<usize>().prop_map(Step::SymbolicLink),
    ]
}

pub(crate) fn build(root: &Path, steps: &[Step]) {
    let (mut folders, mut files) = (vec![root.to_path_buf()], Vec::new());
    for (n, step) in steps.iter().enumerate() {
        let place = |at: usize| folders[at % folders.len()].join(n.to_string());
        match *step {
            Step::Folder(at) => {
                let folder = place(at);
                fs::create_dir(&folder).unwrap();
                folders.push(folder);
            }
            Step::File(at, size) => {
                let file = place(at);
                fs::write(&file, vec![7; size.into()]).unwrap();
                files.push(file);
            }
            Step::HardLink(at, of) if !files.is_empty() => fs::hard_link(&files[of % files.len()], place(at)).unwrap(),
            Step::SymbolicLink(at) => symlink("..", place(at)).unwrap(),
            Step::HardLink(..) => {}
        }
    }
}

/// (allocated, apparent, files, directories) by plain recursion.
fn naive(path: &Path, seen: &mut HashSet<u64>) -> (u64, u64, u64, u64) {
    let entry = fs::symlink_metadata(path).unwrap();
    if !seen.insert(entry.ino()) {
        return (0, 0, 0, 0);
    }
    if !entry.is_dir() {
        return (entry.blocks() * 512, if entry.is_file() { entry.len() } else { 0 }, 1, 0);
    }
    fs::read_dir(path).unwrap().fold((entry.blocks() * 512, 0, 0, 1), |sum, child| {
        let found = naive(&child.unwrap().path(), seen);
        (sum.0 + found.0, sum.1 + found.1, sum.2 + found.2, sum.3 + found.3)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_comes_to_what_plain_recursion_says(steps in prop::collection::vec(step(), 0..120), threads in 1_usize..5) {
        let root = tree();
        build(root.path(), &steps);
        let Outcome::Measured(measured) = Walker::new(Threads::Exactly(threads)).measure(root.path(), &Options::default()) else { panic!("not measured") };
        let (files, directories, apparent) = counts(&measured);
        prop_assert_eq!((measured.totals.allocated_bytes, apparent, files, directories), naive(root.path(), &mut HashSet::new()));
        prop_assert!(measured.errors.is_empty());
    }
}
