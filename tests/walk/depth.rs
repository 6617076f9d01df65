//! Trees that are deep or wide beyond what others take.

use super::*;

/// Longer than any path that the kernel takes, deeper than the descriptors a walk keeps and than any stack.
const DEPTH: u64 = 5000;

#[test]
fn paths_may_be_longer_than_path_max() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    let perl = format!(
        "chdir '{}'; for (1..{DEPTH}) {{ mkdir 'level'; open(F, '>', 'file'); print F '1'; close F; chdir 'level' }}",
        root.path().display()
    );
    run("perl", &["-e", &perl]);
    complete(root.path(), (DEPTH, DEPTH + 1, DEPTH));
}

#[test]
fn more_subdirectories_than_may_wait_are_all_read() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    let folders = 70_000_u64;
    (0..folders).for_each(|n| fs::create_dir(root.path().join(n.to_string())).unwrap());
    complete(root.path(), (0, folders + 1, 0));
}

#[test]
fn a_huge_directory_is_read_once_however_many_threads_there_are() {
    let root = tree();
    let _tmpfs = Mounted::tmpfs(root.path());
    let files = 200_000_u64;
    (0..files).for_each(|n| drop(fs::File::create(root.path().join(format!("file-{n}"))).unwrap()));
    let expected = complete(root.path(), (files, 1, 0)).totals;
    for threads in [1, 4, 16] {
        assert_eq!(walk_with(threads, root.path()).totals, expected, "with {threads} threads");
    }
}
