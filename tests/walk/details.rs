//! Details are what a plain recursion finds, however many threads share the tree.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use volumeviz::agent::walk::{AGES_IN_DAYS, Biggest, Details, Histogram, SIZES, Share, Wanted};

use super::random::{build, step};
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const EXTENSIONS: [&str; 6] = ["", ".txt", ".TXT", ".tar.gz", ".", ".longer-than-sixteen"];

fn details(root: &Path, threads: usize, wanted: Wanted) -> (Measured, Details) {
    let options = Options { details: wanted, ..Options::default() };
    let Outcome::Measured(mut measured) = Walker::new(Threads::Exactly(threads)).measure(root, &options) else {
        panic!("not measured")
    };
    let details = measured.details.take().unwrap();
    (measured, details)
}

fn wanted(top: usize, histogram: bool) -> Wanted {
    Wanted { top, histogram, now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() }
}

/// Gives each inode its own age, owner and extension, by its number.
fn dress(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).collect::<Vec<_>>() {
        let (path, found) = (entry.path(), entry.metadata().unwrap());
        if found.is_dir() {
            dress(&path);
            continue;
        }
        let of = |count: usize| usize::try_from(found.ino()).unwrap() % count;
        if found.is_file() {
            let days = [-2_i32, 0, 3, 10, 60, 200, 1000][of(7)];
            let age = DAY * days.unsigned_abs() + DAY / 2;
            let now = SystemTime::now();
            let written = if days < 0 { now + age } else { now - age };
            fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }
        lchown(&path, Some(u32::try_from(of(3)).unwrap()), None).unwrap();
        fs::rename(&path, format!("{}{}", path.display(), EXTENSIONS[of(6)])).unwrap();
    }
}

/// What a plain recursion finds.
#[derive(Debug, Default)]
struct Naive {
    seen: HashSet<u64>,
    /// Paths of each file, and its bytes.
    files: BTreeMap<u64, (BTreeSet<Vec<u8>>, u64)>,
    directories: BTreeMap<Vec<u8>, u64>,
    sizes: [Share; SIZES.len() + 1],
    ages: [Share; AGES_IN_DAYS.len() + 1],
    owners: BTreeMap<u32, Share>,
    extensions: BTreeMap<Vec<u8>, Share>,
}

impl Naive {
    fn of(root: &Path) -> Self {
        let mut naive = Self::default();
        naive.visit(root, root);
        naive
    }

    fn visit(&mut self, root: &Path, folder: &Path) {
        let below = |path: &Path| path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let mut own = fs::symlink_metadata(folder).unwrap().blocks() * 512;
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            if found.is_dir() {
                self.visit(root, &path);
                continue;
            }
            let bytes = found.blocks() * 512;
            self.files.entry(found.ino()).or_insert((BTreeSet::new(), bytes)).0.insert(below(&path));
            if self.seen.insert(found.ino()) {
                own += bytes;
                self.count(&found, path.file_name().unwrap());
            }
        }
        self.directories.insert(below(folder), own);
    }

    fn count(&mut self, found: &fs::Metadata, name: &OsStr) {
        let share = Share { files: 1, allocated_bytes: found.blocks() * 512 };
        let size = match found.size() {
            0 => 0,
            1..0x1000 => 1,
            0x1000..0x1_0000 => 2,
            0x1_0000..0x10_0000 => 3,
            0x10_0000..0x100_0000 => 4,
            0x100_0000..0x1000_0000 => 5,
            0x1000_0000..0x1_0000_0000 => 6,
            _ => 7,
        };
        let age = match SystemTime::now().duration_since(found.modified().unwrap()) {
            Err(_) => 0,
            Ok(age) => 1 + [1, 7, 30, 90, 365].iter().filter(|days| age >= DAY * **days).count(),
        };
        let extension = Path::new(name).extension().map(|found| found.as_bytes().to_ascii_lowercase());
        let extension = extension.filter(|found| found.len() <= 16).unwrap_or_default();
        self.sizes[size].add(share);
        self.ages[age].add(share);
        self.owners.entry(found.uid()).or_default().add(share);
        self.extensions.entry(extension).or_default().add(share);
    }

    fn has_hard_links(&self) -> bool {
        self.files.values().any(|(paths, _)| paths.len() > 1)
    }

    /// The bytes of the biggest files.
    fn biggest(&self, most: usize) -> Vec<u64> {
        let mut bytes: Vec<u64> = self.files.values().map(|(_, bytes)| *bytes).collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        bytes.truncate(most);
        bytes
    }

    /// Each of them once, by one of its names.
    fn assert_are_biggest(&self, files: &[Biggest], most: usize) {
        let bytes: Vec<u64> = files.iter().map(|file| file.allocated_bytes).collect();
        assert_eq!(bytes, self.biggest(most));
        let inode = |file: &Biggest| {
            let one = |(_, (paths, bytes)): &(&u64, &(BTreeSet<Vec<u8>>, u64))| {
                paths.contains(&file.path) && *bytes == file.allocated_bytes
            };
            self.files.iter().find(one).map(|(inode, _)| *inode)
        };
        let inodes: HashSet<u64> = files.iter().map(|file| inode(file).expect("no such file")).collect();
        assert_eq!(inodes.len(), files.len());
    }

    fn assert_spread(&self, histogram: &Histogram) {
        assert_eq!((&self.sizes, &self.ages), (&histogram.sizes, &histogram.ages));
        assert_eq!(self.owners, histogram.owners.biggest_first().into_iter().collect());
        let extensions = histogram.extensions.biggest_first().into_iter();
        let mut found: BTreeMap<_, _> = extensions.map(|(key, share)| (key.as_bytes().to_vec(), share)).collect();
        if histogram.without_extension != Share::default() {
            found.insert(Vec::new(), histogram.without_extension);
        }
        assert_eq!(self.extensions, found);
        assert_eq!((histogram.owners.others, histogram.extensions.others), Default::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn details_of_any_tree_are_what_plain_recursion_says(
        steps in prop::collection::vec(step(), 0..120), threads in prop::sample::select(vec![1_usize, 4]), top in 1_usize..12
    ) {
        let root = tree();
        build(root.path(), &steps);
        dress(root.path());
        let naive = Naive::of(root.path());
        let (_, few) = details(root.path(), threads, wanted(top, true));
        naive.assert_are_biggest(&few.top_files, top);
        naive.assert_spread(&few.histogram.unwrap());
        let (measured, all) = details(root.path(), threads, wanted(1000, false));
        prop_assert!(all.histogram.is_none());
        naive.assert_are_biggest(&all.top_files, 1000);
        // With hard links it is not said which directory has the bytes, but that one has.
        let sum: u64 = all.top_directories.iter().map(|one| one.allocated_bytes).sum();
        prop_assert_eq!((sum, all.top_directories.len()), (measured.totals.allocated_bytes, naive.directories.len()));
        if !naive.has_hard_links() {
            let found: BTreeMap<_, _> = all.top_directories.into_iter().map(|one| (one.path, one.allocated_bytes)).collect();
            prop_assert_eq!(found, naive.directories);
        }
    }
}

#[test]
fn classes_end_where_they_say() {
    let root = tree();
    for size in SIZES {
        for size in [size - 1, size] {
            fs::File::create(root.path().join(size.to_string())).unwrap().set_len(size).unwrap();
        }
    }
    let (ages, now, minute) = (tree(), SystemTime::now(), Duration::from_secs(60));
    for days in AGES_IN_DAYS {
        let border = now - DAY * u32::try_from(days).unwrap();
        for (name, written) in [("younger", border + minute), ("older", border - minute)] {
            let file = fs::File::create(ages.path().join(format!("{days}-{name}"))).unwrap();
            file.set_modified(written).unwrap();
        }
    }
    let (_, found) = details(root.path(), 1, wanted(0, true));
    let histogram = found.histogram.unwrap();
    assert_eq!(histogram.sizes.map(|share| share.files), [1, 2, 2, 2, 2, 2, 2, 1]);
    assert!(found.top_files.is_empty() && found.top_directories.is_empty());
    let (_, found) = details(ages.path(), 1, wanted(0, true));
    assert_eq!(found.histogram.unwrap().ages.map(|share| share.files), [1, 2, 2, 2, 2, 2, 1]);
}

#[test]
fn a_directory_that_several_threads_share_is_told_once_and_wholly() {
    let root = tree();
    let big = root.path().join("big");
    fs::create_dir(&big).unwrap();
    for n in 0..5000 {
        fs::write(big.join(n.to_string()), "1").unwrap();
    }
    fs::write(root.path().join("small"), [1; 9000]).unwrap();
    let naive = Naive::of(root.path());
    for _ in 0..20 {
        let (_, found) = details(root.path(), 4, wanted(10, true));
        let directories: BTreeMap<_, _> =
            found.top_directories.into_iter().map(|one| (one.path, one.allocated_bytes)).collect();
        assert_eq!(directories, naive.directories);
        assert_eq!(found.histogram.unwrap().sizes[1].files, 5000);
    }
}

#[test]
fn a_directory_that_is_put_aside_is_told_once_and_wholly() {
    let root = tree();
    for n in 0..70_000 {
        fs::create_dir(root.path().join(n.to_string())).unwrap();
        if n % 7 == 0 {
            fs::write(root.path().join(format!("{n}.file")), "1").unwrap();
        }
    }
    let files: u64 = Naive::of(root.path()).directories[&Vec::new()];
    for threads in [1, 4] {
        let (_, found) = details(root.path(), threads, wanted(3, false));
        assert_eq!(found.top_directories[0], Biggest { allocated_bytes: files, path: Vec::new() });
        assert!(found.top_directories[1].allocated_bytes < files, "the root again: {found:?}");
    }
}

#[test]
fn paths_no_system_call_would_take_are_told_by_their_end() {
    let root = tree();
    let depth = 900;
    let perl = format!(
        "chdir '{}'; for (1..{depth}) {{ mkdir 'level'; chdir 'level' }} open(F, '>', 'file'); print F '1' x 100000",
        root.path().display()
    );
    run("perl", &["-e", &perl]);
    let (_, found) = details(root.path(), 2, wanted(1, false));
    let path = String::from_utf8(found.top_files[0].path.clone()).unwrap();
    assert!(path.starts_with(".../level/") && path.ends_with("/level/file") && path.len() <= 4100, "{path}");
    run("rm", &["-rf", root.path().to_str().unwrap()]);
}

#[test]
fn nothing_is_told_that_nobody_asked_for() {
    let root = tree();
    fs::write(root.path().join("file"), "1").unwrap();
    assert_eq!(walk(root.path()).details, None);
}
