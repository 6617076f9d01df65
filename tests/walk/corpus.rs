//! Trees with a known answer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn complete(root: &Path, expected: (u64, u64, u64)) -> Measured {
    let measured = walk(root);
    assert_eq!(counts(&measured), expected);
    assert_eq!(measured.totals.allocated_bytes, du(root), "allocated bytes are not du's");
    assert!(measured.errors.is_empty() && measured.cut_short.is_none(), "{measured:?}");
    measured
}

#[test]
fn an_empty_tree_is_its_root() {
    let root = tree();
    complete(root.path(), (0, 1, 0));
}

#[test]
fn empty_files_are_files() {
    let root = tree();
    for n in 0..1000 {
        fs::write(root.path().join(n.to_string()), "").unwrap();
    }
    complete(root.path(), (1000, 1, 0));
}

#[test]
fn hard_links_count_once_wherever_they_are() {
    let root = tree();
    let outside = tree();
    fs::write(root.path().join("a"), [1; 100_000]).unwrap();
    for n in 0..20 {
        let folder = root.path().join(n.to_string());
        fs::create_dir(&folder).unwrap();
        fs::hard_link(root.path().join("a"), folder.join("link")).unwrap();
    }
    fs::write(outside.path().join("b"), [1; 5000]).unwrap();
    fs::hard_link(outside.path().join("b"), root.path().join("b")).unwrap();
    complete(root.path(), (2, 21, 105_000));
}

#[test]
fn sparse_and_preallocated_files_are_told_by_their_blocks() {
    let root = tree();
    run("truncate", &["-s", "1T", root.path().join("sparse").to_str().unwrap()]);
    fs::write(root.path().join("reserved"), "").unwrap();
    run("fallocate", &["-n", "-l", "10M", root.path().join("reserved").to_str().unwrap()]);
    let measured = complete(root.path(), (2, 1, 1 << 40));
    assert!(measured.totals.allocated_bytes >= 10 << 20);
}

#[test]
fn nothing_is_followed_and_nothing_special_opened() {
    let root = tree();
    let inside = |name: &str| root.path().join(name);
    fs::create_dir(inside("folder")).unwrap();
    fs::write(inside("folder/file"), "12345").unwrap();
    for (target, name) in
        [("/etc", "absolute"), ("folder", "to-folder"), ("loop", "loop"), ("missing", "dangling"), ("..", "up")]
    {
        symlink(target, inside(name)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
    // Opening the FIFO for reading would wait for a writer for ever.
    run("mkfifo", &[inside("fifo").to_str().unwrap()]);
    run("mknod", &[inside("null").to_str().unwrap(), "c", "1", "3"]);
    complete(root.path(), (9, 2, 5));
}

#[test]
fn names_are_bytes() {
    let root = tree();
    for name in [&b"new\nline"[..], b"caf\xe9", b"\xff\xfe", b"...", b"-rf", b"quote\"'$(id)", &[b'n'; 255]] {
        fs::create_dir(root.path().join(OsStr::from_bytes(name))).unwrap();
        fs::write(root.path().join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name)), "1").unwrap();
    }
    complete(root.path(), (7, 8, 7));
}

#[test]
fn mounts_inside_are_listed_and_not_entered() {
    let root = tree();
    let at = |name: &str| root.path().join(name);
    for folder in ["tmpfs", "itself", "kept"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("kept/file"), [1; 5000]).unwrap();
    fs::write(at("single"), "").unwrap();
    fs::write(at("sibling"), "12").unwrap();
    let (tmpfs, itself, single) = (at("tmpfs"), at("itself"), at("single"));
    let _tmpfs = Mounted::new(&tmpfs, &["-t", "tmpfs", "tmpfs"]);
    fs::write(at("tmpfs/big"), [1; 1_000_000]).unwrap();
    let _itself = Mounted::new(&itself, &["--bind", root.path().to_str().unwrap()]);
    let _single = Mounted::new(&single, &["--bind", "/etc/passwd"]);
    let measured = walk(root.path());
    assert_eq!(counts(&measured), (2, 2, 5002), "the root, kept, and the two files outside mounts");
    let mut skipped = measured.skipped_mounts;
    skipped.sort();
    assert_eq!(skipped, [&b"itself"[..], b"single", b"tmpfs"]);
    assert!(measured.errors.is_empty(), "a mount inside leaves a volume complete");
}

#[test]
fn paths_may_be_longer_than_path_max() {
    let root = tree();
    let depth = 3000;
    let perl = format!(
        "chdir '{}'; for (1..{depth}) {{ mkdir 'level'; open(F, '>', 'file'); print F '1'; close F; chdir 'level' }}",
        root.path().display()
    );
    run("perl", &["-e", &perl]);
    let measured = walk(root.path());
    assert_eq!(counts(&measured), (depth, depth + 1, depth));
    assert_eq!(measured.totals.allocated_bytes, du(root.path()));
    run("rm", &["-rf", root.path().to_str().unwrap()]);
}

#[test]
fn more_subdirectories_than_may_wait_are_all_read() {
    let root = tree();
    let folders = 70_000_u64;
    for n in 0..folders {
        fs::DirBuilder::new().mode(0o755).create(root.path().join(n.to_string())).unwrap();
    }
    complete(root.path(), (0, folders + 1, 0));
}

#[test]
fn a_folder_that_cannot_be_read_makes_it_partial() {
    let root = tree();
    fs::create_dir_all(root.path().join("secret/inside")).unwrap();
    fs::write(root.path().join("open"), "1").unwrap();
    run("chmod", &["0", root.path().join("secret").to_str().unwrap()]);
    run("chmod", &["755", root.path().to_str().unwrap()]);
    let binary = tree();
    fs::copy(env!("CARGO_BIN_EXE_volumeviz"), binary.path().join("volumeviz")).unwrap();
    run("chmod", &["-R", "755", binary.path().to_str().unwrap()]);
    let output = Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(binary.path().join("volumeviz"))
        .args(["scan", "--output", "json"])
        .arg(root.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let volume = &report["volumes"][0];
    assert_eq!((&volume["completeness"], &volume["files"]), (&"Partial".into(), &1.into()));
    assert_eq!(volume["directories"], 2, "its own blocks are counted");
    assert_eq!(volume["errors"], serde_json::json!([{"kind": "PermissionDenied", "count": 1}]));
}
