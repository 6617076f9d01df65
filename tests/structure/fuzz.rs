//! Targets of fuzzing are built, begin with something, and are told of; what they fuzz is what is released.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn targets() -> BTreeSet<String> {
    let files = fs::read_dir(fuzz("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn each_target_is_built_and_begins_with_something() {
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    let built: BTreeSet<String> =
        manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap().to_owned()).collect();
    assert_eq!(built, targets());
    for target in targets() {
        let seeds = fs::read_dir(fuzz("seeds").join(&target)).map(Iterator::count);
        assert!(seeds.is_ok_and(|seeds| seeds > 1), "fuzz/seeds/{target} has no examples");
    }
}

#[test]
fn each_target_is_a_control() {
    let page = include_str!("../../docs/security.md");
    let row = page.lines().find(|line| line.starts_with("| S21 ")).unwrap();
    let (_, told) = row.split_once("`make fuzz`").unwrap();
    let told: BTreeSet<String> = told.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(told, targets());
}

/// Each package with its versions.
fn locked(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut locked = BTreeMap::<_, BTreeSet<_>>::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_matches('"');
        locked.entry(field("name = ")).or_default().insert(field("version = "));
    }
    locked
}

#[test]
fn what_is_fuzzed_is_what_is_released() {
    let fuzzed = fs::read_to_string(fuzz("Cargo.lock")).unwrap();
    let (released, fuzzed) = (locked(include_str!("../../Cargo.lock")), locked(&fuzzed));
    let of_the_fuzzer = ["arbitrary", "jobserver", "libfuzzer-sys", "volumeviz-fuzz"];
    for (name, versions) in fuzzed.iter().filter(|(name, _)| !of_the_fuzzer.contains(name)) {
        let same = released.get(name).is_some_and(|released| versions.is_subset(released));
        assert!(
            same,
            "{name} {versions:?} of fuzz/Cargo.lock is not that of Cargo.lock: copy it from there, and build"
        );
    }
}
